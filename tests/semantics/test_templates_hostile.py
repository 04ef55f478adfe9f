"""SEMANTICS, "Message template": no template can reach Python internals, import, change what the next
recipient sees, or exceed bounds on steps and on built text."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import Invalid
from app.messages.content import MAX_TEXT
from app.messages.rendering import MessageTemplate, RenderedMessage, RenderError, Variables, user_fields
from app.messages.templating.conditions import TESTS
from app.messages.templating.functions import FILTERS, METHODS
from app.messages.templating.sandbox import MAX_BUILT, MAX_STEPS
from tests.semantics.test_templates import ANNA, CREATED, PEOPLE, TALK, mistakes, person, rendered

BIG = {
    "big": list(range(4_000)),
    "long": "ab " * 3_000,
    "lists": [[1]] * 1_500,
    "rows": [{"a": {"b": number}} for number in range(200)],
    "none": [None] * 1_000,
}
VICTIMS = Variables(person("anna", "Anna", BIG), person("rex", "Rex", BIG))
STEPS = f"{MAX_STEPS:,} steps"
BUILT = f"{MAX_BUILT:,} characters"
ATTACKS: dict[str, tuple[str, str]] = {
    "a counting function by its name, with a negative weight, fills the steps again": (
        "{{ [receiver.big]|map('_loop', 0 - 10 ** 9)|list }}{% for i in range(9 ** 9) %}{% endfor %}",
        "a filter that is not there",
    ),
    "the call of a method by its name": (
        "{{ ['{}']|map('_call', 'format', 1)|list }}",
        "a filter that is not there",
    ),
    "a test that is none": ("{{ [1]|select('_loop')|list }}", "a test that is not there"),
    "a filter's name of ten thousand letters, quoted in every ledger row": (
        "{{ [1]|map(receiver.long)|list }}",
        "a filter that is not there",
    ),
    "% of a text in a test formats it: a gigabyte": ("{{ '%900000000d' is odd }}", "text is not a number"),
    "even": ("{{ '%900000000d' is even }}", "text is not a number"),
    "divisible": ("{{ '%900000000d' is divisibleby(3) }}", "text is not a number"),
    "a test over a list": ("{{ ['%900000000d']|select('odd')|list }}", "text is not a number"),
    "rounding repeats a text": ("{{ 'x'|round(9, 'floor') }}", "text is not a number"),
    "rounding repeats a list": ("{{ [1]|round(8, 'ceil') }}", "a list is not a number"),
    "summing texts, never built": ("{{ ['ab', 'cd']|sum(start='') }}", "text is not a number"),
    "summing lists, each copied again": ("{{ receiver.lists|sum(start=[]) }}", "a list is not a number"),
    "a thousand named values in one conversion": (
        "{% set a = '\U0010ffff' * 30000 %}{{ '%s'|format("
        + ",".join(f"a{number}=a" for number in range(900))
        + ")|length }}",
        "names for all of its values",
    ),
    "wide conversions of a huge number": (
        "{{ ('%99.99f' * 200)|format(" + ",".join(["1e308"] * 200) + ")|length }}",
        BUILT,
    ),
    "padding": ("{{ '%99999999s' % 1 }}", "a format has a %"),
    "padding by an argument": ("{{ '%*d' % (99999999, 1) }}", "a format has a %"),
    "a person repeated in a list, all of it written out": (
        "{% set a = [receiver] %}" + "{% set a = a + a %}" * 14 + "{{ a|tojson }}",
        STEPS,
    ),
    "nested loops": ("{% for a in range(99) %}" * 4 + "x" + "{% endfor %}" * 4, STEPS),
    "a giant range": ("{% for i in range(10 ** 15) %}{% endfor %}", STEPS),
    "a range beyond any length": ("{{ range(0 - 10 ** 18, 9 * 10 ** 18)|length }}", "a range is too long"),
    "multiplied text": ("{{ 'x' * 10 ** 9 }}", BUILT),
    "multiplied list": ("{{ [0] * 10 ** 9 }}", "is not possible"),
    "a tower of powers": ("{{ 9 ** 9 ** 9 }}", "64 bits"),
    "a shift by multiplication": ("{{ 2 ** 62 * 2 ** 62 }}", "64 bits"),
    "replace doubles": ("{% set a = 'x' %}" + "{% set a = a|replace('x', 'xx') %}" * 40 + "{{ a }}", BUILT),
    "replace of nothing": ("{{ receiver.long|replace('', receiver.long)|length }}", BUILT),
    "join doubles": ("{% set a = 'x' %}" + "{% set a = [a, a]|join(a) %}" * 40 + "{{ a }}", BUILT),
    "set blocks double": (
        "{% set a = 'x' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
        BUILT,
    ),
    "lists double": ("{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a }}", STEPS),
    "lists nest": ("{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}", STEPS),
    "a long list as default of each item": (
        "{{ receiver.none|map('default', receiver.big)|list|length }}",
        STEPS,
    ),
    "searching again and again": (
        "{% set a = 'a' * 29000 %}{% set b = ('a' * 49) ~ 'b' ~ ('a' * 49) %}"
        "{% for i in range(99) %}{{ b in a }}{% endfor %}",
        STEPS,
    ),
    "a filter called twenty thousand times": (
        "{% for i in range(20000) %}{% if 'x'|int %}{% endif %}{% endfor %}",
        STEPS,
    ),
    "a filter for each item": (
        "{% for i in range(99) %}{{ receiver.big|map('round')|first }}{% endfor %}",
        STEPS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_template_can_exceed_bounds_on_steps_and_on_built_text(attack: str) -> None:
    text, says = ATTACKS[attack]
    with pytest.raises((RenderError, Invalid)) as caught:
        MessageTemplate.compile({"text": text}).render(VICTIMS)
    assert says in str(caught.value)


def test_a_thousand_times_the_same_person_is_counted_in_custom_too() -> None:
    for whole in ("{{ receiver }}", "{{ receiver.big }}"):
        template = MessageTemplate.compile({"text": "", "custom": {str(n): whole for n in range(190)}})
        with pytest.raises(RenderError, match="steps"):
            template.render(VICTIMS)


def test_looking_up_by_a_huge_key_names_nothing_huge() -> None:
    template = MessageTemplate.compile(
        {"text": "{% for i in range(5000) %}{{ receiver[receiver.big] }}{% endfor %}{{ receiver['n' ~ 1] }}"}
    )
    message = template.render(VICTIMS, collect_missing=True)
    assert (message.text, message.missing) == ("", ("n1",))


def test_names_that_a_loop_makes_up_are_not_all_collected() -> None:
    template = MessageTemplate.compile(
        {"text": "{% for i in range(999) %}{{ receiver['n' ~ i] }}{% endfor %}"}
    )
    assert len(template.render(VICTIMS, collect_missing=True).missing) == 100


INTERNALS = [
    "{{ receiver.__class__ }}",
    "{{ receiver['__class__'] }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ (receiver.name ~ '').join.__globals__ }}",
    "{{ receiver|attr('__class__') }}",
    "{{ '{0.__class__}'.format(receiver) }}",
    "{{ '{0.__class__}'.format_map(receiver) }}",
    "{{ range.__self__ }}",
    "{{ self.__init__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ namespace(a=1) }}",
    "{{ dict(a=1) }}",
    "{{ receiver.name.encode() }}",
    "{{ receiver.name.translate({}) }}",
    "{{ receiver.tags.append(1) }}",
    "{{ receiver.tags.sort() }}",
    "{{ receiver.address.update({'a': 1}) }}",
    "{{ receiver.address.pop('city') }}",
    "{{ receiver.pop('name') }}",
    "{% set receiver.name = 'x' %}",
    "{% set receiver = sender %}",
    "{% set ｒeceiver = sender %}",
    "{% set ｓender = 'x' %}{{ sender }}",
    "{{ receiver.name|upper(ｖalue=1) }}",
    "{% for receiver in [1] %}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.x = 1 %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
    "{% include 'secret' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends 'base' %}",
    "{% block a %}{% endblock %}",
    "{% call receiver.name() %}{% endcall %}",
    "{{ caller() }}",
    "{{ super() }}",
    "{{ environment }}",
    "{{ context }}",
    "{{ missing }}",
    "{{ receiver.name|center(99999999) }}",
    "{{ receiver.name.ljust(99999999) }}",
    "{{ receiver.name.zfill(99999999) }}",
    "{{ receiver.name.expandtabs(99999999) }}",
    "{{ [1]|batch(99999999, 0) }}",
    "{{ receiver|pprint }}",
    "{{ [1]|random }}",
    "{{ receiver|xmlattr }}",
    "{{ receiver.long|wordwrap(1) }}",
    "{{ receiver.name is callable }}",
    "{{ receiver.name is filter }}",
    "{{ range(*receiver.big) }}",
    "{{ receiver.name|upper(**receiver) }}",
]


@pytest.mark.parametrize("text", INTERNALS)
def test_no_template_can_reach_python_internals_import_or_change_anything(text: str) -> None:
    (error,) = mistakes(text=text)
    assert error.code == "INVALID_INPUT"
    assert error.details is not None and error.details["line"] == 1 and error.details["column"] >= 1


UNREACHED = [
    "{% set c = '__cla' ~ 'ss__' %}{{ receiver[c] }}{{ ''[c] }}{{ [][c] }}{{ 1[c] }}{{ {}[c] }}{{ none[c] }}",
    "{{ [receiver]|map(attribute='__class__')|join }}{{ ['']|map(attribute='__class__.__mro__')|join }}",
    "{{ [receiver]|map(attribute='_custom')|join }}{{ receiver._custom }}{{ receiver['_own'] }}",
    "{{ [receiver]|selectattr('plain')|join }}{{ ['']|groupby('__class__')|map(attribute='grouper')|join }}",
    "{% for x in [1] %}{{ loop._iterable }}{{ loop['_undefined'] }}{{ loop.depth0 }}{% endfor %}",
    "{{ receiver.nick._undefined_name }}{{ receiver.nick._fail_with_undefined_error }}",
]


@pytest.mark.parametrize("text", UNREACHED)
def test_python_is_nowhere_behind_a_field(text: str) -> None:
    assert rendered(text, Variables(person("a", "A", {}), person("b", "B", {}))).text == ""


MUTATIONS = [
    "{{ receiver.tags|sort(reverse=true) }}{{ receiver.tags|reverse|list }}{{ receiver.tags + [1] }}",
    "{% set t = sender.shared %}{% set t = t + ['mine'] %}{{ t }}{{ sender.shared|map('upper')|list }}",
    "{% set seen = (seen|default('')) ~ receiver.id %}{{ seen }}",
    "{% for t in sender.shared %}{% set t = receiver.id %}{{ loop.changed(t) }}{{ t }}{% endfor %}",
    "{% with sender2 = sender %}{{ sender2.shared }}{% endwith %}{{ [sender, sender.shared]|tojson }}",
    "{% for g in sender.shared|groupby(0) %}{{ g.list }}{% endfor %}{{ receiver.secret }}{{ receiver.kept }}",
    "{% if receiver.id == 'a' %}{% set leak = receiver.secret %}{% endif %}{{ leak }}",
]


@pytest.mark.parametrize("text", MUTATIONS)
def test_nothing_a_template_does_changes_what_the_next_recipient_sees(text: str) -> None:
    shared = {"shared": ["one", "two"], "deep": {"a": [1]}}
    before = deepcopy(shared)
    sender = user_fields("s", "S", None, None, CREATED, shared)
    first = user_fields("a", "A", None, None, CREATED, {"tags": ["x"], "secret": "of a", "kept": 1})
    second = user_fields("b", "B", None, None, CREATED, {"tags": ["y"]})
    template = MessageTemplate.compile({"text": text, "custom": {"x": text}})
    alone = template.render(Variables(sender, second))
    one = template.render(Variables(sender, first))
    assert template.render(Variables(sender, second)) == alone
    assert template.render(Variables(sender, first)) == one
    assert "of a" not in alone.text
    assert shared == before


def test_all_bounds_begin_anew_with_each_recipient() -> None:
    template = MessageTemplate.compile(
        {"text": "{% if receiver.id == 'rex' %}{% for i in range(10 ** 9) %}{% endfor %}{% endif %}fine"}
    )
    other = Variables(ANNA, person("bob", "Bob", {}))
    for _ in range(3):
        with pytest.raises(RenderError, match="steps"):
            template.render(PEOPLE)
        assert template.render(other).text == "fine"


# ------------------------------------------------------------------ any template at all

NAMES = st.sampled_from(
    ["receiver.name", "receiver", "user.tags", "receiver.age", "sender.rows", "receiver.nick", "channel", "x",
     "loop.index", "receiver.long", "sender", "nobody", "receiver.vip", "receiver.rows[0].a",
     "receiver['ta' ~ 'gs']", "loop", "none"]
)  # fmt: skip
LITERALS = st.sampled_from(
    ["1", "0", "-3", "2.5", "'a'", "''", "'%s'", "'%99d'", "'é😀'", "true", "none", "[]", "{}", "10 ** 9",
     "'_loop'", "'upper'", "'name'", "'a.b'", "9223372036854775807", "1e308"]
)  # fmt: skip
CALLS = st.lists(st.one_of(LITERALS, NAMES), max_size=3).map(", ".join)
FILTER_NAMES = st.sampled_from([*sorted(FILTERS), "attr", "_loop"])


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(
            ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]
        ), inner),
        st.builds("{}|{}({})".format, inner, FILTER_NAMES, CALLS),
        st.builds("{}|{}".format, inner, FILTER_NAMES),
        st.builds("({} is {})".format, inner, st.sampled_from(sorted(filter(str.isalpha, TESTS)))),
        st.builds("{}.{}({})".format, inner, st.sampled_from(sorted(METHODS)), CALLS),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("{}[{}:{}]".format, inner, LITERALS, LITERALS),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{'a': {}, {}: 1}}".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("range({})".format, inner),
        st.builds("(-{})".format, inner),
        st.builds("(not {})".format, inner),
    )  # fmt: skip


EXPRESSIONS = st.recursive(st.one_of(NAMES, LITERALS), _grown, max_leaves=6)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% for x in {} %}}{}{{% endfor %}}".format, EXPRESSIONS, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSIONS, inner, inner),
        st.builds("{{% set x = {} %}}{}".format, EXPRESSIONS, inner),
        st.builds("{{% set x %}}{}{{% endset %}}{{{{ x }}}}".format, inner),
        st.builds("{{% with x = {} %}}{}{{% endwith %}}".format, EXPRESSIONS, inner),
        st.builds("{{% filter {} %}}{}{{% endfilter %}}".format, FILTER_NAMES, inner),
    )


TEMPLATES = st.recursive(
    st.one_of(
        EXPRESSIONS.map("{{{{ {} }}}}".format),
        st.sampled_from(["a", "{b}", "\n", "{% raw %}{{{% endraw %}", "{{", "%}"]),
    ),
    _statements,
    max_leaves=5,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "items"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
PERSON = st.fixed_dictionaries(
    {},
    optional={
        "tags": JSON,
        "age": JSON,
        "nick": JSON,
        "vip": JSON,
        "rows": JSON,
        "long": st.just("x " * 2_000),
    },
)


def _outcome(template: MessageTemplate, to: Variables) -> RenderedMessage | str:
    try:
        return template.render(to, collect_missing=True)
    except RenderError as error:
        return str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEMPLATES, typed=TEMPLATES, a=PERSON, b=PERSON, sender=PERSON)
def test_any_template_renders_or_fails_in_words_and_never_remembers(
    text: str, typed: str, a: dict[str, Any], b: dict[str, Any], sender: dict[str, Any]
) -> None:
    before = deepcopy((sender, a, b))
    try:
        template = MessageTemplate.compile(
            {"text": text, "custom": {"x": [typed]}, "attachments": [{"x": typed}]}
        )
    except Invalid as refused:
        assert all(error.code in ("INVALID_INPUT", "LIMIT_EXCEEDED") for error in refused.errors)
        return
    speaks = user_fields("s", "Sender", None, None, CREATED, sender)
    one = Variables(speaks, user_fields("a", "A", "user", None, CREATED, a), TALK)
    two = Variables(speaks, user_fields("b", None, "user", "en", CREATED, b), None)
    first = _outcome(template, one)
    _outcome(template, two)
    assert _outcome(template, one) == first
    assert (sender, a, b) == before
    if isinstance(first, RenderedMessage):
        assert len(first.text) <= MAX_TEXT
        json.loads(first.custom), json.loads(first.attachments)
        (first.text + first.custom + first.attachments).encode()

"""Templates that mean harm: refused, or ended by the counts; what they do touches nobody else."""

import json

import pytest

from app.errors import Invalid
from app.messages.rendering import (
    MessageTemplate,
    RenderError,
    Variables,
    user_fields,
)
from app.messages.templating.sandbox import MAX_BUILT, MAX_STEPS

CUSTOM = {
    "big": list(range(20_000)),
    "long": "ab " * 10_000,
    "objects": [{"a": {"b": {"c": i}}} for i in range(3_000)],
}
PEOPLE = Variables(receiver=user_fields("rex", "Rex", None, None, 0, json.dumps(CUSTOM)))
STEPS = f"{MAX_STEPS:,} steps"
BUILT = f"{MAX_BUILT:,} characters"


def render(text: str) -> str:
    return MessageTemplate.compile({"text": text}).render(PEOPLE).text


def doubling(step: str, first: str = "'x'") -> str:
    return f"{{% set a = {first} %}}" + f"{{% set a = {step} %}}" * 40 + "{{ a|length }}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", STEPS),
        ("{{ range(10 ** 18)|length }}", STEPS),
        ("{{ range(0 - 10 ** 18, 9 * 10 ** 18)|length }}", "a range is too long"),
        ("{% for i in range(99) %}" * 3 + "{% endfor %}" * 3, STEPS),
        ("{% for c in receiver.long ~ receiver.long %}{{ c }}{{ c }}{% endfor %}", STEPS),
        ("{% for i in range(999) %}" + "x" * 999 + "{% endfor %}", BUILT),
        ("{% for i in range(9999) %}{{ receiver.name|center }}{% endfor %}", "no filter"),
        ("{% for i in range(5000) %}{{ 'zz' in receiver.long }}{% endfor %}", STEPS),
        ("{% for i in range(5000) %}{{ 5 in receiver.big }}{% endfor %}", STEPS),
        ("{% for i in range(5000) %}{{ receiver.long[::2]|length }}{% endfor %}", STEPS),
        ("{% for i in range(5000) %}{{ receiver.long|wordcount }}{% endfor %}", STEPS),
        ("{% for i in range(5000) %}{{ receiver.big|sort|first }}{% endfor %}", STEPS),
        ("{% for i in range(5000) %}{{ receiver.big == receiver.big|list }}{% endfor %}", STEPS),
        ("{{ receiver.objects|map(attribute='" + ".".join("a" * 5000) + "')|list|length }}", STEPS),
        ("{{ receiver.objects|sort(attribute='" + ",".join(["a"] * 5000) + "')|list|length }}", STEPS),
        (doubling("a ~ a"), BUILT),
        (doubling("a + a"), BUILT),
        (doubling("a * 2"), BUILT),
        (doubling("[a, a]|join"), BUILT),
        (doubling("a.join([a, a])"), BUILT),
        (doubling("a|replace('x', 'xx')"), BUILT),
        (doubling("'%s%s'|format(a, a)"), BUILT),
        (doubling("'%s%s' % (a, a)"), BUILT),
        (doubling("a + a", "[1]"), STEPS),
        (doubling("[a, a]", "[1]"), STEPS),
        (doubling("(a, a)", "(1, 2)"), STEPS),
        (doubling("{'a': a, 'b': a}", "{}"), STEPS),
        ("{% set a = 'x' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40, BUILT),
        ("{{ 'a' * 10 ** 8 }}", BUILT),
        ("{{ receiver.big|tojson }}", BUILT),
        ("{{ ('<' * 60000)|e }}", BUILT),
        ("{{ '%1000000d'|format(1) }}", "a format has"),
        ("{{ '%1000000d' % 1 }}", "a format has"),
        ("{{ '%*d' % (1000000, 1) }}", "a format has"),
        ("{{ '%.1000f' % 1 }}", "a format has"),
        ("{{ [0] * 10 ** 8 }}", "a list * a number is not possible"),
        ("{{ 10 ** 10 ** 10 }}", "64 bits"),
        ("{{ 9223372036854775807 * 2 }}", "64 bits"),
        ("{{ 1e308 * 10 }}", "too large"),
        ("{{ 1.5 ** 99999 }}", "too large"),
        ("{{ (0 - 8) ** 0.5 }}", "not a real number"),
        ("{{ 7|round(0 - 10 ** 9) }}", "round takes a precision"),
        ("{{ ('a' * 30000)|trim('b' * 30000) }}", "trimming takes"),
        ("{% for x in [1] %}{{ loop }}{% endfor %}", "neither text nor JSON"),
        ("{{ {[1]: 2} }}", "do not fit"),
    ],
)  # fmt: skip
def test_refused_or_ended(text: str, says: str) -> None:
    with pytest.raises((RenderError, Invalid)) as caught:
        render(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{{ receiver.__class__.__mro__ }}",
        "{{ receiver['__class__'] }}",
        "{{ ''.__class__ }}",
        "{{ ''.join.__globals__ }}",
        "{{ range.__init__ }}",
        "{{ receiver|attr('__class__') }}",
        "{{ '{0.__class__}'.format(receiver) }}",
        "{{ receiver.tags.append(1) }}",
        "{{ receiver.update({}) }}",
        "{{ cycler('a') }}",
        "{{ joiner() }}",
        "{{ namespace() }}",
        "{{ dict() }}",
        "{{ lipsum() }}",
        "{{ range }}",
        "{{ self }}",
        "{{ loop.index }}",
        "{{ caller() }}",
        "{{ context }}",
        "{{ environment }}",
        "{{ receiver() }}",
        "{{ range(*[1]) }}",
        "{{ range(**{}) }}",
        "{{ [1]|random }}",
        "{{ 'a'|center(99999999) }}",
        "{{ 'a'|indent(99999999) }}",
        "{{ 'a'|wordwrap(1) }}",
        "{{ [1]|batch(99999999, 0) }}",
        "{{ [1]|slice(99999999) }}",
        "{{ 'a'.ljust(99999999) }}",
        "{{ 'a'|xmlattr }}",
        "{{ receiver|pprint }}",
        "{{ 1 is callable }}",
        "{% set receiver.name = 1 %}",
        "{% set x = 1 %}{% set x.y = 1 %}",
        "{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% call receiver.name() %}{% endcall %}",
        "{% autoescape true %}{% endautoescape %}",
        "{% do 1 %}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "[" * 3000 + "]" * 3000 + " }}",
        "{{ " + "not " * 3000 + "1 }}",
        "{{ " + "-" * 3000 + "1 }}",
        "{{ 1" + "+1" * 3000 + " }}",
        "{{ 1" + "|abs" * 3000 + " }}",
        "{{ receiver" + ".a" * 3000 + " }}",
        "{{ " + "1 if 1 else " * 1000 + "1 }}",
        "{% if 1 %}" * 300 + "{% endif %}" * 300,
        "{% for x in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "9" * 5000 + " }}",
        "{{ 1 }}" * 2500,
        "{{" * 9000,
    ],
)
def test_refused_when_it_is_written(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        MessageTemplate.compile({"text": text})
    (error,) = caught.value.errors
    assert error.code == "INVALID_INPUT"
    assert error.details is not None
    assert error.details["line"] >= 1


@pytest.mark.parametrize(
    "text",
    [
        "{{ receiver._own }}{{ receiver._custom }}{{ receiver.plain }}",
        "{% set x = '__class__' %}{{ receiver[x] }}{{ ''[x] }}{{ [][x] }}{{ 1[x] }}",
        "{% for x in [1] %}{{ loop._iterable }}{{ loop.depth }}{% endfor %}",
        "{{ ['']|map(attribute='__class__')|join }}",
        "{{ [receiver]|map(attribute='__class__.__mro__')|join }}",
        "{{ [receiver]|selectattr('__class__')|list|join }}",
    ],
)
def test_python_is_not_there(text: str) -> None:
    rex = Variables(receiver=user_fields("rex", "Rex", None, None, 0, {"tags": ["a"]}))
    assert MessageTemplate.compile({"text": text}).render(rex).text == ""


def test_every_recipient_starts_with_full_counts_and_fresh_names() -> None:
    template = MessageTemplate.compile(
        {
            "text": "{{ kept }}{% for i in range(9000) %}{{ '12345' }}{% set kept = i %}{% endfor %}"
            "{% set kept = 1 %}"
        }
    )
    for _ in range(3):
        with pytest.raises(RenderError, match="at most 5,000 characters, it has 45,000"):
            template.render(PEOPLE)


def test_all_parts_of_a_message_share_one_count() -> None:
    template = MessageTemplate.compile(
        {"text": "", "custom": {str(i): "{{ range(9000)|length }}" for i in range(12)}}
    )
    with pytest.raises(RenderError, match="steps"):
        template.render(PEOPLE)


def test_the_same_template_ends_the_same_way_every_time() -> None:
    def outcome() -> str:
        with pytest.raises(RenderError) as caught:
            render("{% for i in range(300) %}{% for j in range(i) %}{{ i * j }}{% endfor %}{% endfor %}")
        return str(caught.value)

    assert len({outcome() for _ in range(3)}) == 1


def test_a_loop_of_a_thousand_rounds_is_welcome() -> None:
    assert len(render("{% for i in range(1000) %}{{ i }}{% endfor %}")) == 2_890

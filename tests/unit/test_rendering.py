"""What messages say: variables, types, defaults, limits, and mistakes that name their place."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Invalid
from app.messages.rendering import (
    ChannelIdTemplate,
    MessageTemplate,
    RenderedMessage,
    RenderError,
    Variables,
    channel_fields,
    user_fields,
)

CREATED = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
CUSTOM = {
    "age": 41,
    "price": 2.5,
    "vip": True,
    "nothing": None,
    "tags": ["a", "b"],
    "items": "the field",
    "get": "this too",
    "address": {"city": "Łódź", "items": 3, "zip": None},
    "orders": [{"name": "tea", "sum": 3}, {"name": "cup", "sum": 12}],
    "favourite colour": "red",
}
PEOPLE = Variables(
    sender=user_fields("anna", "Anna", "admin", None, CREATED, {"team": "north"}),
    receiver=user_fields("rex", "Rex", "user", "de", CREATED, json.dumps(CUSTOM)),
    channel=channel_fields("messaging:c1", "messaging", "c1", "Talk", None, {"topic": "tea"}),
)


def rendered(text: str = "", variables: Variables = PEOPLE, **parts: Any) -> RenderedMessage:
    return MessageTemplate.compile({"text": text, **parts}).render(variables, collect_missing=True)


def value(template: Any, **parts: Any) -> Any:
    return json.loads(rendered(custom={"x": template}, **parts).custom)["x"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hello {{ receiver.name }}", "Hello Rex"),
        ("{{ user.name }}/{{ user.id }}", "Rex/rex"),
        ("{{ sender.name }} of {{ sender.team }}", "Anna of north"),
        (
            "{{ channel.cid }} {{ channel.type }} {{ channel.id }} {{ channel.name }} {{ channel.topic }}",
            "messaging:c1 messaging c1 Talk tea",
        ),
        (
            "{{ receiver.role }} {{ receiver.language }} {{ receiver.created_at }}",
            "user de 2026-01-31T09:30:00.000000Z",
        ),
        ("{Hello} {receiver.name} }} { {", "{Hello} {receiver.name} }} { {"),
        ("{{ receiver.items }}, {{ receiver.get }}, {{ receiver.address.items }}", "the field, this too, 3"),
        ("{{ receiver.address.city }} {{ receiver['address']['city'] }}", "Łódź Łódź"),
        ("{{ receiver['favourite colour'] }}", "red"),
        ("{{ receiver.tags[0] }}{{ receiver.tags.1 }}{{ receiver.tags[-1] }}{{ receiver.name[0] }}", "abbR"),
        ("{{ receiver.tags }} {{ receiver.address }}", '["a","b"] {"city":"Łódź","items":3,"zip":null}'),
        ("{{ receiver.age + 1 }} {{ receiver.price * 2 }}", "42 5.0"),
        (
            "{% for tag in receiver.tags %}{{ loop.index }}{{ tag }}{{ '-' if not loop.last }}{% endfor %}",
            "1a-2b",
        ),
        ("{% for o in receiver.orders if o.sum > 5 %}{{ o.name }}{% else %}none{% endfor %}", "cup"),
        (
            "{% for key, item in receiver.address|dictsort %}{{ key }}={{ item }};{% endfor %}",
            "city=Łódź;items=3;zip=;",
        ),
        ("{% if receiver.vip and receiver.age >= 18 %}yes{% else %}no{% endif %}", "yes"),
        ("{% set name = receiver.name|upper %}{{ name ~ '!' ~ 1 }}", "REX!1"),
        ("{% set x %}<{{ receiver.name }}>{% endset %}{{ x|e }}", "&lt;Rex&gt;"),
        (
            "{% with a = 2 %}{{ a }}{% endwith %}{% filter upper %}a{{ receiver.name }}{% endfilter %}",
            "2AREX",
        ),
        (
            "{{ receiver.name.upper() }} {{ ', '.join(receiver.tags) }} {{ 'a-b'.split('-')|last }}",
            "REX a, b b",
        ),
        (
            "{{ '%.2f'|format(receiver.price) }} {{ '%05d' % receiver.age }} {{ '%(a)s'|format(a=1) }}",
            "2.50 00041 1",
        ),
        ("{{ receiver.orders|map(attribute='name')|join(', ') }}", "tea, cup"),
        ("{{ receiver.orders|sum(attribute='sum') }} {{ receiver.orders|length }}", "15 2"),
        ("{{ receiver.orders|sort(attribute='name')|map(attribute='name')|first }}", "cup"),
        ("{{ receiver.tags|select('eq', 'b')|list|tojson }} {{ receiver.tags|reverse|join }}", '["b"] ba'),
        ("{% for word, all in ['ab', 'ac', 'b']|groupby(0) %}{{ word }}{{ all|length }}{% endfor %}", "a2b1"),
        (
            "{{ receiver.name|replace('R', 'T') }} {{ 'a b'|title }} {{ ' a '|trim }} "
            "{{ 'abcdefghijk'|truncate(3, true, '') }}",
            "Tex A B a abc",
        ),
        ("{{ range(3)|join }} {{ [1, 2, 3][1:]|join }} {{ 'abc'[::-1] }}", "012 23 cba"),
        (
            "{{ '12'|int + '1.5'|float }} {{ 2.345|round(2) }} {{ -3|abs }} {{ 7 // 2 }} {{ 2 ** 10 }}",
            "13.5 2.35 3 3 1024",
        ),
        (
            "{{ 'b' in receiver.tags }} {{ 'x' not in receiver.tags }} {{ receiver.age is odd }}",
            "True True True",
        ),
        ("{{ 'a b/c&d'|urlencode }}", "a%20b/c%26d"),
        ("{% raw %}{{ receiver.name }}{% endraw %}{# a comment #}", "{{ receiver.name }}"),
        ("<b>{{ '<i>' }}</b>\n", "<b><i></b>\n"),
        ("{% for i in [1, 2, 3] %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "odd even odd "),
    ],
)
def test_text(template: str, expected: str) -> None:
    assert rendered(template).text == expected


@pytest.mark.parametrize(
    ("template", "expected", "missing"),
    [
        ("Hi {{ receiver.nick }}!", "Hi !", ("receiver.nick",)),
        ("{{ user.a.b.c }}{{ user.nothing }}", "", ("receiver.a.b.c", "receiver.nothing")),
        (
            "{{ receiver.nick|upper }}{{ receiver.nick.upper() }}{{ receiver.nick + 1 }}",
            "",
            ("receiver.nick",),
        ),
        ("{{ 'x' ~ receiver.nick }}{{ 'y' + receiver.nick }}", "xy", ("receiver.nick",)),
        (
            "{% for x in receiver.list %}x{% endfor %}{{ receiver.tags[7] }}",
            "",
            ("receiver.list", "receiver.tags.7"),
        ),
        ("{% if receiver.nick %}a{% else %}b{% endif %}{{ 'old' if receiver.years > 3 }}", "b", ()),
        ("{{ receiver.nick|default('you') }}{{ receiver.nick or 'you' }}", "youyou", ()),
        (
            "{{ receiver.nick is defined }} {{ receiver.nick is none }} {{ receiver.nick == none }}",
            "False True True",
            (),
        ),
        ("{{ receiver.nick is string }}{{ receiver.nick is mapping }}", "FalseFalse", ()),
        (
            "{{ receiver.nick|int }}{{ receiver.nick|length }}{{ receiver.nick|join }}",
            "00",
            ("receiver.nick",),
        ),
        ("{% if receiver.vip %}{% set a = 1 %}{% endif %}{{ a }}", "1", ()),
    ],
)
def test_missing_variables_render_empty_and_are_named(
    template: str, expected: str, missing: tuple[str, ...]
) -> None:
    message = rendered(template)
    assert (message.text, message.missing) == (expected, missing)


def test_defaults_stand_for_missing_and_null_variables() -> None:
    defaults = {"receiver.nick": "you", "user.nothing": "something", "receiver.home": {"city": "Rome"}}
    text = "{{ receiver.nick }} {{ receiver.nothing }} {{ receiver.home.city }} {{ receiver.name }}"
    message = rendered(text, defaults=defaults)
    assert message == RenderedMessage("you something Rome Rex", "[]", "{}", ())
    assert value("{{ receiver.home }}", defaults=defaults) == {"city": "Rome"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ receiver.age }}", 41),
        ("{{receiver.price}}", 2.5),
        ("{{ receiver.vip }}", True),
        ("{{ receiver.nothing }}", None),
        ("{{ receiver.nick }}", None),
        ("{{ receiver.tags }}", ["a", "b"]),
        ("{{ receiver.address }}", CUSTOM["address"]),
        ("{{ receiver.age > 40 }}", True),
        ("{{ [receiver.age, {'a': receiver.nick}] }}", [41, {"a": None}]),
        (" {{ receiver.age }}", " 41"),
        ("{{ receiver.age }}{{ receiver.age }}", "4141"),
        ("{% if true %}{{ receiver.age }}{% endif %}", "41"),
        ("{{ receiver.name }}", "Rex"),
        ("plain", "plain"),
        (7, 7),
        (None, None),
        (
            {"{{ receiver.name }}": ["{{ receiver.age }}", {"deep": "{{ receiver.name }}"}]},
            {"{{ receiver.name }}": [41, {"deep": "Rex"}]},
        ),
    ],
)
def test_a_single_expression_keeps_its_json_type(template: Any, expected: Any) -> None:
    assert value(template) == expected


def test_a_whole_person_is_its_fields() -> None:
    person = value("{{ receiver }}")
    assert person["id"] == "rex"
    assert person["age"] == 41
    assert person["created_at"] == "2026-01-31T09:30:00.000000Z"


def test_attachments_and_extra_custom() -> None:
    template = MessageTemplate.compile(
        {
            "text": "a",
            "attachments": [{"type": "image", "title": "For {{ receiver.name }}", "n": "{{ receiver.age }}"}],
            "custom": {"campaign_id": "mine", "b": 1},
            "poll_id": "poll-{{ not rendered }}",
        },
        extra_custom={"campaign_id": "c1"},
    )
    message = template.render(PEOPLE)
    assert json.loads(message.attachments) == [{"type": "image", "title": "For Rex", "n": 41}]
    assert json.loads(message.custom) == {"campaign_id": "c1", "b": 1}
    assert template.poll_id == "poll-{{ not rendered }}"


def test_built_in_fields_win_over_custom_ones() -> None:
    person = user_fields("rex", None, "user", None, 0, {"name": "other", "id": "other"})
    message = rendered("{{ receiver.id }}{{ receiver.name }}", Variables(receiver=person))
    assert (message.text, message.missing) == ("rex", ("receiver.name",))


def test_sqlite_times_and_json_text() -> None:
    person = user_fields("rex", None, None, None, 1_500_000, '{"a": 1}')
    assert rendered("{{ user.created_at }} {{ user.a }}", Variables(receiver=person)).text == (
        "1970-01-01T00:00:01.500000Z 1"
    )


def test_custom_fields_are_parsed_only_when_they_are_named() -> None:
    person = user_fields("rex", "Rex", None, None, CREATED, "this is no JSON")
    assert rendered("{{ receiver.name }}", Variables(receiver=person)).text == "Rex"


@pytest.mark.parametrize(
    ("text", "names_custom"),
    [
        ("{{ receiver.name }}{{ receiver.created_at }}", False),
        ("{{ receiver.name|default('x') }}", False),
        ("{{ sender.plan }}", False),
        ("{{ receiver.plan }}", True),
        ("{{ user['plan'] }}", True),
        ("{% set r = receiver %}{{ r.plan }}", True),
        ("{{ receiver[sender.id] }}", True),
        ("{{ receiver.plan|default('x') }}", True),
        ("{% for key in receiver %}{% endfor %}", True),
    ],
)
def test_what_a_template_needs(text: str, names_custom: bool) -> None:
    template = MessageTemplate.compile({"text": text})
    assert template.needs_custom("receiver") is names_custom
    assert template.needs("channel") is False


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("{{ sender.name }}", False),
        ("{{ user.name }}", True),
        ("{{ receiver.plan }}", False),
        ("{{ receiver.name|default('you') }}", False),
        ("{{ receiver.name|default('you') }}{{ receiver.name }}", True),
        ("{{ receiver }}", True),
    ],
)
def test_whether_a_receiver_is_needed(text: str, needs: bool) -> None:
    template = MessageTemplate.compile({"text": text, "defaults": {"receiver.plan": "free"}})
    assert template.needs_receiver is needs


def test_an_escaped_backslash_is_no_nul() -> None:
    assert value("{{ '\\\\' ~ 'u0000' }}") == "\\u0000"


@pytest.mark.parametrize(
    "text", ["all", "vip-{{ sender.id }}", "{{ channel.id }}-{{ receiver.id }}", "{{ x }}", "{{", 5]
)
def test_a_channel_id_depends_on_the_receiver(text: Any) -> None:
    with pytest.raises(Invalid) as caught:
        ChannelIdTemplate.compile(text)
    assert caught.value.errors[0].path == ("channelTemplate", "id")


def test_channel_ids() -> None:
    template = ChannelIdTemplate.compile("vip-{{ sender.id }}-{{ user.age }}")
    assert template.render(PEOPLE) == "vip-anna-41"
    assert template.needs_custom("receiver")
    with pytest.raises(RenderError, match="id, line 1: division by zero"):
        ChannelIdTemplate.compile("{{ receiver.age / 0 }}").render(PEOPLE)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
def test_a_name_appears_as_it_is(name: str) -> None:
    person = Variables(receiver=user_fields("rex", name, None, None, CREATED))
    message = rendered("[{{ receiver.name }}]", person, custom={"x": "{{ receiver.name }}"})
    assert message.text == f"[{name}]"
    assert json.loads(message.custom) == {"x": name}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab{%\\\"'\n é", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_a_custom_value_comes_through_as_it_is(given_value: Any) -> None:
    person = Variables(receiver=user_fields("rex", None, None, None, CREATED, {"v": given_value}))
    message = rendered("", person, custom={"x": "{{ receiver.v }}"})
    assert json.loads(message.custom) == {"x": given_value}


@settings(max_examples=300)
@given(st.text("{}%# receivr.name|()[]'\"+*~-1,\n", max_size=60))
def test_any_text_renders_or_is_refused_in_words(text: str) -> None:
    try:
        template = MessageTemplate.compile({"text": text})
    except Invalid:
        return
    try:
        template.render(PEOPLE)
    except RenderError as error:
        outcome = str(error)
    else:
        outcome = "text"
    assert outcome.startswith("text")

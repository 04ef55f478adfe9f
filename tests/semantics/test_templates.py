"""SEMANTICS, "Message template", sentence by sentence: what a template says, keeps, refuses and cannot do."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.errors import AppError, Invalid
from app.messages.content import MAX_ATTACHMENTS, MAX_JSON, MAX_TEXT
from app.messages.rendering import (
    ChannelIdTemplate,
    Fields,
    MessageTemplate,
    RenderedMessage,
    RenderError,
    Variables,
    channel_fields,
    user_fields,
)

CREATED = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
SEEN_CREATED = "2026-01-31T09:30:00.000000Z"
REX = {
    "age": 41,
    "ratio": 2.5,
    "vip": True,
    "blocked": False,
    "nothing": None,
    "tags": ["a", "b"],
    "items": "the field",
    "keys": "another",
    "_own": "mine",
    "address": {"city": {"name": "Łódź", "codes": [90, 91]}, "items": 3},
    "orders": [{"name": "tea", "sum": 3}, {"name": "cup", "sum": 12}],
}


def person(id: str, name: str | None, custom: dict[str, Any], role: str = "user") -> Fields:
    return user_fields(id, name, role, "de", CREATED, json.dumps(custom))


ANNA = person("anna", "Anna", {"desk": {"floor": 3}}, "admin")
TALK = channel_fields("messaging:c1", "messaging", "c1", "Talk", "north", {"topic": {"title": "tea"}})
PEOPLE = Variables(ANNA, person("rex", "Rex", REX), TALK)


def rendered(text: str = "", to: Variables = PEOPLE, **parts: Any) -> RenderedMessage:
    return MessageTemplate.compile({"text": text, **parts}).render(to, collect_missing=True)


def value(template: Any, **parts: Any) -> Any:
    """What a string of custom becomes."""
    return json.loads(rendered(custom={"x": template}, **parts).custom)["x"]


def mistakes(**template: Any) -> list[AppError]:
    with pytest.raises(Invalid) as caught:
        MessageTemplate.compile({"text": "", **template})
    return list(caught.value.errors)


# ------------------------------------------------------------------ variables

SAYS: dict[str, tuple[str, str]] = {
    "sender, with each built-in field": (
        "{{ sender.id }} {{ sender.name }} {{ sender.role }} {{ sender.language }} {{ sender.created_at }}",
        f"anna Anna admin de {SEEN_CREATED}",
    ),
    "receiver, with each built-in field": (
        "{{ receiver.id }} {{ receiver.name }} {{ receiver.role }} {{ receiver.language }}"
        " {{ receiver.created_at }}",
        f"rex Rex user de {SEEN_CREATED}",
    ),
    "receiver (alias user)": (
        "{{ user.id }} {{ user.name }} {{ user.role }} {{ user.language }} {{ user.created_at }}"
        " {{ user.age }}",
        f"rex Rex user de {SEEN_CREATED} 41",
    ),
    "channel: id, cid, type, name, team": (
        "{{ channel.id }} {{ channel.cid }} {{ channel.type }} {{ channel.name }} {{ channel.team }}",
        "c1 messaging:c1 messaging Talk north",
    ),
    "and its custom fields, dotted": (
        "{{ sender.desk.floor }} {{ receiver.address.city.name }} {{ channel.topic.title }}",
        "3 Łódź tea",
    ),
    "lists inside custom fields": (
        "{{ receiver.address.city.codes[1] }}{{ receiver.orders.0.name }}",
        "91tea",
    ),
    "fields win over Python attributes (receiver.items is the custom field)": (
        "{{ receiver.items }}, {{ receiver.keys }}, {{ receiver.address.items }}, {{ receiver._own }}",
        "the field, another, 3, mine",
    ),
    "a Python attribute that is no field is a missing variable": (
        "[{{ receiver.get }}{{ receiver.plain }}{{ receiver.address.values }}{{ receiver.tags.append }}]",
        "[]",
    ),
    "single braces are text": ("{Hello} {receiver.name} {0} {} } {", "{Hello} {receiver.name} {0} {} } {"),
    "single braces around double ones": ("{ {{ receiver.name }} }", "{ Rex }"),
    "loops work": (
        "{% for o in receiver.orders %}{{ loop.index }}:{{ o.name }}{{ ', ' if not loop.last }}{% endfor %}",
        "1:tea, 2:cup",
    ),
    "loops over an object's fields": (
        "{% for key, item in receiver.address|items if key == 'items' %}{{ key }}={{ item }}{% endfor %}",
        "items=3",
    ),
    "an empty loop has an else": ("{% for x in receiver.none %}x{% else %}nothing{% endfor %}", "nothing"),
    "filters work": (
        "{{ receiver.name|upper|replace('R', 'T') }} {{ receiver.tags|join('-') }}"
        " {{ receiver.ratio|round|int }}",
        "TEX a-b 2",
    ),
    "conditionals work": (
        "{% if receiver.age >= 65 %}old"
        "{% elif receiver.vip and not receiver.blocked %}vip{% else %}-{% endif %}"
        "{{ '!' if receiver.age is odd }}",
        "vip!",
    ),
    "what is set stays inside the message": ("{% set n = receiver.age + 1 %}{{ n }}", "42"),
    "lists and objects read as JSON": (
        "{{ receiver.tags }} {{ receiver.orders[0] }}",
        '["a","b"] {"name":"tea","sum":3}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SAYS)
def test_what_it_says(sentence: str) -> None:
    template, text = SAYS[sentence]
    assert rendered(template).text == text


def test_built_in_fields_win_over_custom_ones() -> None:
    clever = {"id": "other", "name": "other", "role": "other", "language": "other", "created_at": "other"}
    rex = user_fields("rex", "Rex", "user", None, CREATED, clever)
    talk = channel_fields("m:c", "m", "c", None, None, {"cid": "x", "type": "x", "name": "x", "team": "x"})
    message = rendered(
        "{{ receiver.id }}{{ receiver.name }}{{ receiver.role }}[{{ receiver.language }}]"
        "{{ receiver.created_at }} {{ channel.cid }}{{ channel.type }}[{{ channel.name }}{{ channel.team }}]",
        Variables(ANNA, rex, talk),
    )
    assert message.text == f"rexRexuser[]{SEEN_CREATED} m:cm[]"


# ------------------------------------------------------------------ where it applies


def test_it_applies_to_every_string_in_text_attachments_and_custom() -> None:
    name, who = "{{ receiver.name }}", "Rex"
    message = rendered(
        f"Hi {name}",
        attachments=[
            {"title": name, "fields": [{"value": name}, [name, {"deep": [name]}]], "n": 1, "b": None}
        ],
        custom={
            "a": name,
            "b": {"c": [name, 2.5, True]},
            "{{ receiver.name }}": "a key is no string to render",
        },
    )
    assert message.text == "Hi Rex"
    assert json.loads(message.attachments) == [
        {"title": who, "fields": [{"value": who}, [who, {"deep": [who]}]], "n": 1, "b": None}
    ]
    assert json.loads(message.custom) == {
        "a": who,
        "b": {"c": [who, 2.5, True]},
        "{{ receiver.name }}": "a key is no string to render",
    }


def test_and_to_channel_template_id() -> None:
    template = ChannelIdTemplate.compile(
        "{{ sender.id }}-{{ user.address.city.codes[0] }}-{{ receiver.name|lower }}"
    )
    assert template.render(PEOPLE) == "anna-90-rex"


def test_what_is_rendered_is_not_rendered_again() -> None:
    sly = Variables(ANNA, person("rex", "{{ sender.name }}{% for %}", {}))
    assert rendered("{{ receiver.name }}", sly).text == "{{ sender.name }}{% for %}"


TYPES: dict[str, tuple[Any, Any]] = {
    '"{{ receiver.age }}" gives a number': ("{{ receiver.age }}", 41),
    "a fraction": ("{{receiver.ratio}}", 2.5),
    "a boolean": ("{{ receiver.vip }}", True),
    "null": ("{{ receiver.nothing }}", None),
    "a missing variable is null": ("{{ receiver.nick }}", None),
    "a list": ("{{ receiver.tags }}", ["a", "b"]),
    "an object": ("{{ receiver.address }}", REX["address"]),
    "text": ("{{ receiver.name }}", "Rex"),
    "a computed number": ("{{ receiver.age * 2 + 0.5 }}", 82.5),
    "a comparison": ("{{ receiver.age > 40 }}", True),
    "a filter's result": ("{{ receiver.orders|map(attribute='sum')|list }}", [3, 12]),
    "a choice": ("{{ receiver.orders[0] if receiver.vip else none }}", {"name": "tea", "sum": 3}),
    "digits in text stay text": ("{{ '41' }}", "41"),
    "not exactly one expression: white space": (" {{ receiver.age }}", " 41"),
    "not exactly one expression: two": ("{{ receiver.age }}{{ receiver.age }}", "4141"),
    "not exactly one expression: a condition": ("{% if true %}{{ receiver.age }}{% endif %}", "41"),
    "what is no string stays as it is": ([1, 2.5, True, None, {"a": []}], [1, 2.5, True, None, {"a": []}]),
}


@pytest.mark.parametrize("sentence", TYPES)
def test_a_string_that_is_exactly_one_expression_keeps_its_json_type(sentence: str) -> None:
    template, expected = TYPES[sentence]
    found = value(template)
    assert (found, type(found)) == (expected, type(expected))
    attachment = json.loads(rendered(attachments=[{"x": [template]}]).attachments)
    assert attachment == [{"x": [expected]}]


def test_in_text_a_single_expression_is_text() -> None:
    assert rendered("{{ receiver.age }}").text == "41"


def test_poll_id_is_copied_unchanged() -> None:
    template = MessageTemplate.compile({"text": "", "poll_id": "{{ receiver.name }} {x}"})
    assert template.poll_id == "{{ receiver.name }} {x}"


def test_campaign_id_in_custom_wins_and_the_limit_does_not_count_it() -> None:
    filled = {"campaign_id": "mine", "x": "x" * (MAX_JSON - len('{"campaign_id":"mine","x":""}'))}
    template = MessageTemplate.compile({"text": "", "custom": filled}, extra_custom={"campaign_id": "c1"})
    assert json.loads(template.render(PEOPLE).custom) == {**filled, "campaign_id": "c1"}


# ------------------------------------------------------------------ missing variables

MISSING: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a missing variable renders empty": ("[{{ receiver.nick }}]", "[]", ("receiver.nick",)),
    "null is missing": ("[{{ receiver.nothing }}]", "[]", ("receiver.nothing",)),
    "nested": ("[{{ receiver.address.street.name }}]", "[]", ("receiver.address.street.name",)),
    "past the end of a list": ("[{{ receiver.tags[7] }}]", "[]", ("receiver.tags.7",)),
    "named once, by the name without alias": (
        "{{ user.nick }}{{ receiver.nick }}{{ channel.nope }}",
        "",
        ("receiver.nick", "channel.nope"),
    ),
    "through filters and sums": (
        "{{ receiver.nick|upper }}{{ receiver.years + 1 }}",
        "",
        ("receiver.nick", "receiver.years"),
    ),
    "as what a loop goes through": ("{% for x in receiver.list %}{% endfor %}", "", ("receiver.list",)),
    "not where it is only asked for": (
        "{% if receiver.nick %}a{% endif %}{{ receiver.nick is defined }}",
        "False",
        (),
    ),
    "not with |default": ("{{ receiver.nick|default('you') }} {{ receiver.nick or 'you' }}", "you you", ()),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MISSING)
def test_without_a_default_a_missing_variable_renders_empty_and_is_named(sentence: str) -> None:
    template, text, names = MISSING[sentence]
    message = rendered(template)
    assert (message.text, message.missing) == (text, names)
    assert MessageTemplate.compile({"text": template}).render(PEOPLE).text == text


DEFAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "supplies a value for a missing variable": ({"receiver.nick": "you"}, "{{ receiver.nick }}", "you"),
    "for null": ({"receiver.nothing": "all"}, "{{ receiver.nothing }}", "all"),
    "under the alias": ({"user.nick": "you"}, "{{ receiver.nick }}{{ user.nick }}", "youyou"),
    "nested, by path": ({"receiver.address.street": "A St"}, "{{ receiver.address.street }}", "A St"),
    "nested, by object": ({"receiver.home": {"city": "Rome"}}, "{{ receiver.home.city }}", "Rome"),
    "of sender and channel": ({"sender.x": "s", "channel.x": "c"}, "{{ sender.x }}{{ channel.x }}", "sc"),
    "what is there wins": ({"receiver.name": "you"}, "{{ receiver.name }}", "Rex"),
    "false, 0 and empty text are there": ({"receiver.blocked": "x"}, "{{ receiver.blocked }}", "False"),
    "in conditions and loops": ({"receiver.l": [1, 2]}, "{% for i in receiver.l %}{{ i }}{% endfor %}", "12"),
}


@pytest.mark.parametrize("sentence", DEFAULTS)
def test_defaults(sentence: str) -> None:
    defaults, template, text = DEFAULTS[sentence]
    message = rendered(template, defaults=defaults)
    assert (message.text, message.missing) == (text, ())


def test_a_default_keeps_its_json_type() -> None:
    assert value("{{ receiver.level }}", defaults={"receiver.level": 7}) == 7


@pytest.mark.parametrize("name", ["name", "receiver", "nobody.name", ""])
def test_a_default_is_named_like_a_variable(name: str) -> None:
    (error,) = mistakes(defaults={name: "x"})
    assert (error.code, error.path) == ("INVALID_INPUT", ("messageTemplate", "defaults", name))


# ------------------------------------------------------------------ mistakes at creation

MISTAKES: dict[str, tuple[str, int, int, str]] = {
    "a syntax error": ("Hi\n{{ receiver.name", 2, 17, "unexpected end"),
    "a block that is not closed": ("{% if receiver.vip %}x", 1, 23, "nexpected end"),
    "an unknown top-level name": (
        "a\nb {{ reciever.name }}",
        2,
        6,
        "'reciever' is unknown; known are sender",
    ),
    "a name that is only set elsewhere": ("{{ loop.index }}", 1, 4, "'loop' is unknown"),
    "an unknown filter": ("{{ receiver.name|shout }}", 1, 18, "no filter 'shout'"),
    "an unknown test": ("{{ receiver.name is loud }}", 1, 21, "no test 'loud'"),
    "an unknown function": ("{{ now() }}", 1, 4, "no function now()"),
    "no import": ("{% import 'os' as os %}", 1, 4, "'import' is not available"),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_syntax_errors_and_unknown_names_are_invalid_input_with_line_and_column(sentence: str) -> None:
    text, line, column, says = MISTAKES[sentence]
    for error, path in (
        (mistakes(text=text)[0], ("text",)),
        (mistakes(custom={"a": [{"b": text}]})[0], ("custom", "a", "0", "b")),
        (mistakes(attachments=[{}, {"b": text}])[0], ("attachments", "1", "b")),
    ):
        assert (error.code, error.path[1:]) == ("INVALID_INPUT", path)
        assert error.details == {"line": line, "column": column}
        assert says in error.message


# ------------------------------------------------------------------ limits after rendering

LONG = Variables(
    ANNA, person("rex", "Rex", {"x": "x", "wide": "ж", "text": "y" * 5_001, "list": ["z" * 100] * 60})
)
CUSTOM_ROOM = MAX_JSON - len('{"a":""}')
ATTACHMENT_ROOM = MAX_JSON - len('[{"a":""}]')
LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text of 5,000 characters": (
        {"text": f"{{{{ receiver.x * {MAX_TEXT} }}}}"},
        {"text": "{{ receiver.text }}"},
        "text: at most 5,000 characters, it has 5,001",
    ),
    "text is counted in characters, not bytes": (
        {"text": f"{{{{ receiver.wide * {MAX_TEXT} }}}}"},
        {"text": f"{{{{ receiver.wide * {MAX_TEXT + 1} }}}}"},
        "text: at most 5,000 characters, it has 5,001",
    ),
    "custom of 5 KB": (
        {"custom": {"a": f"{{{{ receiver.x * {CUSTOM_ROOM} }}}}"}},
        {"custom": {"a": f"{{{{ receiver.x * {CUSTOM_ROOM + 1} }}}}"}},
        "custom: at most 5,120 bytes of JSON, it has 5,121",
    ),
    "attachments of 5 KB together": (
        {"attachments": [{"a": f"{{{{ receiver.x * {ATTACHMENT_ROOM} }}}}"}]},
        {"attachments": [{"a": "{{ receiver.list }}"}]},
        "attachments: at most 5,120 bytes of JSON, it has",
    ),
}


@pytest.mark.parametrize("sentence", LIMITS)
def test_a_limit_is_of_what_was_rendered_and_past_it_the_error_says_where(sentence: str) -> None:
    at, past, says = LIMITS[sentence]
    MessageTemplate.compile({"text": "", **at}).render(LONG)
    with pytest.raises(RenderError) as caught:
        MessageTemplate.compile({"text": "", **past}).render(LONG)
    assert str(caught.value).startswith(says)


STATIC: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "message text 5,000 characters": ({"text": "ж" * MAX_TEXT}, {"text": "ж" * (MAX_TEXT + 1)}, MAX_TEXT),
    "attachments 30": ({"attachments": [{}] * MAX_ATTACHMENTS}, {"attachments": [{}] * 31}, MAX_ATTACHMENTS),
    "attachments 5 KB together": (
        {"attachments": [{"a": "x" * ATTACHMENT_ROOM}]},
        {"attachments": [{"a": "x" * (ATTACHMENT_ROOM + 1)}]},
        MAX_JSON,
    ),
    "custom 5 KB": (
        {"custom": {"a": "x" * CUSTOM_ROOM}},
        {"custom": {"a": "x" * (CUSTOM_ROOM + 1)}},
        MAX_JSON,
    ),
}


@pytest.mark.parametrize("sentence", STATIC)
def test_what_is_the_same_for_all_is_limit_exceeded_at_creation(sentence: str) -> None:
    at, past, limit = STATIC[sentence]
    MessageTemplate.compile({"text": "", **at}).render(PEOPLE)
    (error,) = mistakes(**past)
    assert (error.code, error.details) == ("LIMIT_EXCEEDED", {"limit": limit, "given": limit + 1})


def test_the_sentence_itself_is_bounded() -> None:
    with pytest.raises(RenderError) as caught:
        rendered(custom={"k" * 9_000: "{{ 1 / 0 }}"})
    assert len(str(caught.value)) == 500

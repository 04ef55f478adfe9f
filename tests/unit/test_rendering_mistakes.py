"""Templates with mistakes: refused with their place, or failing with a sentence that says where."""

import json
from typing import Any

import pytest

from app.errors import Invalid
from app.messages.rendering import MessageTemplate, RenderError
from tests.unit.test_rendering import PEOPLE, rendered


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("Hello {{ receiver.name", 1, 23, "unexpected end"),
        ("Hello\n  {{ reciever.name }}", 2, 6, "'reciever' is unknown"),
        ("{{ receiver.name|shout }}", 1, 18, "no filter 'shout'"),
        ("{{ receiver.name is loud }}", 1, 21, "no test 'loud'"),
        ("a\n\n{% if receiver.name %}", 3, 23, "nexpected end"),
        ("{% endif %}", 1, 4, "endif"),
        ("{{ 'open }}", 1, 4, "unexpected char"),
        ("{% include 'x' %}", 1, 4, "'include' is not available"),
        ("{% import 'x' as y %}", 1, 4, "'import' is not available"),
        ("{% from 'x' import y %}", 1, 4, "'from' is not available"),
        ("{% extends 'x' %}", 1, 4, "'extends' is not available"),
        ("{% macro x() %}{% endmacro %}", 1, 4, "'macro' is not available"),
        ("{% block x %}{% endblock %}", 1, 4, "'block' is not available"),
        ("{{ receiver.name.format(1) }}", 1, 18, "no method format()"),
        ("{{ lipsum() }}", 1, 4, "no function lipsum()"),
        ("{{ receiver.__class__ }}", 1, 13, "'__class__' cannot be a field"),
        ("{% set receiver = 1 %}", 1, 8, "'receiver' is given"),
        ("{% for user in [1] %}{% endfor %}", 1, 8, "'user' is given"),
        ("{{ 99999999999999999999 }}", 1, 1, "64 bits"),
    ],
)
def test_mistakes_are_shown_where_they_stand(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        MessageTemplate.compile({"text": text})
    (error,) = caught.value.errors
    assert (error.code, error.path) == ("INVALID_INPUT", ("messageTemplate", "text"))
    assert error.details == {"line": line, "column": column}
    assert says in error.message


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        MessageTemplate.compile(
            {
                "text": "{{ a }}",
                "attachments": [{"title": "ok"}, {"title": "{{ b }}"}],
                "custom": {"x": {"y": ["{{ 1 + }}"]}},
                "poll_id": "",
                "defaults": {"name": "x", "receiver": "x"},
            }
        )
    assert [error.path[1:] for error in caught.value.errors] == [
        ("text",),
        ("attachments", "1", "title"),
        ("custom", "x", "y", "0"),
        ("defaults", "name"),
        ("defaults", "receiver"),
        ("pollId",),
    ]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"text": None}, "INVALID_INPUT"),
        ({"text": 5}, "INVALID_INPUT"),
        ({"text": "a\0"}, "INVALID_INPUT"),
        ({"text": "\ud800"}, "INVALID_INPUT"),
        ({"text": "x" * 5_001}, "LIMIT_EXCEEDED"),
        ({"text": "{{ 1 }}" + "x" * 20_000}, "LIMIT_EXCEEDED"),
        ({"attachments": {}}, "INVALID_INPUT"),
        ({"attachments": ["a"]}, "INVALID_INPUT"),
        ({"attachments": [{}] * 31}, "LIMIT_EXCEEDED"),
        ({"attachments": [{"a": "x" * 5_200}]}, "LIMIT_EXCEEDED"),
        ({"custom": []}, "INVALID_INPUT"),
        ({"custom": {"a": "x" * 5_200}}, "LIMIT_EXCEEDED"),
        ({"custom": {"a": "\0"}}, "INVALID_INPUT"),
        ({"custom": {"a": 2**70}}, "INVALID_INPUT"),
        ({"custom": {"a": ["{{ 1 }}"] * 201}}, "LIMIT_EXCEEDED"),
        ({"custom": json.loads('{"a":' * 60 + "1" + "}" * 60)}, "LIMIT_EXCEEDED"),
        ({"defaults": []}, "INVALID_INPUT"),
    ],
)
def test_what_a_template_cannot_be(parts: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        MessageTemplate.compile({"text": "a", **parts})
    assert [error.code for error in caught.value.errors] == [code]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"text": "{{ 1 / (receiver.age - 41) }}"}, "text, line 1: division by zero"),
        ({"text": "a\n{{ receiver.tags - 1 }}"}, "text, line 2: a list - a number is not possible"),
        ({"text": "{{ receiver.name < 1 }}"}, "text, line 1: values that do not fit together"),
        ({"text": "{{ [1, 'a']|sort }}"}, "text, line 1: values that do not fit together"),
        ({"text": "{% for x in receiver.age %}{% endfor %}"}, "text, line 1: a number is not a list"),
        ({"text": "{{ receiver.name|upper(1, 2) }}"}, "text, line 1: values that do not fit together"),
        ({"attachments": [{}, {"title": "{{ 1 // 0 }}"}]}, "attachments[1].title, line 1: division by zero"),
        ({"custom": {"a": {"b": ["{{ 1 % 0 }}"]}}}, "custom.a.b[0], line 1: division by zero"),
        (
            {"text": "{% for i in range(501) %}{{ receiver.name }}1234567{% endfor %}"},
            "text: at most 5,000 characters, it has 5,010",
        ),
        ({"custom": {"a": "{{ 'x' * 6000 }}"}}, "custom: at most 5,120 bytes of JSON, it has 6,008"),
        ({"attachments": [{"a": "{{ 'x' * 6000 }}"}]}, "attachments: at most 5,120 bytes of JSON"),
        ({"text": "{{ '\\ud800' }}"}, "text: the rendered text has half a surrogate pair"),
        ({"text": "{{ '\\x00' }}"}, "text: the rendered text has a NUL character"),
        ({"custom": {"a": "{{ '\\ud800' }}"}}, "custom: this is no valid JSON"),
        ({"custom": {"a": "{{ ['\\x00'] }}"}}, "custom: the rendered JSON has a NUL character"),
    ],
)
def test_failures_say_where_and_why(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(**parts)
    assert says in str(caught.value)


def test_the_limit_of_custom_leaves_room_for_what_is_added() -> None:
    custom = {"a": "{{ '" + "x" * 5_112 + "' }}"}
    template = MessageTemplate.compile(
        {"text": "", "custom": custom}, extra_custom={"campaign_id": "c" * 255}
    )
    assert json.loads(template.render(PEOPLE).custom)["campaign_id"] == "c" * 255

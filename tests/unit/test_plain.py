"""Plain templates, written for many at once: never anything but what Jinja renders for each."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.distinct import any_channel_id_problem, channel_id_problem
from app.errors import Invalid
from app.messages.rendering import ChannelIdTemplate, MessageTemplate, RenderError, Variables, user_fields

FIELDS = ("id", "name", "role", "language")
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{\0"), max_size=6)
SPECIAL = st.sampled_from(("%", "%s", "}}", "\n", "\r\n", "  ", "\\", "é", "{", "#}", "%}"))
VARIABLES = st.tuples(st.sampled_from(("receiver", "user", "sender")), st.sampled_from(FIELDS))
SPELLINGS = st.sampled_from(("{{ %s.%s }}", "{{%s.%s}}", "{{- %s.%s -}}", "{# %s %s #}"))
PARTS = st.one_of(WORDS, SPECIAL, st.tuples(SPELLINGS, VARIABLES).map(lambda given: str(given[0]) % given[1]))
NAMES = st.text(max_size=12) | st.sampled_from(("{{ receiver.id }}", "%s", "", "a" * 4_990, "\ud800", "\0"))
PEOPLE = st.tuples(NAMES, NAMES | st.none(), NAMES, NAMES | st.none())
DEFAULTS = st.dictionaries(
    VARIABLES.map(lambda variable: ".".join(variable).replace("user.", "receiver.")),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
    | st.integers(0, 99)
    | st.none(),
    max_size=3,
)


def by_jinja(template: MessageTemplate, receiver: tuple[Any, ...], sender: tuple[Any, ...]) -> str | None:
    """None where Jinja fails."""
    variables = Variables(user_fields(*sender, None), user_fields(*receiver, None))
    try:
        return template.render(variables).text
    except RenderError:
        return None


@given(st.lists(PARTS, max_size=6).map("".join), DEFAULTS, st.lists(PEOPLE, min_size=1, max_size=5), PEOPLE)
def test_what_is_written_at_once_is_what_jinja_renders(
    text: str, defaults: dict[str, Any], receivers: list[tuple[Any, ...]], sender: tuple[Any, ...]
) -> None:
    try:
        template = MessageTemplate.compile({"text": text, "defaults": defaults})
    except Invalid:
        return  # no template at all
    at_once = template.plain_texts(receivers, sender)
    one_by_one = [by_jinja(template, receiver, sender) for receiver in receivers]
    if at_once is not None:
        assert at_once == one_by_one
    elif template.is_plain:
        assert None in one_by_one


@given(st.lists(PARTS, max_size=4).map("".join), st.lists(PEOPLE, min_size=1, max_size=5), PEOPLE)
def test_channel_ids_too(text: str, receivers: list[tuple[Any, ...]], sender: tuple[Any, ...]) -> None:
    try:
        template = ChannelIdTemplate.compile(text)
    except Invalid:
        return
    at_once = template.plain_ids(receivers, sender)
    if at_once is not None:
        for receiver, channel_id in zip(receivers, at_once, strict=True):
            variables = Variables(user_fields(*sender, None), user_fields(*receiver, None))
            assert template.render(variables) == channel_id


@pytest.mark.parametrize(
    "text", ["Hello", "Hello {{ user.name }}", "100 % {{ sender.name }}", "{% raw %}{{{% endraw %}"]
)
def test_plain_templates(text: str) -> None:
    assert MessageTemplate.compile({"text": text}).plain_texts(
        [("a", "Ann", "user", None)], ("s", "Sam", "user", None)
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ receiver.created_at }}",
        "{{ receiver.plan }}",
        "{{ receiver.name|upper }}",
        "{{ receiver }}",
        "{{ channel.id }}",
        "{% if receiver.name %}a{% endif %}",
        "{% set x = 1 %}{{ x }}",
        "{{ 'a' }}",
    ],
)
def test_everything_else_is_left_to_jinja(text: str) -> None:
    assert not MessageTemplate.compile({"text": text}).is_plain


@pytest.mark.parametrize("value", [5, b"Ann", ["Ann"], True])
def test_values_that_are_no_text_are_left_to_jinja(value: Any) -> None:
    template = MessageTemplate.compile({"text": "Hello {{ receiver.name }}"})
    assert template.plain_texts([("a", value, "user", None)], ("s", "Sam", "user", None)) is None


def test_messages_that_differ_in_more_than_their_text_are_left_to_jinja() -> None:
    template = MessageTemplate.compile({"text": "Hello", "custom": {"name": "{{ receiver.name }}"}})
    assert template.same_for_all is None
    assert not template.is_plain


@given(st.lists(st.text(max_size=4) | st.sampled_from(("a", "a b", "x" * 255, "x" * 256)), max_size=4))
def test_problems_of_channel_ids_are_found_at_once(channel_ids: list[str]) -> None:
    assert any_channel_id_problem(channel_ids) is any(map(channel_id_problem, channel_ids))

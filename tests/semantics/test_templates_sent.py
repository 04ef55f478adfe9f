"""SEMANTICS, "Message template", as it is stored: what receivers find in their channels."""

from typing import Any

import pytest

from app.campaigns.models import Campaign
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger.models import Recipient
from app.messages.models import Message
from tests.integration import campaigning
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    channel,
    messages,
    outcomes,
    work,
)
from tests.semantics.test_templates_hostile import ATTACKS, BIG
from tests.semantics.test_templates_unicode import SCRIPTS

HELLO = {"text": "Hello {{ receiver.name }}"}


async def sent(database: Database, receivers: list[str], **given: Any) -> dict[str, Message]:
    """What each of these users got, by user id; the books of the campaign balance."""
    await campaigning.create(database, user_ids=receivers, **given)
    await campaigning.start(database)
    await books(database, await work(database))
    return {message.target_id: message for message in await messages(database) if message.target_id}


async def said(database: Database, text: str, **more: Any) -> str:
    """The text that one receiver got."""
    found = await sent(database, ["rex"], message_template={"text": text, **more})
    return found["rex"].text


async def detail(database: Database, campaign: Campaign, target_id: str) -> str | None:
    """What the ledger adds to the reason of one target."""
    async with database.read() as session:
        row = await session.get(Recipient, (campaign.campaign_no, target_id))
    assert row is not None
    return row.detail


async def test_sender_receiver_and_channel_with_their_custom_fields(database: Database) -> None:
    await add_users(database, ["sender"], role="admin", custom={"desk": {"floor": 3}}, language="en")
    await add_users(
        database, ["rex"], custom={"address": {"city": "Łódź"}, "items": "the field"}, language="de"
    )
    await add_channel(
        database, "messaging:rex-news", ["rex"], name="News", team="north", custom={"topic": {"title": "tea"}}
    )
    text = await said(
        database,
        "{{ sender.id }} {{ sender.name }} {{ sender.role }} {{ sender.language }} {{ sender.desk.floor }} | "
        "{{ receiver.id }} {{ user.name }} {{ receiver.role }} {{ receiver.language }} "
        "{{ user.address.city }} {{ receiver.items }} {{ receiver.created_at|length }} | "
        "{{ channel.id }} {{ channel.cid }} {{ channel.type }} {{ channel.name }} {{ channel.team }} "
        "{{ channel.topic.title }}",
    )
    assert text == (
        "sender Sender admin en 3 | rex Rex user de Łódź the field 27 | "
        "rex-news messaging:rex-news messaging News north tea"
    )


async def test_a_channel_that_is_created_is_seen_as_it_will_be(database: Database) -> None:
    await add_users(database, ["sender", "rex"])
    template = {
        "type": "support",
        "id": "{{ user.id }}",
        "team": "north",
        "custom": {"topic": {"title": "tea"}},
    }
    found = await sent(
        database,
        ["rex"],
        channel_template=template,
        message_template={
            "text": "{{ channel.cid }} {{ channel.team }} {{ channel.topic.title }}[{{ channel.name }}]"
        },
    )
    assert found["rex"].text == "support:rex north tea[]"


async def test_built_in_fields_win_over_custom_ones(database: Database) -> None:
    await add_users(database, ["sender"])
    await add_users(
        database, ["rex"], name=None, custom={"id": "x", "name": "x", "role": "x", "created_at": "x"}
    )
    text = await said(
        database, "{{ receiver.id }}[{{ receiver.name }}]{{ user.role }} {{ user.created_at|length }}"
    )
    assert text == "rex[]user 27"


async def test_types_are_kept_in_attachments_and_custom(database: Database) -> None:
    custom = {"age": 41, "ratio": 2.5, "vip": True, "none": None, "tags": ["a", {"b": 1}], "digits": "7"}
    await add_users(database, ["sender"])
    await add_users(database, ["rex"], custom=custom)
    typed = {name: f"{{{{ receiver.{name} }}}}" for name in custom}
    found = await sent(
        database,
        ["rex"],
        message_template={
            "text": "",
            "attachments": [{"type": "card", "deep": [{"for": "Dear {{ user.name }}", **typed}]}],
            "custom": {"deep": [[typed]], "plain": [1, None, "{x}"]},
            "poll_id": "{{ receiver.age }}",
        },
    )
    message = found["rex"]
    assert message.attachments == [{"type": "card", "deep": [{"for": "Dear Rex", **custom}]}]
    assert message.custom == {"campaign_id": "news", "deep": [[custom]], "plain": [1, None, "{x}"]}
    assert type(message.attachments[0]["deep"][0]["age"]) is int
    assert message.poll_id == "{{ receiver.age }}"


async def test_every_message_has_type_regular_its_campaign_id_and_campaign_id_in_custom(
    database: Database,
) -> None:
    await add_users(database, ["sender", "rex", "bob"])
    found = await sent(
        database, ["rex", "bob"], message_template={**HELLO, "custom": {"campaign_id": "forged", "a": 1}}
    )
    campaign = await campaigning.read(database)
    for message in found.values():
        assert (message.type, message.campaign_no) == ("regular", campaign.campaign_no)
        assert message.custom == {"campaign_id": "news", "a": 1}


async def test_it_applies_to_channel_template_id(database: Database) -> None:
    await add_users(database, ["sender"])
    await add_users(database, ["rex"], custom={"desk": {"room": 12}})
    template = {"type": "support", "id": "{{ sender.id }}-{{ user.desk.room }}-{{ receiver.name|lower }}"}
    found = await sent(database, ["rex"], channel_template=template)
    assert found["rex"].cid == "support:sender-12-rex"


async def test_receiver_is_always_the_target_whatever_other_members_the_channel_has(
    database: Database,
) -> None:
    await add_users(database, ["sender", "agent", "boss", "rex", "bob", "gone"])
    await add_channel(database, "team:rex", ["agent", "sender", "boss"])
    await add_channel(database, "team:bob", ["bob", "agent"])
    template = {"type": "team", "id": "{{ receiver.id }}", "members": ["agent", "boss"]}
    found = await sent(
        database,
        ["rex", "bob", "gone", "agent"],
        channel_template=template,
        message_template={"text": "{{ user.id }}"},
    )
    assert {target: message.text for target, message in found.items()} == {
        name: name for name in ("rex", "bob", "gone", "agent")
    }
    _, members = await channel(database, "team:rex")
    assert set(members) == {"agent", "sender", "boss", "rex"}


@pytest.mark.parametrize(
    ("defaults", "text"),
    [({}, "Hi , from "), ({"receiver.nick": "you", "receiver.home": {"city": "Rome"}}, "Hi you, from Rome")],
    ids=["without one, a missing variable renders empty", "defaults supply values"],
)
async def test_missing_variables(database: Database, defaults: dict[str, Any], text: str) -> None:
    await add_users(database, ["sender"])
    await add_users(database, ["rex"], custom={"nick": None})
    assert (
        await said(database, "Hi {{ receiver.nick }}, from {{ user.home.city }}", defaults=defaults) == text
    )


async def test_single_braces_are_text(database: Database) -> None:
    await add_users(database, ["sender", "rex"])
    assert (
        await said(database, "{Hello} {receiver.name} {{ '{}' }} %s $1 :x \\")
        == "{Hello} {receiver.name} {} %s $1 :x \\"
    )


async def test_loops_filters_and_conditionals_work(database: Database) -> None:
    await add_users(database, ["sender"])
    for user_id, orders in {"rex": [{"n": "tea", "sum": 3}, {"n": "cup", "sum": 12}], "bob": []}.items():
        await add_users(database, [user_id], custom={"orders": orders})
    text = (
        "{% for o in receiver.orders|sort(attribute='sum', reverse=true) %}{{ o.n|upper }}"
        "{{ ', ' if not loop.last }}{% else %}nothing{% endfor %}"
        "{% if receiver.orders|sum(attribute='sum') > 10 %}, thank you{% endif %}"
    )
    found = await sent(database, ["rex", "bob"], message_template={"text": text})
    assert {target: message.text for target, message in found.items()} == {
        "rex": "CUP, TEA, thank you",
        "bob": "nothing",
    }


async def test_unicode_of_every_plane_is_stored_as_it_is(database: Database) -> None:
    names = dict(zip((f"u{number:02}" for number in range(len(SCRIPTS))), SCRIPTS.values(), strict=True))
    await add_users(database, ["sender"])
    for user_id, name in names.items():
        await add_users(database, [user_id], name=name, custom={"motto": {name: [name]}})
    always = "é e\u0301 שלום 👩‍👩‍👧‍👦 𝒜\U0010fffd"
    found = await sent(
        database,
        list(names),
        message_template={
            "text": f"{always} {{{{ receiver.name }}}}",
            "attachments": [{always: "{{ receiver.name }}"}],
            "custom": {"motto": "{{ receiver.motto }}"},
        },
    )
    for user_id, name in names.items():
        message = found[user_id]
        assert message.text == f"{always} {name}"
        assert message.attachments == [{always: name}]
        assert message.custom == {"campaign_id": "news", "motto": {name: [name]}}


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...], dict[str, int] | None]] = {
    "a syntax error": (
        {"message_template": {"text": "a\n{{ receiver.name"}},
        ("message_template", "text"),
        {"line": 2, "column": 17},
    ),
    "an unknown top-level name": (
        {"message_template": {"text": "", "custom": {"a": ["{{ x }}"]}}},
        ("message_template", "custom", "a", "0"),
        {"line": 1, "column": 4},
    ),
    "in channelTemplate.id": (
        {"channel_template": {"type": "messaging", "id": "{{ receiver.id }}{{ channel.id }}"}},
        ("channel_template", "id"),
        {"line": 1, "column": 21},
    ),
    "an id that does not use receiver": (
        {"channel_template": {"type": "messaging", "id": "{{ sender.id }}"}},
        ("channel_template", "id"),
        None,
    ),
}


@pytest.mark.parametrize("sentence", MISTAKES)
async def test_mistakes_are_invalid_input_at_creation_with_line_and_column(
    database: Database, sentence: str
) -> None:
    given, path, details = MISTAKES[sentence]
    await add_users(database, ["sender", "rex"])
    with pytest.raises((AppError, Invalid)) as caught:
        await campaigning.create(database, user_ids=["rex"], **given)
    (error,) = getattr(caught.value, "errors", (caught.value,))
    assert (error.code, error.path, error.details) == ("INVALID_INPUT", path, details)


OVER = {
    "text of more than 5,000 characters": (
        {"text": "{{ receiver.long }}"},
        "text: at most 5,000 characters, it has 5,001",
    ),
    "custom of more than 5 KB": (
        {"text": "", "custom": {"a": "{{ user.long }}" * 2}},
        "custom: at most 5,120 bytes",
    ),
    "attachments of more than 5 KB together": (
        {"text": "", "attachments": [{"a": "{{ receiver.long }}"}, {"a": "{{ receiver.long }}"}]},
        "attachments: at most 5,120 bytes",
    ),
    "rendering that fails": (
        {"text": "", "custom": {"a": [{"b": "{{ user.long / 2 }}"}]}},
        "custom.a[0].b, line 1",
    ),
}


@pytest.mark.parametrize("sentence", OVER)
async def test_rendering_that_fails_or_exceeds_a_limit_fails_alone_and_says_where(
    database: Database, sentence: str
) -> None:
    template, says = OVER[sentence]
    await add_users(database, ["sender", "ann", "bob"], custom={"long": 4})
    await add_users(database, ["rex"], custom={"long": "x" * 5_001})
    found = await sent(database, ["ann", "bob", "rex"], message_template=template)
    campaign = await campaigning.read(database)
    assert await outcomes(database, campaign) == {"ann": "SENT", "bob": "SENT", "rex": "FAILED RENDER_ERROR"}
    assert set(found) == {"ann", "bob"}
    assert (await detail(database, campaign, "rex") or "").startswith(says)


@pytest.mark.parametrize(
    "attack",
    [
        "a counting function by its name, with a negative weight, fills the steps again",
        "% of a text in a test formats it: a gigabyte",
        "rounding repeats a text",
        "a thousand named values in one conversion",
        "a person repeated in a list, all of it written out",
        "nested loops",
        "a filter's name of ten thousand letters, quoted in every ledger row",
    ],
)
async def test_a_hostile_template_hurts_neither_the_worker_nor_other_recipients(
    database: Database, attack: str
) -> None:
    await add_users(database, ["sender"])
    await add_users(database, ["ann", "bob", "rex"], custom=BIG)
    text = "{% if receiver.id == 'rex' %}" + ATTACKS[attack][0] + "{% endif %}fine"
    found = await sent(database, ["ann", "bob", "rex"], message_template={"text": text})
    campaign = await campaigning.read(database)
    assert campaign.status == "COMPLETED"
    assert await outcomes(database, campaign) == {"ann": "SENT", "bob": "SENT", "rex": "FAILED RENDER_ERROR"}
    assert {message.text for message in found.values()} == {"fine"}
    assert len(await detail(database, campaign, "rex") or "") <= 500


async def test_no_template_changes_what_the_next_recipient_sees(database: Database) -> None:
    names = [f"u{number:02}" for number in range(20)]
    await add_users(database, ["sender"], custom={"shared": ["one", "two"]})
    for name in names:
        await add_users(database, [name], custom={"secret": name} if name == "u00" else {})
    text = (
        "{{ kept|default('') }}{% set kept = sender.shared + [receiver.secret|default('')] %}"
        "{{ sender.shared|sort(reverse=true)|join(',') }} {{ kept|join(',') }}"
    )
    found = await sent(database, names, message_template={"text": text})
    assert found["u00"].text == "two,one one,two,u00"
    assert {found[name].text for name in names[1:]} == {"two,one one,two,"}


async def test_for_a_channel_audience_receiver_is_the_other_member_of_a_channel_of_two(
    database: Database,
) -> None:
    await add_users(database, ["sender", "rex", "bob"])
    await add_channel(database, "team:pair", ["sender", "rex"])
    await add_channel(database, "team:crowd", ["sender", "rex", "bob"])
    audience = await add_list(database, 7, ["team:pair", "team:crowd"], "CHANNEL")
    await campaigning.create(
        database,
        segment_ids=[audience],
        create_channels=False,
        channel_template=None,
        message_template={"text": "{{ channel.id }}: {{ user.id }}", "defaults": {"receiver.id": "all"}},
    )
    await campaigning.start(database)
    await books(database, await work(database))
    assert {message.text for message in await messages(database)} == {"pair: rex", "crowd: all"}

"""SEMANTICS, "Who gets it": for each target of the audience, once, in the order of the table."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlmodel import col

from app.campaigns.models import Campaign
from app.channels.models import Channel
from app.database import Database
from app.ledger.models import Recipient
from app.messages.rendering import MessageTemplate
from app.sending.planning import Planning, plan_chunk
from app.users.models import User
from tests.integration import campaigning
from tests.integration.campaigning import add_channel, add_list, add_users, books, outcomes, work

NOW = datetime.now(UTC)
PERSONAL = {"type": "messaging", "id": "{{ receiver.room }}"}
BREAKS_FOR = "{% if receiver.id == 'odd' %}{{ 1 // 0 }}{% endif %}Hello {{ receiver.name }}"


async def started(database: Database, segments: list[str], **given: Any) -> Campaign:
    """A started campaign of these segments."""
    await campaigning.create(database, segment_ids=segments, **given)
    return await campaigning.start(database)


async def detail(database: Database, campaign: Campaign, target_id: str) -> str | None:
    """What the ledger adds to the reason of one target."""
    async with database.read() as session:
        row = await session.get(Recipient, (campaign.campaign_no, target_id))
    assert row is not None
    return row.detail


USER_CASES = [
    ("it is the sender", "sender", {}, "SKIPPED SENDER"),
    ("no such user", "nobody", {}, "SKIPPED UNKNOWN_USER"),
    ("user deactivated", "asleep", {}, "SKIPPED USER_DEACTIVATED"),
    ("or deleted since (a tombstone keeps the id)", "erased", {}, "SKIPPED USER_DEACTIVATED"),
    ("channel frozen", "cold", {}, "SKIPPED CHANNEL_FROZEN"),
    ("no channel, and createChannels is false", "odd", {"create_channels": False}, "SKIPPED NO_CHANNEL"),
    ("the rendered channel id is empty", "roomless", {}, "FAILED CHANNEL_ID_INVALID"),
    ("the rendered channel id is too long", "wide", {}, "FAILED CHANNEL_ID_INVALID"),
    ("the rendered channel id has forbidden characters", "spaced", {}, "FAILED CHANNEL_ID_INVALID"),
    ("rendering fails", "odd", {"message_template": {"text": BREAKS_FOR}}, "FAILED RENDER_ERROR"),
    (
        "or exceeds a limit",
        "long",
        {"message_template": {"text": "{{ receiver.story }}"}},
        "FAILED RENDER_ERROR",
    ),
    ("otherwise", "ann", {}, "SENT"),
]
USERS: dict[str, dict[str, Any]] = {
    "asleep": {"deactivated_at": NOW},
    "erased": {"deleted_at": NOW, "name": None},
    "cold": {"custom": {"room": "ice"}},
    "roomless": {},
    "wide": {"custom": {"room": "x" * 256}},
    "spaced": {"custom": {"room": "two words"}},
    "odd": {"custom": {"room": "odd"}},
    "long": {"custom": {"room": "long", "story": "x" * 5_001}},
    "ann": {"custom": {"room": "ann"}},
    "bob": {"custom": {"room": "bob"}},
}


@pytest.mark.parametrize(
    ("target", "given", "outcome"), [case[1:] for case in USER_CASES], ids=[case[0] for case in USER_CASES]
)
async def test_a_user(database: Database, target: str, given: dict[str, Any], outcome: str) -> None:
    await add_users(database, ["sender"])
    for user_id, fields in USERS.items():
        await add_users(database, [user_id], **fields)
    await add_channel(database, "messaging:ice", ["cold"], frozen=True)
    await add_channel(database, "messaging:bob", ["bob"])
    audience = await add_list(database, 1, [target, "bob"])
    await started(database, [audience], channel_template=PERSONAL, **given)
    campaign = await work(database)
    assert await outcomes(database, campaign) == {target: outcome, "bob": "SENT"}
    await books(database, campaign)


EARLIER_WINS = [
    ("the sender before frozen", "sender", "SKIPPED SENDER"),
    ("deactivated before frozen", "asleep-cold", "SKIPPED USER_DEACTIVATED"),
    ("frozen before a message that does not render", "broken-cold", "SKIPPED CHANNEL_FROZEN"),
    ("no channel before a channel id that is none", "spaced", "SKIPPED NO_CHANNEL"),
    ("no channel before a message that does not render", "broken", "SKIPPED NO_CHANNEL"),
]


@pytest.mark.parametrize(
    ("target", "outcome"), [case[1:] for case in EARLIER_WINS], ids=[case[0] for case in EARLIER_WINS]
)
async def test_the_first_case_that_holds_decides(database: Database, target: str, outcome: str) -> None:
    await add_users(database, ["sender"], custom={"room": "ice"})
    await add_users(database, ["asleep-cold"], custom={"room": "ice"}, deactivated_at=NOW)
    await add_users(database, ["broken-cold"], custom={"room": "ice"})
    await add_users(database, ["broken"], custom={"room": "none"})
    await add_users(database, ["spaced"], custom={"room": "two words"})
    await add_channel(database, "messaging:ice", [], frozen=True)
    audience = await add_list(database, 1, [target])
    await started(
        database,
        [audience],
        create_channels=False,
        channel_template=PERSONAL,
        message_template={"text": "{{ 1 // 0 }}"},
    )
    assert await outcomes(database, await work(database)) == {target: outcome}


async def test_rendering_fails_with_a_sentence_saying_where(database: Database) -> None:
    await add_users(database, ["sender", "odd"])
    template = {"text": "fine", "attachments": [{"title": "a"}, {"title": "\n{{ 1 // 0 }}"}]}
    await started(database, [await add_list(database, 1, ["odd"])], message_template=template)
    campaign = await work(database)
    assert await outcomes(database, campaign) == {"odd": "FAILED RENDER_ERROR"}
    assert await detail(database, campaign, "odd") == "attachments[1].title, line 2: division by zero"


async def test_anything_else_raises_for_this_recipient_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipient that raises is FAILED alone; the 999 others of its batch are sent. So it is too where the
    texts of all of them would be written at once."""
    people = [f"u{number:03}" for number in range(1_000)]
    await add_users(database, ["sender", *people])
    await started(database, [await add_list(database, 1, people)])
    render = MessageTemplate.render

    def break_for_one(template: MessageTemplate, variables: Any, **asked: Any) -> Any:
        if variables.receiver.get("id") == "u500":
            raise RuntimeError("nobody foresaw this")
        return render(template, variables, **asked)

    def break_for_all(*_: Any) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(MessageTemplate, "render", break_for_one)
    monkeypatch.setattr(MessageTemplate, "plain_texts", break_for_all)
    campaign = await work(database)
    counted = await books(database, campaign)
    assert (counted.sent, counted.failed, counted.messages) == (999, 1, 999)
    assert (await outcomes(database, campaign))["u500"] == "FAILED INTERNAL_ERROR"
    said = await detail(database, campaign, "u500")
    assert said is not None
    assert said.startswith("incident ")


CHANNEL_CASES = [
    ("no such channel", "messaging:nowhere", "Hi", "SKIPPED UNKNOWN_CHANNEL"),
    ("channel frozen", "messaging:ice", "Hi", "SKIPPED CHANNEL_FROZEN"),
    ("the template names receiver without a default, and there is none: three members",
     "messaging:three", "Hi {{ receiver.name }}", "SKIPPED NO_RECEIVER"),
    ("the template names receiver without a default, and there is none: the sender is no member",
     "messaging:others", "Hi {{ receiver.name }}", "SKIPPED NO_RECEIVER"),
    ("the template names receiver without a default, and there is none: the sender alone",
     "messaging:alone", "Hi {{ user.name }}", "SKIPPED NO_RECEIVER"),
    ("frozen before no receiver", "messaging:ice", "Hi {{ receiver.name }}", "SKIPPED CHANNEL_FROZEN"),
    ("rendering fails", "messaging:pair", "{{ 1 // 0 }}", "FAILED RENDER_ERROR"),
    ("otherwise, with a receiver", "messaging:pair", "Hi {{ receiver.name }}", "SENT"),
    ("otherwise, where nobody is named", "messaging:three", "Hi all of {{ channel.cid }}", "SENT"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "text", "outcome"),
    [case[1:] for case in CHANNEL_CASES],
    ids=[case[0] for case in CHANNEL_CASES],
)
async def test_a_channel(database: Database, target: str, text: str, outcome: str) -> None:
    await add_channels(database)
    audience = await add_list(database, 1, [target], "CHANNEL")
    await started(database, [audience], message_template={"text": text})
    campaign = await work(database)
    assert await outcomes(database, campaign) == {target: outcome}
    await books(database, campaign)


async def add_channels(database: Database) -> None:
    """A channel of each shape that a campaign can meet."""
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:pair", ["sender", "ann"])
    await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
    await add_channel(database, "messaging:others", ["ann", "bob"])
    await add_channel(database, "messaging:alone", ["sender"])
    await add_channel(database, "messaging:ice", ["sender", "ann"], frozen=True)


async def test_overlapping_segments_make_one_target(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob", "eve"])
    first = await add_list(database, 1, ["ann", "bob"])
    second = await add_list(database, 2, ["bob", "eve", "sender", "nobody"])
    await started(database, [first, second])
    campaign = await work(database)
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "bob": "SENT",
        "eve": "SENT",
        "sender": "SKIPPED SENDER",
        "nobody": "SKIPPED UNKNOWN_USER",
    }
    await books(database, campaign)


async def test_what_changes_between_plan_and_send_decides(database: Database) -> None:
    """Deactivated between plan and send, frozen meanwhile, deleted meanwhile."""
    await add_users(database, ["sender", "ann", "bob", "eve"])
    for user_id in ("ann", "bob", "eve"):
        await add_channel(database, f"messaging:{user_id}-news", [user_id, "sender"])
    await started(database, [await add_list(database, 1, ["ann", "bob", "eve"])], create_channels=False)
    campaign = await campaigning.read(database)
    assert await plan_chunk(database, campaign.campaign_no, capacity=None) is Planning.FINISHED
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == "ann").values(deactivated_at=NOW))
        await session.execute(
            update(Channel).where(col(Channel.cid) == "messaging:bob-news").values(frozen=True)
        )
        await session.execute(delete(Channel).where(col(Channel.cid) == "messaging:eve-news"))
    assert await outcomes(database, await work(database)) == {
        "ann": "SKIPPED USER_DEACTIVATED",
        "bob": "SKIPPED CHANNEL_FROZEN",
        "eve": "SKIPPED NO_CHANNEL",
    }


async def test_a_channel_deleted_between_plan_and_send_is_unknown(database: Database) -> None:
    await add_channels(database)
    audience = await add_list(database, 1, ["messaging:pair", "messaging:three"], "CHANNEL")
    campaign = await started(database, [audience], message_template={"text": "Hi"})
    await plan_chunk(database, campaign.campaign_no, capacity=None)
    async with database.transaction() as session:
        await session.execute(delete(Channel).where(col(Channel.cid) == "messaging:pair"))
    assert await outcomes(database, await work(database)) == {
        "messaging:pair": "SKIPPED UNKNOWN_CHANNEL",
        "messaging:three": "SENT",
    }

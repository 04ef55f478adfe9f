"""SEMANTICS, before sending: previews are rendered by the very code that sends, with real receivers, and test
messages are sent for real, outside the campaign's stats."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from app.campaigns import service
from app.campaigns.models import Campaign
from app.channels.models import Channel, Member
from app.database import Database, now
from app.errors import AppError, Invalid, InvalidInput, LimitExceeded, NotFound, QuotaExceeded
from app.ledger.models import Batch, OutcomeReason, Plan, Recipient, RecipientStatus
from app.messages.models import Message
from app.segments import service as segments
from app.sending import previewing, testing
from app.sending.previewing import Preview
from app.sending.writing import Entry
from app.usage import service as usage
from app.users.models import User
from tests.integration import campaigning
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    channel,
    create,
    messages,
    outcomes,
    start,
    work,
)

NOW = datetime.now(UTC)
RICH = {
    "text": "Hello {{ receiver.name }} of {{ receiver.city }}",
    "attachments": [{"age": "{{ receiver.age }}", "to": "{{ channel.cid }}"}],
    "custom": {"offer": "{{ receiver.city|default('none') }}"},
}
WRITTEN = (Channel, Member, Message, Recipient, Batch, Plan)


async def preview(
    database: Database, campaign: Campaign, ids: Sequence[str] | None = None, count: int = 3
) -> list[Preview]:
    """A preview as the API asks for it."""
    async with database.read() as session:
        return await previewing.preview(session, campaign, ids, count)


async def send_test(
    database: Database, *user_ids: str, campaign_id: str = "news", capacity: int | None = None
) -> dict[str, Entry]:
    """Test messages as the API sends them."""
    async with database.read() as session:
        trial = await testing.prepare(session, campaign_id, user_ids)
    async with database.transaction() as session:
        entries = await testing.send(session, trial, capacity=capacity)
    return {entry.target_id: entry for entry in entries}


async def counts(database: Database) -> list[int]:
    """How many rows there are of everything that sending writes, and what the month has used."""
    async with database.read() as session:
        rows = [(await session.scalar(select(func.count()).select_from(table))) or 0 for table in WRITTEN]
        return [*rows, await usage.used(session, await now(session))]


async def everybody(database: Database) -> list[str]:
    """Someone for every case that a preview can show."""
    await add_users(database, ["sender"])
    await add_users(database, ["ann"], custom={"city": "Oslo", "age": 30})
    await add_users(database, ["bob"], custom={"age": 40})
    await add_users(database, ["cold", "found"], custom={"city": "Rome"})
    await add_users(database, ["asleep"], deactivated_at=NOW)
    await add_users(database, ["wide"], custom={"city": "x" * 5_001})
    await add_channel(database, "messaging:cold-news", ["sender", "cold"], frozen=True)
    await add_channel(database, "messaging:found-news", ["sender", "found"])
    return ["ann", "asleep", "bob", "cold", "found", "nobody", "sender", "wide"]


async def test_a_preview_is_rendered_by_the_very_code_that_sends(database: Database) -> None:
    audience = await add_list(database, 1, await everybody(database))
    await create(database, segment_ids=[audience], message_template=RICH)
    shown = await preview(database, await start(database), count=20)
    campaign = await work(database)
    sent = {message.cid: message for message in await messages(database)}
    happened = await outcomes(database, campaign)
    assert [each.receiver_id for each in shown] == sorted(happened)
    for each in shown:
        assert each.receiver_id is not None
        if each.error is not None:
            assert each.error.startswith(f"{happened[each.receiver_id]}: ")
            continue
        assert happened[each.receiver_id] == "SENT"
        message = sent[str(each.cid)]
        assert (each.text, each.attachments, each.custom) == (
            message.text,
            message.attachments,
            message.custom,
        )


async def test_a_preview_writes_nothing(database: Database) -> None:
    audience = await add_list(database, 1, await everybody(database))
    campaign = await create(database, segment_ids=[audience], message_template=RICH)
    before = await counts(database)
    assert len(await preview(database, campaign, count=20)) == 8
    assert await counts(database) == before


REASONS = [
    ("it is the sender", "sender", "SKIPPED SENDER: sender is the sender"),
    ("no such user", "nobody", "SKIPPED UNKNOWN_USER: there is no user nobody"),
    (
        "user deactivated, or deleted since",
        "asleep",
        "SKIPPED USER_DEACTIVATED: the user asleep is deactivated or deleted",
    ),
    (
        "channel frozen",
        "cold",
        "SKIPPED CHANNEL_FROZEN: the channel messaging:cold-news is frozen",
    ),
    (
        "no channel, and createChannels is false",
        "ann",
        "SKIPPED NO_CHANNEL: there is no channel messaging:ann-news, and createChannels is false",
    ),
    (
        "rendering fails or exceeds a limit",
        "found",
        "FAILED RENDER_ERROR: text, line 1: division by zero",
    ),
]


@pytest.mark.parametrize(
    ("receiver", "error"), [case[1:] for case in REASONS], ids=[case[0] for case in REASONS]
)
async def test_what_is_not_sent_is_said_in_words(database: Database, receiver: str, error: str) -> None:
    await everybody(database)
    campaign = await create(
        database, create_channels=False, message_template={"text": "{{ 1 // 0 }}"}, user_ids=[receiver]
    )
    (shown,) = await preview(database, campaign)
    assert (shown.error, shown.text, shown.custom, shown.attachments) == (error, None, {}, [])


async def test_missing_variables_are_named_and_render_empty_without_a_default(database: Database) -> None:
    await everybody(database)
    campaign = await create(database, message_template=RICH, user_ids=["bob", "ann"])
    ann, bob = await preview(database, campaign)
    assert (ann.missing, bob.missing) == ((), ("receiver.city",))
    assert bob.text == "Hello Bob of "
    assert bob.custom == {"campaign_id": "news", "offer": "none"}
    other = await create(
        database, "other", message_template={**RICH, "defaults": {"receiver.city": "X"}}, user_ids=["bob"]
    )
    (bob,) = await preview(database, other)
    assert (bob.text, bob.missing) == ("Hello Bob of X", ())


async def test_cid_is_where_it_would_go_also_of_a_channel_to_be_created(database: Database) -> None:
    await everybody(database)
    campaign = await create(database, user_ids=["ann", "found"])
    assert [shown.cid for shown in await preview(database, campaign)] == [
        "messaging:ann-news",
        "messaging:found-news",
    ]


async def test_the_default_is_the_audience_as_it_is_until_the_start_and_as_it_was_then_after_it(
    database: Database,
) -> None:
    await add_users(database, ["sender", "ann", "bob", "eve"])
    first = await add_list(database, 1, ["bob", "eve"])
    second = await add_list(database, 2, ["ann", "bob", "eve"])
    campaign = await create(database, segment_ids=[first, second])
    assert [shown.receiver_id for shown in await preview(database, campaign, count=2)] == ["ann", "bob"]
    everyone = await filter_segment(database, "everyone", {"role": "user"})
    campaign = await create(database, "filtered", segment_ids=[everyone])
    await change_filter(database, "everyone", {"id": "eve"})
    assert [shown.receiver_id for shown in await preview(database, campaign, count=9)] == ["eve"]
    campaign = await start(database, "filtered")
    await change_filter(database, "everyone", {"id": "bob"})
    assert [shown.receiver_id for shown in await preview(database, campaign, count=9)] == ["eve"]


async def filter_segment(database: Database, segment_id: str, given: dict[str, Any]) -> str:
    """A segment with a filter."""
    async with database.transaction() as session:
        await segments.create(session, {"segment_id": segment_id, "type": "USER", "filter": given})
    return segment_id


async def change_filter(database: Database, segment_id: str, given: dict[str, Any]) -> None:
    """Another filter for a segment."""
    async with database.transaction() as session:
        await segments.update(session, segment_id, {"filter": given})


async def test_receivers_may_be_anybody_and_come_in_the_order_given(database: Database) -> None:
    await everybody(database)
    campaign = await create(database, user_ids=["ann"])
    shown = await preview(database, campaign, ["found", "bob", "found"])
    assert [each.receiver_id for each in shown] == ["found", "bob"]
    assert await preview(database, campaign, []) == []
    assert await preview(database, campaign, count=0) == []


PAST_A_LIMIT = [
    ("over 20 receivers", {"ids": [f"u{number}" for number in range(21)]}, LimitExceeded, ("receiverIds",)),
    ("a count over 20", {"count": 21}, LimitExceeded, ("count",)),
    ("a count below 0", {"count": -1}, InvalidInput, ("count",)),
    ("an id with white space", {"ids": ["ann", "a b"]}, InvalidInput, ("receiverIds", "1")),
]


@pytest.mark.parametrize(
    ("asked", "error", "path"), [case[1:] for case in PAST_A_LIMIT], ids=[case[0] for case in PAST_A_LIMIT]
)
async def test_past_a_limit_of_previews(
    database: Database, asked: dict[str, Any], error: type[AppError], path: tuple[str, ...]
) -> None:
    await everybody(database)
    campaign = await create(database, user_ids=["ann"])
    with pytest.raises(error) as refused:
        await preview(database, campaign, **asked)
    assert refused.value.path == path


async def test_without_a_sender_there_is_no_preview_but_a_reason(database: Database) -> None:
    await everybody(database)
    campaign = await create(database, user_ids=["ann"])
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == "sender").values(deactivated_at=NOW))
    with pytest.raises(InvalidInput, match="The sender sender does not exist or is deactivated"):
        await preview(database, campaign)
    with pytest.raises(InvalidInput, match="The sender sender does not exist or is deactivated"):
        await send_test(database, "ann")


async def test_a_channel_audience_is_previewed_by_cids(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:pair", ["sender", "ann"])
    await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
    audience = await add_list(database, 1, ["messaging:pair", "messaging:three"], "CHANNEL")
    campaign = await create(
        database,
        segment_ids=[audience],
        message_template={"text": "Hi {{ receiver.name }}"},
        channel_template=None,
        create_channels=False,
    )
    pair, three, nowhere = await preview(
        database, campaign, ["messaging:pair", "messaging:three", "messaging:nowhere"]
    )
    assert (pair.receiver_id, pair.cid, pair.text) == ("ann", "messaging:pair", "Hi Ann")
    assert (three.receiver_id, three.text) == (None, None)
    assert three.error == (
        "SKIPPED NO_RECEIVER: the message names the receiver, and the channel messaging:three has none: only "
        "a channel of the sender and one other member has a receiver"
    )
    assert nowhere.error == "SKIPPED UNKNOWN_CHANNEL: there is no channel messaging:nowhere"
    assert [each.cid for each in await preview(database, campaign)] == ["messaging:pair", "messaging:three"]


async def test_heavy_renderings_leave_the_event_loop_its_turns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver at a time: somebody else has a turn for each of twenty renderings that take their time."""
    people = [f"u{number:02}" for number in range(20)]
    await add_users(database, ["sender", *people])
    campaign = await create(database, user_ids=people)
    monkeypatch.setattr(previewing, "SECONDS_AT_ONCE", 0.0)
    turns = 0

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    assert [each.error for each in await preview(database, campaign, count=20)] == [None] * 20
    other.cancel()
    assert turns >= 20


async def look(database: Database, text: str, *user_ids: str, **template: Any) -> list[Preview]:
    """A message that no campaign has."""
    async with database.read() as session:
        return await previewing.preview_message(session, "sender", {"text": text, **template}, user_ids)


async def test_a_message_is_previewed_before_there_is_a_campaign(database: Database) -> None:
    await everybody(database)
    await add_channel(database, "messaging:!members-of-both", ["sender", "bob"], team="red")
    before = await counts(database)
    text = "{{ receiver.name }} {{ channel.team }} {{ sender.name }}"
    ann, bob, nobody = await look(database, text, "ann", "bob", "nobody", custom={"a": 1})
    assert (ann.cid, ann.text, ann.missing, ann.error) == (None, "Ann  Sender", ("channel.team",), None)
    assert (bob.cid, bob.text, bob.missing) == ("messaging:!members-of-both", "Bob red Sender", ())
    assert bob.custom == {"a": 1}
    assert nobody.error == "SKIPPED UNKNOWN_USER: there is no user nobody"
    assert await counts(database) == before


async def test_everything_wrong_with_a_message_to_preview_is_said_at_once(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(Invalid) as refused:
            await previewing.preview_message(session, "a b", {"text": "x\n{{ receiver. }}"}, [])
    found = {error.path: error for error in refused.value.errors}
    assert set(found) == {("sender_id",), ("message_template", "text"), ("receiver_ids",)}
    details = found["message_template", "text"].details
    assert details is not None
    assert (details["line"], details["column"] > 0) == (2, True)


async def test_a_message_without_a_sender_is_not_previewed(database: Database) -> None:
    with pytest.raises(InvalidInput) as refused:
        await look(database, "Hi", "ann")
    assert refused.value.path == ("sender_id",)


# ---------------------------------------------------------------- testCampaign


async def test_a_test_message_has_neither_campaign_but_test_true_in_custom(database: Database) -> None:
    """Every message has type `regular`, its campaignId, and `campaign_id` in custom. A test message has
    neither: `{"test": true}` in custom instead."""
    await everybody(database)
    await create(database, message_template=RICH, user_ids=["ann"])
    tested = await send_test(database, "ann", "bob")
    async with database.read() as session:
        sent = await session.get(Message, tested["ann"].message_id)
    assert sent is not None
    assert (sent.type, sent.campaign_no, sent.sender_id) == ("regular", None, "sender")
    assert (sent.cid, sent.text) == ("messaging:ann-news", "Hello Ann of Oslo")
    assert sent.attachments == [{"age": 30, "to": "messaging:ann-news"}]
    assert sent.custom == {"offer": "Oslo", "test": True}
    assert tested["bob"].status == RecipientStatus.SENT


STATUSES = ("DRAFT", "SCHEDULED", "IN_PROGRESS", "PAUSED", "STOPPED", "COMPLETED")


@pytest.mark.parametrize("status", STATUSES)
async def test_it_is_sent_whatever_the_status_and_outside_the_stats(database: Database, status: str) -> None:
    await everybody(database)
    campaign = await create(database, user_ids=["ann", "found"])
    await bring_to(database, status)
    before, counted = await campaigning.read(database), await books(database, campaign)
    assert before.status == status
    tested = await send_test(database, "bob")
    assert tested["bob"].message_id is not None
    assert await books(database, campaign) == counted
    assert (await campaigning.read(database)).model_dump() == before.model_dump()
    assert "bob" not in await outcomes(database, campaign)


async def bring_to(database: Database, status: str) -> None:
    """The campaign `news` in this status."""
    if status == "SCHEDULED":
        async with database.transaction() as session:
            later = NOW.replace(year=NOW.year + 1, day=1)
            await service.start(session, "news", scheduled_for=later, stop_at=None, capacity=None)
    elif status != "DRAFT":
        await start(database)
    if status == "COMPLETED":
        await work(database)
    if status in ("PAUSED", "STOPPED"):
        async with database.transaction() as session:
            await (service.pause if status == "PAUSED" else service.stop)(session, "news")


async def test_the_same_outcomes_in_the_same_order_for_each_user(database: Database) -> None:
    await everybody(database)
    await create(database, user_ids=["ann"])
    tested = await send_test(database, "sender", "nobody", "asleep", "cold", "found")
    reasons = {user: OutcomeReason(entry.reason).name for user, entry in tested.items() if entry.reason}
    assert reasons == {
        "sender": "SENDER",
        "nobody": "UNKNOWN_USER",
        "asleep": "USER_DEACTIVATED",
        "cold": "CHANNEL_FROZEN",
    }
    assert tested["cold"].detail == "SKIPPED CHANNEL_FROZEN: the channel messaging:cold-news is frozen"
    assert len(await messages(database)) == 1


async def test_the_same_rules_for_channels(database: Database) -> None:
    await everybody(database)
    await create(
        database,
        user_ids=["ann"],
        sender_mode="EXCLUDE",
        channel_template={
            "type": "messaging",
            "id": "{{ receiver.id }}-news",
            "team": "red",
            "members_template": [{"user_id": "bob", "channel_role": "moderator"}],
        },
    )
    await add_users(database, ["joiner"])
    await add_channel(database, "messaging:joiner-news", ["cold"])
    await send_test(database, "ann", "joiner")
    created, members = await channel(database, "messaging:ann-news")
    assert (created.team, created.member_count, sorted(members)) == ("red", 2, ["ann", "bob"])
    assert members["bob"].channel_role == "moderator"
    existing, members = await channel(database, "messaging:joiner-news")
    assert (existing.member_count, sorted(members)) == (2, ["cold", "joiner"])
    await send_test(database, "ann")
    again, _ = await channel(database, "messaging:ann-news")
    assert again.last_seq == 2


async def test_test_messages_count_and_what_was_not_sent_does_not(database: Database) -> None:
    await everybody(database)
    await create(database, user_ids=["ann"])
    await send_test(database, "ann", "bob", "asleep", capacity=2)
    assert (await counts(database))[-1] == 2
    before = await counts(database)
    with pytest.raises(QuotaExceeded):
        await send_test(database, "found", capacity=2)
    assert await counts(database) == before
    assert (await send_test(database, "asleep", capacity=2))["asleep"].reason


async def test_a_campaign_for_channels_is_tested_in_the_channel_with_the_sender(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:!members-pair", ["sender", "ann"])
    await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
    audience = await add_list(database, 1, ["messaging:three"], "CHANNEL")
    await create(
        database,
        segment_ids=[audience],
        channel_template=None,
        create_channels=False,
        message_template={"text": "Hi {{ receiver.name }} in {{ channel.cid }}"},
    )
    tested = await send_test(database, "ann", "bob")
    (sent,) = await messages(database)
    assert (sent.cid, sent.text) == ("messaging:!members-pair", "Hi Ann in messaging:!members-pair")
    assert tested["bob"].detail == (
        "SKIPPED NO_CHANNEL: there is no channel of sender and bob alone, and createChannels is false"
    )


REFUSED = [
    ("nobody", [], InvalidInput, ("user_ids",)),
    ("over 10 users", [f"u{number}" for number in range(11)], LimitExceeded, ("user_ids",)),
    ("what is no id", ["ann", ""], InvalidInput, ("user_ids", "1")),
]


@pytest.mark.parametrize(
    ("user_ids", "error", "path"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_refused(
    database: Database, user_ids: list[str], error: type[AppError], path: tuple[str, ...]
) -> None:
    await everybody(database)
    await create(database, user_ids=["ann"])
    with pytest.raises(error) as refused:
        await send_test(database, *user_ids)
    assert refused.value.path == path


async def test_there_is_no_such_campaign_to_test(database: Database) -> None:
    with pytest.raises(NotFound):
        await send_test(database, "ann")


async def test_tests_beside_each_other_and_beside_the_campaign(database: Database) -> None:
    """Channels are locked in the order of cid: no deadlock, and every message its own number."""
    people = [f"u{number}" for number in range(10)]
    await add_users(database, ["sender", *people])
    campaign = await create(database, user_ids=people)
    await start(database)
    await asyncio.gather(
        work(database),
        *(send_test(database, *sorted(people, reverse=bool(turn % 2))) for turn in range(6)),
    )
    counted = await books(database, campaign)
    assert (counted.sent, counted.pending) == (10, 0)
    for user_id in people:
        found, _ = await channel(database, f"messaging:{user_id}-news")
        assert found.last_seq == 7
    assert len(await messages(database)) == 70

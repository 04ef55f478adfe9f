"""SEMANTICS, after sending: what happened, or would happen, to one target, told so that a support agent can
read it out; and recipients found by status, reason and whether they have read."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import service
from app.campaigns.models import Campaign
from app.channels.models import Channel, Member
from app.database import Database
from app.errors import InvalidInput, LimitExceeded
from app.ledger import recipients
from app.ledger.forgetting import delete_users
from app.ledger.models import OutcomeReason, Recipient, RecipientStatus
from app.ledger.recipients import RecipientFilter, Span
from app.messages.models import Message
from app.segments import service as segments
from app.segments.models import Segment
from app.sending import explaining, planning
from app.sending.batches import send_slice
from app.sending.blueprint import Blueprints
from app.sending.explaining import Explanation
from app.sending.planning import plan_chunk
from app.sending.wording import instant
from app.users.models import User
from tests.api.test_statement_counts import statements
from tests.integration.campaigning import add_channel, add_list, add_users, create, start, work

NOW = datetime.now(UTC)
FAR = NOW + timedelta(days=1)
TIMES = re.compile(r"[0-9-]{10} [0-9:]{8} UTC")
READ_AT = datetime(2026, 11, 3, 10, 0, 0, 250_000, tzinfo=UTC)


async def explain(database: Database, campaign: Campaign, target_id: str) -> Explanation:
    """The explanation as the API gives it."""
    async with database.read() as session:
        found = await explaining.explain(session, campaign.campaign_no, target_id)
    assert found is not None
    return found


async def story(database: Database, campaign: Campaign, target_id: str) -> tuple[str, ...]:
    """The sentences, with TIME for times."""
    return tuple(TIMES.sub("TIME", step) for step in (await explain(database, campaign, target_id)).steps)


async def row(database: Database, campaign: Campaign, target_id: str) -> Recipient:
    """A ledger row."""
    async with database.read() as session:
        found = await session.get(Recipient, (campaign.campaign_no, target_id))
    assert found is not None
    return found


async def two_segments(database: Database) -> Campaign:
    """Ann and bob, who has a channel, are in the first; bob and eve in the second; zoe in none."""
    await add_users(database, ["sender", "ann", "bob", "eve", "zoe"])
    await add_channel(database, "messaging:bob-news", ["sender", "bob"])
    first = await add_list(database, 1, ["ann", "bob", "ghost"])
    second = await add_list(database, 2, ["bob", "eve"])
    return await create(database, segment_ids=[first, second])


# ---------------------------------------------------------------- before the start


async def test_before_the_start_what_would_happen_now(database: Database) -> None:
    campaign = await two_segments(database)
    found = await explain(database, campaign, "bob")
    assert (found.in_audience, found.status, found.reason) == (True, None, None)
    assert [segment.segment_id for segment in found.segments] == ["list-1", "list-2"]
    assert await story(database, campaign, "bob") == (
        "The segments list-1 and list-2 name the user bob. It counts once, for list-1: duplicates go.",
        "The campaign has not been started.",
        "If it were its turn now, it would be SENT to the channel messaging:bob-news, which exists.",
    )
    assert (await story(database, campaign, "ann"))[2] == (
        "If it were its turn now, it would be SENT to the channel messaging:ann-news, which would be created."
    )
    assert (await story(database, campaign, "ghost"))[2] == (
        "If it were its turn now, it would be SKIPPED UNKNOWN_USER: there is no user ghost."
    )


async def test_outside_the_audience(database: Database) -> None:
    campaign = await two_segments(database)
    found = await explain(database, campaign, "zoe")
    assert (found.in_audience, found.segments, found.status) == (False, (), None)
    assert found.steps == (
        "No segment of the campaign (list-1 and list-2) names the user zoe.",
        "So it is no target of the campaign.",
    )


async def test_by_user_ids(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    campaign = await create(database, user_ids=["ann"], message_template={"text": "{{ receiver.city }}"})
    assert await story(database, campaign, "ann") == (
        "The campaign's userIds name the user ann.",
        "The campaign has not been started.",
        "If it were its turn now, it would be SENT to the channel messaging:ann-news, which would be "
        "created.",
        "Nothing is known for receiver.city: that would stay empty.",
    )
    assert (await story(database, campaign, "bob"))[0] == (
        "The campaign has no segments, and its userIds do not name the user bob."
    )


async def test_scheduled(database: Database) -> None:
    campaign = await two_segments(database)
    later = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with database.transaction() as session:
        await service.start(session, "news", scheduled_for=later, stop_at=None, capacity=None)
    steps = (await explain(database, campaign, "ann")).steps
    assert steps[1] == "The campaign starts at 2099-01-02 03:04:05 UTC."


async def test_stopped_before_it_started(database: Database) -> None:
    campaign = await two_segments(database)
    async with database.transaction() as session:
        later = datetime(2099, 1, 2, tzinfo=UTC)
        await service.start(session, "news", scheduled_for=later, stop_at=None, capacity=None)
    async with database.transaction() as session:
        await service.stop(session, "news")
    assert (await story(database, campaign, "ann"))[1:] == (
        "The campaign was stopped at TIME before it started: nothing was sent.",
    )


async def test_without_a_sender_nothing_would_be_sent(database: Database) -> None:
    campaign = await two_segments(database)
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == "sender").values(deactivated_at=NOW))
    assert (await story(database, campaign, "ann"))[2] == (
        "Nothing can be sent now. The sender sender does not exist or is deactivated."
    )


# ---------------------------------------------------------------- while it runs


async def partly_planned(database: Database, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """Started, and planned up to bob."""
    campaign = await two_segments(database)
    await start(database)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 2)
    await plan_chunk(database, campaign.campaign_no, capacity=None)
    return campaign


async def test_not_planned_yet(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await partly_planned(database, monkeypatch)
    found = await explain(database, campaign, "eve")
    assert (found.in_audience, found.status) == (True, None)
    assert await story(database, campaign, "eve") == (
        "The segment list-2 names the user eve.",
        "The audience is still being planned, and not as far as the user eve yet.",
        "If it were its turn now, it would be SENT to the channel messaging:eve-news, which would be "
        "created.",
    )


async def test_planned_and_pending(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await partly_planned(database, monkeypatch)
    found = await explain(database, campaign, "bob")
    assert (found.in_audience, found.status) == (True, RecipientStatus.PENDING)
    assert (await story(database, campaign, "bob"))[1:] == (
        "The campaign started at TIME and planned the user bob as a target.",
        "It is PENDING: it waits for its turn.",
        "If it were its turn now, it would be SENT to the channel messaging:bob-news, which exists.",
    )


async def test_pending_while_paused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await partly_planned(database, monkeypatch)
    async with database.transaction() as session:
        await service.pause(session, "news")
    assert (await story(database, campaign, "bob"))[2] == (
        "It is PENDING: it waits for its turn. The campaign is paused since TIME."
    )
    assert (await story(database, campaign, "eve"))[1] == (
        "The audience is still being planned, and not as far as the user eve yet. The campaign is paused "
        "since TIME."
    )


async def test_stopped_before_its_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop the targets that were planned and not settled stay PENDING; those not planned yet never
    were targets."""
    campaign = await partly_planned(database, monkeypatch)
    async with database.transaction() as session:
        await service.stop(session, "news")
    found = await explain(database, campaign, "bob")
    assert (found.in_audience, found.status) == (True, RecipientStatus.PENDING)
    assert (await story(database, campaign, "bob"))[1:] == (
        "The campaign started at TIME and planned the user bob as a target.",
        "The campaign was stopped at TIME before its turn: it stays PENDING.",
    )
    found = await explain(database, campaign, "eve")
    assert (found.in_audience, found.status) == (True, None)
    assert (await story(database, campaign, "eve"))[1:] == (
        "The campaign was stopped at TIME before its turn: its audience was not planned as far as the user "
        "eve.",
    )


async def test_the_server_stopped_it_for_a_reason(database: Database) -> None:
    campaign = await two_segments(database)
    async with database.transaction() as session:
        await session.execute(
            update(Campaign).values(status="STOPPED", status_reason="STOP_AT_REACHED", status_message=None)
        )
    assert "before it started" in (await story(database, campaign, "ann"))[1]
    assert "(STOP_AT_REACHED)" in (await story(database, campaign, "ann"))[1]


# ---------------------------------------------------------------- settled


async def test_sent_to_a_channel_found_or_created_and_when(database: Database) -> None:
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    sent = await row(database, campaign, "bob")
    found = await explain(database, campaign, "bob")
    assert (found.status, found.in_audience) == (RecipientStatus.SENT, True)
    assert sent.settled_at is not None
    assert found.steps[2].startswith(f"It was SENT at {instant(sent.settled_at)} as")
    assert (await story(database, campaign, "bob"))[1:] == (
        "The campaign started at TIME and planned the user bob as a target.",
        f"It was SENT at TIME as the message {sent.message_id}, to the channel "
        "messaging:bob-news, which existed already.",
        "The receiver has not read it.",
    )
    ann = await row(database, campaign, "ann")
    assert (await story(database, campaign, "ann"))[2].endswith(
        f"as the message {ann.message_id}, to the channel messaging:ann-news, which the campaign created."
    )


async def test_read_or_not_and_when(database: Database) -> None:
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    async with database.transaction() as session:
        await session.execute(
            update(Recipient).where(col(Recipient.target_id) == "bob").values(read_at=READ_AT)
        )
    steps = (await explain(database, campaign, "bob")).steps
    assert steps[3] == "The receiver had read it by 2026-11-03 10:00:00 UTC."


async def test_who_left_and_came_back_or_stayed_away(database: Database) -> None:
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    async with database.transaction() as session:
        await session.execute(update(Member).where(col(Member.user_id) == "bob").values(created_at=FAR))
        await session.execute(delete(Member).where(col(Member.user_id) == "ann"))
    assert (await story(database, campaign, "bob"))[3] == (
        "The receiver left the channel and joined it again later: whether it was read is not known."
    )
    assert (await story(database, campaign, "ann"))[3] == (
        "The receiver has not read it, and is no member of the channel any more."
    )


async def test_a_user_or_a_segment_deleted_since(database: Database) -> None:
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    await delete_users(database, ["zoe"], erase_messages=False)
    async with database.transaction() as session:
        await session.execute(update(Segment).values(deleted_at=FAR))
    assert (await story(database, campaign, "zoe"))[1] == "The user zoe was deleted at TIME."
    assert (await story(database, campaign, "ann"))[
        0
    ] == "The segment list-1, deleted since, named the user ann."


async def test_a_retry_that_has_not_come_to_it(database: Database) -> None:
    await two_segments(database)
    await start(database)
    campaign = await work(database)
    async with database.transaction() as session:
        await service.retry(session, "news", reasons=["UNKNOWN_USER"], capacity=None)
    assert (await story(database, campaign, "ghost"))[-1] == (
        "A retry is to send to it again, and has not come to it yet."
    )
    async with database.transaction() as session:
        await service.stop(session, "news")
    assert (await story(database, campaign, "ghost"))[-1] == (
        "A retry was to send to it again. The campaign was stopped at TIME before that."
    )


async def test_the_message_or_the_channel_deleted_since(database: Database) -> None:
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    async with database.transaction() as session:
        await session.execute(delete(Message))
        await session.execute(delete(Channel).where(col(Channel.cid) == "messaging:ann-news"))
        await session.execute(
            update(Channel)
            .where(col(Channel.cid) == "messaging:eve-news")
            .values(created_at=datetime.now(UTC) + timedelta(hours=1))
        )
        await session.execute(
            update(Recipient)
            .where(col(Recipient.target_id) == "bob")
            .values(message_id=None, detail="The message was deleted.")
        )
    bob, ann, eve = [await story(database, campaign, user) for user in ("bob", "ann", "eve")]
    assert "as the message" not in bob[2]
    assert bob[3] == ann[3] == "The message was deleted since."
    assert ann[2].endswith("to the channel messaging:ann-news, which was deleted since.")
    assert eve[2].endswith("which was deleted since and created again.")


async def test_skipped_and_failed_with_the_reason_as_it_was_then(database: Database) -> None:
    await add_users(database, ["sender", "ann", "odd"])
    await add_users(database, ["asleep"], deactivated_at=NOW)
    text = "{% if receiver.id == 'odd' %}{{ 1 // 0 }}{% endif %}Hi"
    campaign = await create(
        database, user_ids=["asleep", "ghost", "odd", "sender"], message_template={"text": text}
    )
    await start(database)
    await work(database)
    told = {
        user: (await story(database, campaign, user))[2].removeprefix("It was settled at TIME as ")
        for user in ("asleep", "ghost", "odd", "sender")
    }
    assert told == {
        "asleep": "SKIPPED USER_DEACTIVATED: the user asleep was deactivated or deleted.",
        "ghost": "SKIPPED UNKNOWN_USER: there was no user ghost.",
        "odd": "FAILED RENDER_ERROR: text, line 1: division by zero.",
        "sender": "SKIPPED SENDER: sender is the sender.",
    }
    found = await explain(database, campaign, "asleep")
    assert (found.status, found.reason) == (RecipientStatus.SKIPPED, OutcomeReason.USER_DEACTIVATED)


async def test_the_audience_is_frozen_by_planning(database: Database) -> None:
    """Who joins the segment later is not reached, who leaves it later was."""
    campaign = await two_segments(database)
    await start(database)
    await work(database)
    async with database.transaction() as session:
        await segments.add_targets(session, "list-1", ["zoe"])
        await segments.remove_targets(session, "list-2", ["eve"])
    zoe, eve = await explain(database, campaign, "zoe"), await explain(database, campaign, "eve")
    assert (zoe.in_audience, [segment.segment_id for segment in zoe.segments]) == (False, ["list-1"])
    assert zoe.steps == (
        "The segment list-1 names the user zoe.",
        "It did not when the audience was planned, and the audience is frozen by that: so it is no target of "
        "the campaign.",
    )
    assert (eve.in_audience, eve.status, eve.segments) == (True, RecipientStatus.SENT, ())
    assert eve.steps[:2] == (
        "No segment of the campaign (list-1 and list-2) names the user eve now.",
        "It was named when the audience was planned, and the audience is frozen by that.",
    )


async def test_a_channel_as_a_target(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
    audience = await add_list(database, 1, ["messaging:three"], "CHANNEL")
    campaign = await create(database, segment_ids=[audience], channel_template=None, create_channels=False)
    assert (await story(database, campaign, "messaging:three"))[2].startswith(
        "If it were its turn now, it would be SKIPPED NO_RECEIVER: the message names the receiver"
    )
    other = await create(
        database,
        "other",
        segment_ids=[audience],
        channel_template=None,
        create_channels=False,
        message_template={"text": "Hi all"},
    )
    await start(database, "other")
    await work(database, "other")
    steps = await story(database, other, "messaging:three")
    assert steps[0] == "The segment list-1 names the channel messaging:three."
    assert steps[3] == "Nobody has read it there yet."
    async with database.transaction() as session:
        await session.execute(update(Recipient).values(read_at=READ_AT))
    assert (await story(database, other, "messaging:three"))[3] == (
        "The first member to read it had read it by TIME."
    )


async def test_what_can_be_no_target_is_refused(database: Database) -> None:
    campaign = await two_segments(database)
    for target_id in ("", "a b", "x" * 321):
        with pytest.raises(InvalidInput if len(target_id) < 321 else LimitExceeded) as refused:
            await explain(database, campaign, target_id)
        assert refused.value.path == ("targetId",)


async def test_a_deleted_campaign_is_not_explained(database: Database) -> None:
    campaign = await two_segments(database)
    async with database.transaction() as session:
        await service.remove(session, "news")
    async with database.read() as session:
        assert await explaining.explain(session, campaign.campaign_no, "ann") is None


# ---------------------------------------------------------------- recipients by what happened and who read


PEOPLE = [f"u{number:03}" for number in range(120)]


async def mixed(database: Database) -> tuple[Campaign, list[Recipient]]:
    """A batch partly sent, the rest PENDING: each third skipped, each seventh failed, each fifth has read."""
    await add_users(database, ["sender"])
    await add_users(database, [user for number, user in enumerate(PEOPLE) if number % 3], custom={"odd": 0})
    await add_users(database, PEOPLE[::3], deactivated_at=NOW)
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id).in_(PEOPLE[::7])).values(custom={"odd": 1}))
    text = "{% if receiver.odd %}{{ 1 // 0 }}{% endif %}Hi"
    campaign = await create(database, user_ids=[*PEOPLE, "zz"], message_template={"text": text})
    await start(database)
    await plan_chunk(database, campaign.campaign_no, capacity=None)
    async with database.transaction() as session:
        await send_slice(session, campaign.campaign_no, 1, 80, Blueprints())
    async with database.transaction() as session:
        sent = (col(Recipient.status) == RecipientStatus.SENT, col(Recipient.target_id).in_(PEOPLE[::5]))
        await session.execute(update(Recipient).where(*sent).values(read_at=READ_AT))
    async with database.read() as session:
        rows = list((await session.execute(select(Recipient))).scalars())
    left = [Recipient(target_id=each, status=0, batch_no=1) for each in [*PEOPLE[80:], "zz"]]
    return campaign, [*rows, *left]


async def listed(
    session: AsyncSession, campaign: Campaign, wanted: RecipientFilter, size: int, backward: bool
) -> list[str]:
    """All pages one after the other."""
    found: list[str] = []
    while True:
        edge = found[-1] if found else None
        span = Span(size, None if backward else edge, edge if backward else None, backward)
        page = await recipients.page(session, campaign.campaign_no, wanted, span)
        found += [each.target_id for each in page]
        if len(page) < size:
            return found


STATUS_SETS = [None, *({status} for status in RecipientStatus), {0, 1}, {1, 2}, {2, 3}]
REASON_SETS = [None, {OutcomeReason.USER_DEACTIVATED}, {OutcomeReason.RENDER_ERROR, OutcomeReason.SENDER}]
ID_SETS = [None, {"u000", "u001", "u005", "u119", "absent"}]


async def test_pages_and_counts_by_status_reason_and_read(database: Database) -> None:
    """Whoever has not read is unread: sent to, left out and pending ones alike."""
    campaign, rows = await mixed(database)
    assert {row.status for row in rows} == set(RecipientStatus)
    assert len([row for row in rows if row.read_at]) > 5
    async with database.read() as session:
        for statuses, reasons, ids, read in product(STATUS_SETS, REASON_SETS, ID_SETS, (None, True, False)):
            wanted = RecipientFilter(
                statuses=None if statuses is None else frozenset(statuses),
                reasons=None if reasons is None else frozenset(reasons),
                target_ids=None if ids is None else frozenset(ids),
                read=read,
            )
            expected = sorted(
                row.target_id
                for row in rows
                if (statuses is None or row.status in statuses)
                and (reasons is None or row.reason in reasons)
                and (ids is None or row.target_id in ids)
                and (read is None or (row.read_at is not None) is read)
            )
            assert await listed(session, campaign, wanted, 7, backward=False) == expected, wanted
            assert await listed(session, campaign, wanted, 50, backward=True) == expected[::-1], wanted
            assert await recipients.count(session, campaign.campaign_no, wanted) == len(expected)


async def test_one_pending_recipient_is_found_among_many_open_batches(database: Database) -> None:
    """Looking at all of them would read every id that is still to be sent to."""
    people = [f"u{number:05}" for number in range(2_000)]
    campaign = await create_for(database, people)
    async with database.read() as session:
        with statements() as asked:
            found = await recipients.by_key(session, [(campaign.campaign_no, "u01234")])
    assert found[campaign.campaign_no, "u01234"].batch_no == 13
    assert len(asked) == 2
    assert len([each for each in asked if "batch_targets" in each]) == 1


async def create_for(database: Database, people: Sequence[str]) -> Campaign:
    """A campaign of many small batches."""
    await add_users(database, ["sender"])
    campaign = await create(database, user_ids=people, max_messages_per_second=1)
    await start(database)
    await plan_chunk(database, campaign.campaign_no, capacity=None)
    return campaign

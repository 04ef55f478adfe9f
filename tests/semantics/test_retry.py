"""SEMANTICS, "retryRecipients", sentence by sentence; whatever comes between, the books balance."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from app.campaigns import queries, stats
from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.channels.models import Channel
from app.database import Database
from app.errors import Conflict, Invalid, InvalidInput, QuotaExceeded
from app.ledger.models import Batch, BatchReason, OutcomeReason, Plan, Recipient, RecipientStatus
from app.ledger.queries import SAMPLES, Sums
from app.segments.models import Segment
from app.sending import planning, retrying
from app.sending.planning import Planning
from app.sending.retrying import retry_chunk
from app.usage import service as usage
from app.users.models import User
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    create,
    engine,
    messages,
    outcomes,
    read,
    start,
    work,
)
from tests.semantics.acting import (
    BREAKS_FOR_ODD,
    LATER,
    LONG_AGO,
    act,
    come_due,
    events,
    in_status,
    release,
    resume,
    retry,
    set_columns,
    set_user,
)

NOBODIES = [f"n{number:03}" for number in range(0, 90, 2)]
ODDS = [f"n{number:03}" for number in range(1, 90, 2)]
EVENS = [f"s{number:03}" for number in range(30)]


async def mend(database: Database) -> None:
    """From now on nothing fails for odd."""
    await set_user(database, "odd", custom={"number": 1})


async def sums(database: Database, campaign: Campaign) -> Sums:
    """The stats as they are read."""
    async with database.read() as session:
        rows = await queries.by_nos(session, [campaign.campaign_no])
        return (await stats.of(session, list(rows.values())))[campaign.campaign_no].sums


async def exact(database: Database, campaign: Campaign) -> None:
    """Books balance, and every batch counts and samples exactly what the ledger holds of it."""
    await books(database, campaign)
    async with database.read() as session:
        rows = (
            await session.execute(
                select(Recipient)
                .where(col(Recipient.campaign_no) == campaign.campaign_no)
                .order_by(col(Recipient.target_id))
            )
        ).scalars()
        settled = list(rows)
        batches = {row.batch_no: row for row in (await session.execute(select(Batch))).scalars()}
        reasons = list((await session.execute(select(BatchReason))).scalars())
    by_status = Counter((row.batch_no, row.status) for row in settled)
    for number, batch in batches.items():
        counts = [by_status[number, status] for status in (1, 2, 3)]
        assert [batch.sent, batch.skipped, batch.failed] == counts
        assert batch.targets == sum(counts) + batch.pending
    unsent = [row for row in settled if row.status >= RecipientStatus.SKIPPED]
    assert {(row.batch_no, row.reason): row.count for row in reasons} == Counter(
        (row.batch_no, row.reason) for row in unsent
    )
    for row in reasons:
        ids = [
            each.target_id for each in unsent if (each.batch_no, each.reason) == (row.batch_no, row.reason)
        ]
        assert row.samples == ids[:SAMPLES]


async def many(database: Database, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A completed campaign in batches of 9 and retry chunks of 7: 45 failed among 45 unknown, and 30 sent."""
    monkeypatch.setattr(planning, "BATCH", 9)
    monkeypatch.setattr(retrying, "CHUNK", 7)
    await add_users(database, ["sender", "u"])
    await add_users(database, ODDS, custom={"number": 0})
    await add_users(database, EVENS, custom={"number": 1})
    await create(
        database,
        user_ids=[*NOBODIES, *ODDS, *EVENS],
        message_template={"text": BREAKS_FOR_ODD},
    )
    await start(database)
    campaign = await work(database)
    assert campaign.status == "COMPLETED"
    await exact(database, campaign)
    return campaign


# ------------------------------------------------------------------ the sentences


async def test_on_completed_campaigns_failed_become_pending_and_it_is_in_progress_until_settled(
    database: Database,
) -> None:
    campaign = await in_status(database, Status.COMPLETED, user_ids=["ann", "odd", "nobody"])
    await mend(database)
    again = await retry(database)
    assert (again.status, again.completed_at, again.final_stats) == ("IN_PROGRESS", None, None)
    await retry_chunk(database, campaign.campaign_no)
    seen = await sums(database, campaign)
    assert (seen.targets, seen.sent, seen.skipped, seen.failed, seen.pending) == (3, 1, 1, 0, 1)
    completed = await work(database)
    assert completed.status == "COMPLETED" and completed.completed_at is not None
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "odd": "SENT",
        "nobody": "SKIPPED UNKNOWN_USER",
    }
    await exact(database, campaign)


async def test_started_and_completed_happen_again_and_it_started_when_it_first_did(
    database: Database,
) -> None:
    campaign = await in_status(database, Status.COMPLETED)
    await retry(database)
    completed = await work(database)
    assert await events(database) == ["campaign.started", "campaign.completed"] * 2
    assert completed.started_at == campaign.started_at
    assert completed.completed_at is not None and campaign.completed_at is not None
    assert completed.completed_at > campaign.completed_at


async def test_recipients_with_the_given_reasons(database: Database) -> None:
    campaign = await in_status(database, Status.COMPLETED, user_ids=["ann", "odd", "nobody", "late"])
    await add_users(database, ["late"], custom={"number": 1})
    await retry(database, "UNKNOWN_USER")
    await work(database)
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "late": "SENT",
        "nobody": "SKIPPED UNKNOWN_USER",
        "odd": "FAILED RENDER_ERROR",
    }
    await mend(database)
    await retry(database, "UNKNOWN_USER", "RENDER_ERROR", "NO_CHANNEL")
    completed = await work(database)
    assert (await outcomes(database, campaign))["odd"] == "SENT"
    assert completed.final_stats is not None and completed.final_stats["sent"] == 3
    await exact(database, campaign)


async def test_never_sender(database: Database) -> None:
    await in_status(database, Status.COMPLETED, user_ids=["sender", "odd"])
    with pytest.raises(InvalidInput, match="leave SENDER out") as raised:
        await retry(database, "RENDER_ERROR", "SENDER")
    assert raised.value.path == ("reasons", "1")
    with pytest.raises((InvalidInput, Invalid), match="at least one"):
        await act(database, "retry", reasons=[], capacity=None)
    assert (await read(database)).status == "COMPLETED"


async def test_with_nothing_to_retry_it_stays_completed_and_says_so(database: Database) -> None:
    await in_status(database, Status.COMPLETED, user_ids=["ann", "nobody"])
    happened = await events(database)
    with pytest.raises(Conflict, match="nothing to retry") as raised:
        await retry(database)
    assert raised.value.path == ("campaign_id",)
    with pytest.raises(Conflict, match="left out for CHANNEL_FROZEN") as raised:
        await retry(database, "CHANNEL_FROZEN")
    assert raised.value.path == ("reasons",)
    assert ((await read(database)).status, await events(database)) == ("COMPLETED", happened)


async def test_a_past_stop_at_is_cleared_and_a_future_one_stays(database: Database) -> None:
    await in_status(database, Status.COMPLETED)
    await set_columns(database, stop_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await retry(database)).stop_at is None
    await work(database)
    await set_columns(database, stop_at=LATER)
    assert (await retry(database)).stop_at == LATER
    assert (await work(database)).stop_at == LATER


async def test_capacity_is_checked(database: Database) -> None:
    campaign = await in_status(database, Status.DRAFT)
    await start(database, capacity=2)
    await work(database, monthly_messages=2)
    await release(database, campaign)
    async with database.transaction() as session:
        at = datetime.now(UTC)
        assert await usage.used(session, at) == 1
        await usage.reserve(session, usage.period_of(at), 1, 2)  # another campaign takes the last of it
    with pytest.raises(QuotaExceeded) as raised:
        await retry(database, capacity=2)
    assert (raised.value.details or {}).items() >= {"needed": 1, "left": 0}.items()
    assert (await read(database)).status == "COMPLETED"
    await mend(database)
    await retry(database, capacity=3)
    await work(database, monthly_messages=3)
    for _ in range(2):
        await release(database, campaign)
    async with database.read() as session:
        assert await usage.used(session, datetime.now(UTC)) == 3


async def test_what_is_given_back_late_is_not_given_back_twice(database: Database) -> None:
    campaign = await in_status(database, Status.COMPLETED)
    await retry(database)  # before housekeeping came round: the plan held 2, one of them sent
    await release(database, campaign)  # it comes late, and finds a campaign that runs again
    async with database.read() as session:
        assert await usage.used(session, datetime.now(UTC)) == 2
    await work(database)
    await release(database, campaign)
    async with database.read() as session:
        assert await usage.used(session, datetime.now(UTC)) == 1


async def test_never_touches_sent(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await many(database, monkeypatch)

    async def sent() -> list[Recipient]:
        async with database.read() as session:
            rows = await session.execute(
                select(Recipient)
                .where(col(Recipient.status) == RecipientStatus.SENT, col(Recipient.target_id).in_(EVENS))
                .order_by(col(Recipient.target_id))
            )
            return list(rows.scalars())

    before, said = await sent(), await messages(database)
    await retry(database, *(reason.name for reason in OutcomeReason if reason.name != "SENDER"))
    await work(database)
    assert await sent() == before
    assert await messages(database) == said
    await exact(database, campaign)


async def test_recipients_that_are_channels(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "messaging:cold", ["sender", "ann"], frozen=True)
    segment = await add_list(database, 1, ["messaging:cold", "messaging:none"], "CHANNEL")
    await create(database, segment_ids=[segment], channel_template=None, create_channels=False)
    await start(database)
    campaign = await work(database)
    async with database.transaction() as session:
        await session.execute(update(Channel).values(frozen=False))
    await retry(database, "CHANNEL_FROZEN", "UNKNOWN_CHANNEL")
    await work(database)
    assert await outcomes(database, campaign) == {
        "messaging:cold": "SENT",
        "messaging:none": "SKIPPED UNKNOWN_CHANNEL",
    }
    await exact(database, campaign)


async def test_a_missing_sender_is_told_at_once(database: Database) -> None:
    await in_status(database, Status.COMPLETED)
    await set_user(database, "sender", deactivated_at=LONG_AGO)
    with pytest.raises(InvalidInput, match="does not exist or is deactivated"):
        await retry(database)


# ------------------------------------------------------------------ in the middle of its walk


async def test_every_chunk_leaves_exact_books(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    failed, outcome = 45, Planning.STORED
    while outcome is Planning.STORED:
        outcome = await retry_chunk(database, campaign.campaign_no)
        await exact(database, campaign)
        seen = await sums(database, campaign)
        assert seen.failed + seen.pending == 45 and seen.failed <= failed
        assert seen.planned == (outcome is Planning.FINISHED)
        failed = seen.failed
    assert (outcome, failed) == (Planning.FINISHED, 0)
    assert await retry_chunk(database, campaign.campaign_no) is Planning.OVERTAKEN
    assert await planning.plan_chunk(database, campaign.campaign_no, capacity=None) is Planning.OVERTAKEN


async def test_what_fails_again_while_the_walk_goes_on_is_not_collected_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await many(database, monkeypatch)
    for _ in range(2):
        await retry(database)
        worker = engine(database)
        while (await read(database)).status == "IN_PROGRESS":
            await worker.turn()
            await exact(database, campaign)
    async with database.read() as session:
        moved = await session.execute(select(col(Batch.batch_no)).where(col(Batch.failed) > 0))
        plan = await session.get_one(Plan, campaign.campaign_no)
    assert len(moved.all()) < plan.last_batch_no
    assert (await sums(database, campaign)).failed == 45


async def test_walkers_side_by_side_move_each_recipient_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    while not (await sums(database, campaign)).planned:
        walked = await asyncio.gather(*(retry_chunk(database, campaign.campaign_no) for _ in range(3)))
        assert sum(outcome is not Planning.OVERTAKEN for outcome in walked) >= 1
        await exact(database, campaign)
    assert (await sums(database, campaign)).pending == 45


async def test_the_audience_is_not_planned_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    assert await planning.plan_chunk(database, campaign.campaign_no, capacity=None) is Planning.OVERTAKEN
    assert (await sums(database, campaign)).targets == 120


@pytest.mark.parametrize("chunks", [0, 1, 4])
async def test_paused_in_the_middle_the_walk_goes_on_and_nothing_is_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    campaign = await many(database, monkeypatch)
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id).in_(ODDS)).values(custom={"number": 1}))
    await retry(database)
    for _ in range(chunks):
        await retry_chunk(database, campaign.campaign_no)
    await act(database, "pause")
    worker = engine(database)
    for _ in range(20):
        await worker.turn()
    seen = await sums(database, campaign)
    assert (seen.sent, seen.pending, seen.planned) == (30, 45, True)
    await exact(database, campaign)
    await resume(database, capacity=1_000)
    completed = await work(database, monthly_messages=1_000)
    assert completed.final_stats is not None and completed.final_stats["sent"] == 75
    await exact(database, campaign)


@pytest.mark.parametrize("chunks", [0, 1, 4, 99])
async def test_after_a_stop_what_was_not_moved_keeps_its_old_outcome(
    database: Database, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    for _ in range(chunks):
        await retry_chunk(database, campaign.campaign_no)
    seen = await sums(database, campaign)
    stopped = await act(database, "stop")
    assert stopped.final_stats is not None
    assert await retry_chunk(database, campaign.campaign_no) is Planning.OVERTAKEN
    assert (await sums(database, campaign)).pending == seen.pending
    assert list((await outcomes(database, campaign)).values()).count("FAILED RENDER_ERROR") == seen.failed
    await exact(database, campaign)
    async with database.read() as session:
        shown = (await stats.of(session, [stopped]))[campaign.campaign_no]
    assert 0.6 < shown.progress < 1.0
    await release(database, campaign)
    async with database.read() as session:
        assert await usage.used(session, datetime.now(UTC)) == 30


async def test_stop_at_ends_it_in_the_middle(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    await retry_chunk(database, campaign.campaign_no)
    await set_columns(database, stop_at=LONG_AGO)
    assert await retry_chunk(database, campaign.campaign_no) is Planning.OVERTAKEN
    assert (await come_due(database, stop_at=LONG_AGO)).status_reason == "STOP_AT_REACHED"
    await exact(database, campaign)


async def test_a_crash_in_the_middle_of_a_chunk_leaves_nothing_of_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await many(database, monkeypatch)
    await retry(database)
    await retry_chunk(database, campaign.campaign_no)
    before = await sums(database, campaign)
    with monkeypatch.context() as patch:

        async def killed(*_: object) -> None:
            raise asyncio.CancelledError

        patch.setattr(retrying, "ensure_running", killed)
        with pytest.raises(asyncio.CancelledError):
            await retry_chunk(database, campaign.campaign_no)
    assert await sums(database, campaign) == before
    await exact(database, campaign)
    assert (await work(database)).status == "COMPLETED"
    await exact(database, campaign)


async def test_progress_falls_by_a_retry_and_its_estimate_is_the_audience_as_it_was(
    database: Database,
) -> None:
    segment = await add_list(database, 1, ["ann", "odd"])
    await in_status(database, Status.COMPLETED, user_ids=None, segment_ids=[segment])
    async with database.transaction() as session:
        await session.execute(update(Segment).values(size=1_000))  # it has grown since: that is not sent to
    await retry(database)
    async with database.read() as session:
        shown = await stats.by_id(session, "news")
    assert shown is not None
    assert (shown.stats.estimate, shown.stats.progress, shown.stats.completed_at) == (2, 0.999, None)
    await retry_chunk(database, shown.campaign.campaign_no)
    async with database.read() as session:
        shown = await stats.by_id(session, "news")
    assert shown is not None and shown.stats.progress == 0.5
    assert (await work(database)).status == "COMPLETED"

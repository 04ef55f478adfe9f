"""SEMANTICS, "Capacity": reserved at start, given back at the end, never taken twice, month by month."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import lifecycle, pruning, queries
from app.campaigns.models import Campaign
from app.database import Database
from app.errors import Conflict, NotFound, QuotaExceeded
from app.ledger.models import Plan
from app.segments import service as segments
from app.segments.models import Segment, SegmentTarget
from app.sending import planning
from app.usage import service as usage
from app.usage.models import Usage
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    create,
    engine,
    read,
    start,
    work,
)
from tests.semantics.acting import (
    LONG_AGO,
    act,
    come_due,
    events,
    release,
    resume,
    schedule,
)

THIS_MONTH = usage.period_of(datetime.now(UTC))
THAT_MONTH = "2020-01"
RECEIVERS = [f"u{number:02}" for number in range(10)]


@pytest.fixture(autouse=True)
async def receivers(database: Database) -> None:
    """A sender and ten users."""
    await add_users(database, ["sender", *RECEIVERS])


async def used(database: Database, period: str = THIS_MONTH) -> int:
    """What is taken of a month; never less than nothing in any."""
    async with database.read() as session:
        months = {month.period: month.messages for month in (await session.execute(select(Usage))).scalars()}
    assert all(messages >= 0 for messages in months.values())
    return months.get(period, 0)


async def move_to_that_month(database: Database) -> None:
    """As if everything so far had happened in another month."""
    async with database.transaction() as session:
        await session.execute(update(Usage).values(period=THAT_MONTH))
        await session.execute(update(Plan).values(period=THAT_MONTH))


async def half_sent(database: Database, monkeypatch: pytest.MonkeyPatch, capacity: int = 10) -> Campaign:
    """A paused campaign to the ten: three were sent, four are planned, three are not."""
    monkeypatch.setattr(planning, "BATCH", 3)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 7)
    monkeypatch.setattr(planning, "CHUNK", 3)
    await create(database, user_ids=RECEIVERS)
    await start(database, capacity=capacity)
    await engine(database, monthly_messages=capacity).turn()
    campaign = await act(database, "pause")
    counted = await books(database, campaign)
    assert (counted.sent, counted.pending, counted.planned) == (3, 4, False)
    return campaign


async def quota(database: Database, call: Any) -> dict[str, Any]:
    """The details of a refusal."""
    with pytest.raises(QuotaExceeded) as raised:
        await call
    assert raised.value.details is not None
    return raised.value.details


# ------------------------------------------------------------------ start


async def test_start_is_refused_with_needed_left_and_resets_when(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    told = await quota(database, start(database, capacity=9))
    assert (told["needed"], told["left"]) == (10, 9)
    assert datetime.fromisoformat(told["resetsAt"]) == usage.period_bounds(datetime.now(UTC))[1]
    assert ((await read(database)).status, await used(database)) == ("DRAFT", 0)
    assert (await start(database, capacity=10)).status == "IN_PROGRESS"
    assert await used(database) == 10


async def test_unlimited_by_default_and_counted_nevertheless(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    await start(database)
    assert await used(database) == 0  # planning adds what it finds
    await work(database)
    assert await used(database) == 10


async def test_a_campaign_that_cannot_start_says_so_before_anything_is_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(database, user_ids=RECEIVERS)
    await start(database, capacity=10)

    async def counted(*_: Any, **__: Any) -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(segments, "count_members", counted)
    with pytest.raises(Conflict, match="started already"):
        await room.needed_to_start(database, "news", 10)
    with pytest.raises(Conflict, match="not paused"):
        await room.needed_to_resume(database, "news", 10)
    with pytest.raises(NotFound):
        await room.needed_to_start(database, "none", 10)
    with pytest.raises(Conflict, match="started already"):  # it is full now, but that is not the reason
        await act(database, "start", scheduled_for=None, stop_at=None, capacity=10, needed=10)
    assert await used(database) == 10


async def test_overlapping_segments_need_each_target_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "COUNT_WIDTH", 2)
    lists = [await add_list(database, number, RECEIVERS[number : number + 6]) for number in range(4)]
    async with database.transaction() as session:
        await session.execute(
            update(Segment).where(col(Segment.segment_no) == 3).values(kind="FILTER", filter={"id": "u09"})
        )
    await create(database, segment_ids=lists)
    assert await room.needed_to_start(database, "news", 100) == 9  # u00 to u07 by lists, u09 by its filter


async def test_an_audience_of_channels_needs_a_message_each(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "COUNT_WIDTH", 2)
    cids = [f"messaging:c{number}" for number in range(5)]
    for cid in cids:
        await add_channel(database, cid, ["sender", "u01", "u02"] if cid < "messaging:c3" else ["u01"])
    lists = [await add_list(database, number, ["messaging:c0", "other:1"], "CHANNEL") for number in (1, 2, 3)]
    async with database.transaction() as session:
        for number, columns in {
            2: {"kind": "ALL_SENDER_CHANNELS"},
            3: {"kind": "FILTER", "filter": {"member_count": {"$lt": 2}}},
        }.items():
            await session.execute(update(Segment).where(col(Segment.segment_no) == number).values(**columns))
    await create(database, segment_ids=lists)
    assert await room.needed_to_start(database, "news", 100) == 6
    for segment, needed in zip(lists, (2, 3, 2), strict=True):
        await act(database, "update", given={"segment_ids": [segment]})
        assert await room.needed_to_start(database, "news", 100) == needed


async def test_a_plan_that_turns_out_larger_pauses_with_that_reason(database: Database) -> None:
    segment = await add_list(database, 1, RECEIVERS[:4])
    await create(database, segment_ids=[segment])
    await start(database, capacity=6)
    async with database.transaction() as session:
        await segments.add_targets(session, segment, RECEIVERS)
    paused = await work(database, monthly_messages=6)
    assert (paused.status, paused.status_reason) == ("PAUSED", "QUOTA_EXCEEDED")
    assert "needs 6 messages, 2 of 6 are left" in str(paused.status_message)
    assert await used(database) == 4
    assert (await quota(database, resume(database, 6)))["needed"] == 10
    assert await events(database) == ["campaign.started", "campaign.paused"]
    assert (await resume(database, 10)).status_reason is None
    assert (await work(database, monthly_messages=10)).status == "COMPLETED"
    assert await used(database) == 10


async def test_two_starts_cannot_both_take_the_last_of_it(database: Database) -> None:
    for number in range(4):
        await create(database, f"c{number}", user_ids=RECEIVERS[:4])
    results = await asyncio.gather(
        *(start(database, f"c{number}", capacity=9) for number in range(4)), return_exceptions=True
    )
    assert sorted(getattr(result, "code", "started") for result in results) == [
        *["QUOTA_EXCEEDED"] * 2,
        *["started"] * 2,
    ]
    assert await used(database) == 8


async def test_two_starts_of_the_same_campaign_are_a_conflict_however_little_is_left(
    database: Database,
) -> None:
    await create(database, user_ids=RECEIVERS)
    results = await asyncio.gather(*(start(database, capacity=10) for _ in range(3)), return_exceptions=True)
    assert sorted(getattr(result, "code", "started") for result in results) == ["CONFLICT"] * 2 + ["started"]
    assert await used(database) == 10


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize(
    ("end", "left"), [("skipped", 2), ("stopped", 3)], ids=["what was skipped", "what was stopped"]
)
async def test_is_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch, end: str, left: int
) -> None:
    if end == "skipped":
        await create(database, user_ids=["sender", "u01", "u02", "nobody"])
        await start(database, capacity=4)
        campaign = await work(database, monthly_messages=4)
    else:
        campaign = await half_sent(database, monkeypatch)
        await act(database, "stop")
    for _ in range(2):  # once, however often housekeeping comes round
        async with database.read() as session:
            for number in await room.unreleased(session):
                assert number == campaign.campaign_no
        await release(database, campaign)
    assert await used(database) == left


async def test_deleting_campaigns_frees_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: Any) -> None:
        """The worker is gone between the end and giving back."""

    await create(database, user_ids=[*RECEIVERS, "nobody"])
    await start(database, capacity=11)
    with monkeypatch.context() as dying:
        dying.setattr(room, "release_unsent", die)
        campaign = await work(database, monthly_messages=11)
    await act(database, "remove")
    await pruning.clear(database, campaign.campaign_no)  # waits until what it holds is given back
    assert await used(database) == 11
    await release(database, campaign)
    await pruning.clear(database, campaign.campaign_no)
    assert await used(database) == 10
    async with database.read() as session:
        assert await session.get(Plan, campaign.campaign_no) is None


# ------------------------------------------------------------------ resume and due schedules check again


async def test_resume_checks_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await half_sent(database, monkeypatch)
    async with database.transaction() as session:  # the capacity was lowered, and others came
        await usage.reserve(session, THIS_MONTH, 5, None)
    told = await quota(database, resume(database, 14))
    assert (told["needed"], told["left"]) == (7, 6)
    assert (await read(database)).status == "PAUSED" and await used(database) == 15
    await resume(database, 15)
    await work(database, monthly_messages=15)
    await release(database, campaign)
    assert (await used(database), (await books(database, campaign)).sent) == (15, 10)


@pytest.mark.parametrize("capacity", [None, 7])
async def test_resumed_in_another_month_it_counts_what_it_sends_then_in_that_month(
    database: Database, monkeypatch: pytest.MonkeyPatch, capacity: int | None
) -> None:
    campaign = await half_sent(database, monkeypatch)
    await move_to_that_month(database)
    if capacity is not None:
        assert (await quota(database, resume(database, 6)))["left"] == 6
    await resume(database, capacity)
    assert (await used(database, THAT_MONTH), await used(database)) == (3, 7)
    completed = await work(database, monthly_messages=capacity)
    assert completed.status == "COMPLETED"
    await release(database, campaign)
    assert (await used(database, THAT_MONTH), await used(database)) == (3, 7)


async def test_what_was_skipped_before_does_not_count_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 5)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 5)
    monkeypatch.setattr(planning, "CHUNK", 5)
    await create(database, user_ids=[*(f"nobody-{number}" for number in range(5)), *RECEIVERS])
    await start(database, capacity=15)
    await engine(database, monthly_messages=15).turn()
    campaign = await act(database, "pause")
    assert (await books(database, campaign)).skipped == 5
    await move_to_that_month(database)
    await resume(database, 10)
    assert (await work(database, monthly_messages=10)).status == "COMPLETED"  # it fits: no second pause
    await release(database, campaign)
    assert (await used(database, THAT_MONTH), await used(database)) == (0, 10)


async def test_what_is_planned_while_it_is_counted_is_needed_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await half_sent(database, monkeypatch)
    needed = await room.needed_to_resume(database, "news", 10)
    await planning.plan_chunk(database, campaign.campaign_no, capacity=10)
    await act(database, "resume", capacity=10, needed=needed)
    assert (needed, await used(database)) == (7, 10)
    assert (await work(database, monthly_messages=10)).status == "COMPLETED"
    assert await used(database) == 10


async def test_a_campaign_that_runs_on_into_another_month_counts_in_the_month_of_its_start(
    database: Database,
) -> None:
    await create(database, user_ids=[*RECEIVERS, "nobody"])
    await start(database, capacity=11)
    await move_to_that_month(database)
    campaign = await work(database, monthly_messages=11)
    await release(database, campaign)
    assert (await used(database, THAT_MONTH), await used(database)) == (10, 0)


async def test_due_schedules_check_again(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    await schedule(database, capacity=10)
    assert await used(database) == 0  # a schedule takes nothing until it is due
    async with database.transaction() as session:
        await usage.reserve(session, THIS_MONTH, 1, None)
    stopped = await come_due(database, 10, scheduled_for=LONG_AGO)
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "NOT_STARTABLE")
    assert "needs 10 messages, 9 of 10 are left" in str(stopped.status_message)
    assert await used(database) == 1


async def test_a_due_schedule_that_fits_takes_what_it_needs(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    await schedule(database, capacity=10)
    assert (await come_due(database, 10, scheduled_for=LONG_AGO)).status == "IN_PROGRESS"
    assert await used(database) == 10


async def test_a_schedule_that_can_never_fit_is_refused_at_once(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    next_month = usage.period_bounds(datetime.now(UTC))[1] + timedelta(days=3)
    async with database.transaction() as session:  # this month is full, which does not matter then
        await usage.reserve(session, THIS_MONTH, 10, None)
    told = await quota(database, schedule(database, next_month, capacity=9))
    assert (told["needed"], told["left"]) == (10, 9)
    assert (await schedule(database, next_month, capacity=10)).status == "SCHEDULED"


async def test_nothing_is_kept_for_a_schedule_that_was_moved_when_it_was_due(database: Database) -> None:
    await create(database, user_ids=RECEIVERS)
    campaign = await schedule(database, capacity=10)
    async with database.transaction() as session:
        assert await lifecycle.settle_due(session, campaign.campaign_no, 10, 10) is None
    assert await used(database) == 0


# ------------------------------------------------------------------ one month's row


async def test_reserving_and_giving_back_at_once_never_takes_more_than_there_is(database: Database) -> None:
    async def one(number: int) -> int:
        try:
            async with database.transaction() as session:
                await usage.reserve(session, THIS_MONTH, number, 12)
        except QuotaExceeded:
            return 0
        return number

    taken = sum(await asyncio.gather(*(one(number) for number in (5, 4, 3, 2, 1, 5, 4, 3))))
    assert taken == await used(database) <= 12
    async with database.transaction() as session:
        await usage.release(session, THIS_MONTH, taken)
    assert await used(database) == 0


async def test_a_refusal_takes_nothing(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(QuotaExceeded, match="This needs 3 messages, 2 of 2 are left"):
            await usage.reserve(session, THIS_MONTH, 3, 2)
        await usage.reserve(session, THIS_MONTH, 2, 2)
        with pytest.raises(QuotaExceeded):
            await usage.check_room(session, THIS_MONTH, 1, 2)
    assert await used(database) == 2


async def test_the_audience_is_counted_from_what_it_names_now(database: Database) -> None:
    segment = await add_list(database, 1, RECEIVERS[:2])
    await create(database, segment_ids=[segment])
    async with database.transaction() as session:
        await segments.add_targets(session, segment, RECEIVERS)
        assert await session.get(SegmentTarget, (1, "u09")) is not None
        assert (await queries.segments_of(session, [0]))[0] == []
    assert await room.needed_to_start(database, "news", 10) == 10


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_resume_never_acts_on_another_campaign_that_has_taken_the_id(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is locked before its row: the campaign may be deleted, and its id taken, in between."""
    await create(database, user_ids=RECEIVERS)
    await start(database, capacity=100)
    first = await act(database, "pause")
    locked_plan = queries.locked_plan

    async def after_it_was_replaced(session: Any, campaign_no: int) -> Any:
        async with database.transaction() as other:
            await other.execute(update(Campaign).values(deleted_at=datetime.now(UTC)))
        await create(database, user_ids=RECEIVERS)
        return await locked_plan(session, campaign_no)

    monkeypatch.setattr(queries, "locked_plan", after_it_was_replaced)
    with pytest.raises(NotFound):
        await act(database, "resume", capacity=100, needed=10)
    async with database.read() as session:
        plan = await session.get_one(Plan, first.campaign_no)
    assert plan.reserved == 10
    assert await used(database) == 10

"""Several batches in one worker's hands at once: each goes out once, and none suffers for another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from psycopg import OperationalError
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.database import Database
from app.ledger.models import Batch
from app.sending import batches, faults, opening, planning
from app.sending import engine as sending
from app.sending.engine import Engine
from tests.api.counting import statements
from tests.integration.campaigning import (
    add_users,
    books,
    create,
    engine,
    let_break,
    messages,
    outcomes,
    read,
    start,
)
from workers import sending as loops
from workers.sending import SendingLoop

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

PEOPLE = [f"u{number:03}" for number in range(60)]
PATIENCE = 60.0  # for what a busy machine delays, and no test is about


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of five, planned twenty at a time."""
    monkeypatch.setattr(planning, "BATCH", 5)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 5)
    monkeypatch.setattr(planning, "CHUNK", 20)


async def started(database: Database, names: tuple[str, ...] = ("news",)) -> None:
    """Campaigns to everybody, that run."""
    await add_users(database, ["sender", *PEOPLE])
    for name in names:
        await create(database, name, user_ids=PEOPLE)
        await start(database, name)


@asynccontextmanager
async def at_work(worker: Engine, lanes: int = 2) -> AsyncIterator[asyncio.Event]:
    """The worker in that many lanes; gives what stops it. In the end it has stopped."""
    stopping = asyncio.Event()
    running = asyncio.create_task(SendingLoop(worker, lanes).run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        await running


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    """Looks until it is so; a test that never gets there fails."""
    async with asyncio.timeout(PATIENCE):
        while not await found():
            await asyncio.sleep(0.05)


async def until_completed(database: Database, *names: str) -> list[Campaign]:
    """The campaigns, once all are."""

    async def completed() -> bool:
        return all([(await read(database, name)).status == "COMPLETED" for name in names])

    await until(completed)
    return [await read(database, name) for name in names]


class Hands:
    """How many batches are in hand while they are delivered; the first waits for a second, however long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.most = 0, 0
        self.two, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self._deliver = batches.deliver
        monkeypatch.setattr(opening, "LONGEST_TRANSACTION", "60s")
        monkeypatch.setattr(batches, "deliver", self._watched)

    async def _watched(self, *given: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == 2:
            self.two.set()
        try:
            await self.two.wait()
            await self.go_on.wait()
            return await self._deliver(*given)
        finally:
            self.now -= 1


async def test_two_lanes_share_a_campaign_and_send_each_message_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(monkeypatch)
    await started(database)
    async with at_work(engine(database)):
        (campaign,) = await until_completed(database, "news")
    assert hands.most == 2
    assert (await books(database, campaign)).sent == 60
    assert sorted(message.target_id or "" for message in await messages(database)) == PEOPLE


async def test_a_start_that_nobody_rings_for_has_all_lanes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them looks every two seconds, and rouses the others, which look never; again after each
    campaign."""
    await add_users(database, ["sender", *PEOPLE])
    worker = engine(database)
    async with at_work(worker, lanes=3):
        for name in ("news", "more"):
            await until(partial(_is_idle, worker))
            await asyncio.sleep(0.5)  # all sleep by now
            await create(database, name, user_ids=PEOPLE)
            hands = Hands(monkeypatch)
            await start(database, name)
            await asyncio.wait_for(hands.two.wait(), PATIENCE)
            (campaign,) = await until_completed(database, name)
            assert (await books(database, campaign)).sent == 60


async def test_a_batch_that_a_lane_has_picked_is_no_other_lane_s_to_try(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before it is locked: two tries would be counted, and all lanes wait for the second."""
    picked, may_lock, send = asyncio.Event(), asyncio.Event(), batches.send_slice

    async def held_up(*given: Any) -> Any:
        picked.set()
        await may_lock.wait()
        return await send(*given)

    monkeypatch.setattr(planning, "BATCH", 100)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    monkeypatch.setattr(batches, "send_slice", held_up)
    await started(database)
    worker = engine(database)
    first = asyncio.create_task(worker.turn())
    await asyncio.wait_for(picked.wait(), PATIENCE)
    async with asyncio.timeout(PATIENCE):
        assert await worker.turn() > 0  # it waits for others at work
    async with database.read() as session:
        assert (await session.execute(select(col(Batch.attempts)))).scalars().all() == [1]
    may_lock.set()
    await first
    assert (await books(database, await read(database))).sent == 60


async def test_a_batch_that_could_not_be_given_back_is_tried_again_as_if_it_never_had_been(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 100)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    monkeypatch.setattr(faults, "FIRST_BACKOFF_SECONDS", 0)
    await started(database)
    worker, tries, send = engine(database), list[int](), batches.send_slice

    async def taken(*_: Any) -> Any:
        raise batches.MembersChanged

    async def away(*_: Any) -> None:
        raise OperationalError("the database is away")

    async def counted(session: AsyncSession, *given: Any) -> Any:
        tries.extend((await session.execute(select(col(Batch.attempts)))).scalars())
        return await send(session, *given)

    with monkeypatch.context() as patched:
        patched.setattr(batches, "send_slice", taken)
        patched.setattr(batches, "forgive", away)
        await worker.turn()
    monkeypatch.setattr(batches, "send_slice", counted)
    while (await read(database)).status != "COMPLETED":
        await worker.turn()
    assert tries == [1]
    assert (await books(database, await read(database))).sent == 60


async def test_a_try_too_many_is_gone_before_anybody_else_can_pick_the_batch(database: Database) -> None:
    """Whoever holds it may give it back as well: with a lock on its channel held for two seconds, a healthy
    target counted ten tries and was FAILED."""
    await started(database)
    number, hands = (await read(database)).campaign_no, engine(database)._hands
    await planning.plan_chunk(database, number, capacity=None)
    held = await hands.take(number)
    assert held is not None and await hands.take(number) is None  # of the same worker: given back at once
    hands.put_down(number, held.picked.batch_no)
    again = await hands.take(number)
    assert again is not None and again.picked.attempts == 2
    async with database.transaction() as session:
        await opening.open_batch(session, number, held.picked.batch_no)
        giving_back = asyncio.create_task(engine(database)._hands.give_back(number, held.picked.batch_no))
        done, _ = await asyncio.wait([giving_back], timeout=0.5)
        assert not done
        async with database.transaction() as other:
            assert await batches.pick(other, number) is None
    await asyncio.wait_for(giving_back, PATIENCE)
    async with database.read() as session:
        assert (await session.execute(select(col(Batch.attempts)))).scalars().all() == [1]


async def test_a_batch_that_waits_to_be_alone_when_it_is_told_to_stop_is_untried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    await started(database)
    worker, number = engine(database), (await read(database)).campaign_no
    await planning.plan_chunk(database, number, capacity=None)
    async with database.transaction() as session:
        await session.execute(update(Batch).values(attempts=1))
    async with worker._gate.together():
        turn = asyncio.create_task(worker.turn())
        while not (worker._hands._in_hand and worker._gate._entry.locked()):
            await asyncio.sleep(0.01)
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
    await worker.let_go()
    assert not worker._hands._in_hand
    async with database.read() as session:
        assert set((await session.execute(select(col(Batch.attempts)))).scalars()) == {1}


async def _is_idle(worker: Engine) -> bool:
    return worker.is_idle


async def test_of_many_lanes_that_have_nothing_to_do_one_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "IDLE_SECONDS", 0.1)
    with statements() as asked:
        async with at_work(engine(database), lanes=8):
            await asyncio.sleep(1)
    looks = [each for each in asked if "FROM campaigns" in each]
    assert 3 <= len(looks) <= 8 + 11  # each lane as it begins


async def test_a_campaign_that_waits_keeps_no_lane_from_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(monkeypatch)
    await started(database)
    await create(database, "slow", user_ids=PEOPLE, max_messages_per_second=1)
    slow, worker = await start(database, "slow"), engine(database)
    worker._free_at[slow.campaign_no] = asyncio.get_running_loop().time() + 600
    async with at_work(worker):
        await asyncio.wait_for(hands.two.wait(), PATIENCE)
        await until_completed(database, "news")
    assert (await books(database, await read(database, "slow"))).sent == 0


async def test_one_lane_at_a_time_plans_a_campaign(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole turn of the other one goes by without."""
    planning_now, most, picks, plan, pick = 0, 0, 0, sending.plan_chunk, batches.pick

    async def counted(*given: Any, **how: Any) -> Any:
        nonlocal picks
        picks += 1
        return await pick(*given, **how)

    async def watched(*given: Any, **how: Any) -> Any:
        nonlocal planning_now, most
        planning_now, before = planning_now + 1, picks
        most = max(most, planning_now)
        try:
            async with asyncio.timeout(PATIENCE):
                while picks < before + 2 and most == 1:
                    await asyncio.sleep(0.01)
            return await plan(*given, **how)
        finally:
            planning_now -= 1

    monkeypatch.setattr(batches, "pick", counted)
    monkeypatch.setattr(sending, "plan_chunk", watched)
    await started(database)
    async with at_work(engine(database)):
        (campaign,) = await until_completed(database, "news")
    assert (await books(database, campaign)).sent == 60
    assert most == 1


async def test_a_recipient_that_breaks_its_batch_fails_alone_beside_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_break(monkeypatch, "u013")
    await started(database)
    async with at_work(engine(database)):
        (campaign,) = await until_completed(database, "news")
    counted = await books(database, campaign)
    assert (counted.sent, counted.failed) == (59, 1)
    assert (await outcomes(database, campaign))["u013"] == "FAILED INTERNAL_ERROR"


async def test_a_batch_that_failed_before_is_the_only_one_in_hand(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it kills the worker, no try of another is counted."""
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    await started(database)
    worker, now = engine(database), 0
    await planning.plan_chunk(database, (await read(database)).campaign_no, capacity=None)
    async with database.transaction() as session:
        for batch in (
            await session.execute(select(Batch).where(col(Batch.batch_no).in_([3, 4, 9])))
        ).scalars():
            batch.attempts = 1
    beside, send = list[tuple[bool, int]](), batches.send_slice

    async def watched(session: Any, campaign_no: int, batch_no: int, *given: Any) -> Any:
        nonlocal now
        now += 1
        await asyncio.sleep(0)
        beside.append((batch_no in (3, 4, 9), now))
        try:
            return await send(session, campaign_no, batch_no, *given)
        finally:
            beside.append((batch_no in (3, 4, 9), now))
            now -= 1

    monkeypatch.setattr(batches, "send_slice", watched)
    async with at_work(worker, 3):
        await until_completed(database, "news")
    assert {at_once for failed, at_once in beside if failed} == {1}
    assert max(at_once for _, at_once in beside) > 1


async def test_told_to_stop_it_finishes_what_is_in_hand_and_takes_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(monkeypatch)
    hands.go_on.clear()
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    await started(database)
    async with at_work(engine(database)) as stopping:
        await asyncio.wait_for(hands.two.wait(), PATIENCE)
        stopping.set()
        hands.go_on.set()
    async with database.read() as session:
        tried = await session.execute(select(col(Batch.attempts)).where(col(Batch.pending) > 0))
        assert set(tried.scalars()) == {0}
    assert (await books(database, await read(database))).sent == 10


@pytest.mark.parametrize("backoff", [60.0, 0.0])
async def test_what_fails_for_two_lanes_at_once_is_one_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch, backoff: float
) -> None:
    """However late the other one notices."""
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    both = asyncio.Barrier(2)

    async def away(*_: Any) -> None:
        await asyncio.sleep(0.2 * await both.wait())
        raise OperationalError("the database is away")

    monkeypatch.setattr(batches, "send_slice", away)
    monkeypatch.setattr(faults, "FIRST_BACKOFF_SECONDS", backoff)
    monkeypatch.setattr(faults, "MAX_BACKOFF_SECONDS", backoff)
    await started(database)
    worker = engine(database)
    number = (await read(database)).campaign_no
    await planning.plan_chunk(database, number, capacity=None)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(worker.turn(), worker.turn())
    assert worker._faults.backoff[number].faults == 1
    assert len(worker._hands._owed) == 2
    monkeypatch.undo()
    await worker.let_go()
    async with database.read() as session:
        assert set((await session.execute(select(col(Batch.attempts)))).scalars()) == {0}


async def test_batches_that_a_stop_does_not_wait_for_are_given_back_untried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(monkeypatch)
    await started(database)
    hands.go_on.clear()
    running = asyncio.create_task(SendingLoop(engine(database), 2).run(asyncio.Event()))
    await asyncio.wait_for(hands.two.wait(), PATIENCE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with database.read() as session:
        assert set((await session.execute(select(col(Batch.attempts)))).scalars()) == {0}
    hands.go_on.set()
    async with at_work(engine(database)):
        (campaign,) = await until_completed(database, "news")
    assert (await books(database, campaign)).sent == 60

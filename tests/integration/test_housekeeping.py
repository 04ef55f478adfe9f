"""What housekeeping finds by its one look, on both databases. A lost ring costs two seconds at most."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app.campaigns.states import Status
from app.database import Database
from app.ledger.models import Plan
from app.segments import queries as segments
from app.segments import service
from app.settings import Settings, load
from app.users import service as users
from app.users.models import Erasure
from tests.api.counting import statements
from tests.integration.campaigning import Silent, add_users, create, engine, read, start, work
from tests.semantics.acting import LONG_AGO, schedule, set_columns, settle
from workers import outlook as outlooks
from workers import sending as loops
from workers.housekeeping import Housekeeping
from workers.outlook import Outlook, look
from workers.sending import SendingLoop

PEOPLE = [f"u{number:02}" for number in range(20)]
PATIENCE = 60.0  # for what a busy machine delays, and no test is about


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a worker without limits."""
    return load(database_url=database_url, data_dir=tmp_path)


@pytest.fixture
def sending(database: Database) -> SendingLoop:
    """A worker's loop, which does not run yet."""
    return SendingLoop(engine(database))


@pytest.fixture
def housekeeping(settings: Settings, database: Database, sending: SendingLoop) -> Housekeeping:
    """Its housekeeping."""
    return Housekeeping(settings, database, Silent(), sending)  # type: ignore[arg-type]


@asynccontextmanager
async def running(*loops: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncIterator[None]:
    """These, until the block ends."""
    stopping = asyncio.Event()
    tasks = [asyncio.ensure_future(loop(stopping)) for loop in loops]
    try:
        yield
    finally:  # what is left at work by a test that fails fails another one
        stopping.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await found():
            await asyncio.sleep(0.01)


async def outlook(database: Database) -> Outlook:
    async with database.read() as session:
        return await look(session)


async def drafted(database: Database) -> None:
    """A campaign to everybody."""
    await add_users(database, ["sender", *PEOPLE])
    await create(database, user_ids=PEOPLE)


async def test_with_nothing_to_do_a_round_is_one_statement(
    database: Database, housekeeping: Housekeeping
) -> None:
    await drafted(database)
    await start(database)
    await work(database)
    with statements() as asked:
        assert await housekeeping._round() == 2
    assert len([each for each in asked if "clock_timestamp" not in each]) == 1


async def test_a_look_sees_everything_that_waits(database: Database) -> None:
    await drafted(database)
    nothing = await outlook(database)
    assert (nothing.next_due, nothing.is_due) == (None, False)
    assert not (nothing.unreleased or nothing.computing or nothing.erasing)

    await start(database)
    campaign = await work(database)
    assert not (await outlook(database)).unreleased
    async with database.transaction() as session:
        await session.execute(update(Plan).values(reserved=1))
        given = {"segment_id": "all", "type": "USER", "filter": {"role": {"$eq": "user"}}}
        segment = await service.create(session, given)
        await users.bury(session, ["u00"], erase_messages=False)
    found = await outlook(database)
    assert found.unreleased and found.computing and found.erasing

    async with database.transaction() as session:
        await session.execute(update(Plan).values(reserved=0))
    await service.count_size(database, segment.segment_no)
    async with database.transaction() as session:
        await session.delete(await session.get(Erasure, "u00"))
    found = await outlook(database)
    assert not (found.unreleased or found.computing or found.erasing)
    assert campaign.status == Status.COMPLETED


@pytest.mark.parametrize("column", ["scheduled_for", "stop_at", "resume_at"])
async def test_a_look_sees_what_comes_due_and_when(database: Database, column: str) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    await drafted(database)
    await schedule(database, soon + timedelta(hours=1))
    await set_columns(database, **{column: soon})
    found = await outlook(database)
    assert (found.next_due, found.is_due) == (soon, False)
    await set_columns(database, **{column: LONG_AGO})
    found = await outlook(database)
    assert (found.next_due, found.is_due) == (LONG_AGO, True)


async def test_a_time_of_start_means_nothing_once_it_runs(database: Database) -> None:
    await drafted(database)
    await start(database)
    await set_columns(database, scheduled_for=LONG_AGO)
    assert (await outlook(database)).next_due is None


async def test_what_is_asked_to_be_counted_is_without_a_ring(
    database: Database, housekeeping: Housekeeping
) -> None:
    await add_users(database, PEOPLE)
    async with running(housekeeping.run):
        for name in ("one", "other"):
            async with database.transaction() as session:
                given = {"segment_id": name, "type": "USER", "filter": {"role": {"$eq": "user"}}}
                made = await service.create(session, given)

            async def counted(number: int = made.segment_no) -> bool:
                async with database.read() as session:
                    return number not in await segments.computing(session)

            await until(counted)


async def test_a_start_that_nobody_rings_for_is_found_within_two_seconds(
    database: Database, sending: SendingLoop, housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By looking that often; here more often. It has slept before the start, and nobody has woken it."""
    assert loops.IDLE_SECONDS == 2
    monkeypatch.setattr(loops, "IDLE_SECONDS", 0.1)
    looks, turn = 0, sending.engine.turn

    async def counted() -> float:
        nonlocal looks
        looks += 1
        return await turn()

    async def slept() -> bool:
        return looks > 1

    monkeypatch.setattr(sending.engine, "turn", counted)
    await drafted(database)
    async with running(sending.run, housekeeping.run):
        await until(slept)
        await start(database)
        await until(lambda: _is_completed(database))


async def test_what_another_worker_starts_on_time_begins_on_time_here_too(
    database: Database,
    sending: SendingLoop,
    housekeeping: Housekeeping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was seen to come, and so the sender is woken at that time, whoever has started it."""
    woken: list[str] = []
    monkeypatch.setattr(sending, "wake", lambda: woken.append("sender"))
    await drafted(database)
    due = datetime.now(UTC) + timedelta(hours=1)
    number = (await schedule(database, due)).campaign_no
    await housekeeping._round()
    await set_columns(database, scheduled_for=LONG_AGO)
    assert await settle(database, number) is not None
    assert woken == []

    async def then(_: object) -> datetime:
        return due

    monkeypatch.setattr(outlooks, "now", then)
    await housekeeping._round()
    assert woken == ["sender"]
    await housekeeping._round()
    assert woken == ["sender"]


async def _is_completed(database: Database) -> bool:
    return (await read(database)).status == Status.COMPLETED

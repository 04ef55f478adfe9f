"""Reading: what SQLite does in threads, and which connections of PostgreSQL are looked at first."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from app.database import Database
from app.threaded_sqlite import ThreadedConnection
from tests.api.counting import statements

COUNTED = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT count(*) FROM n"
)
FOR_MINUTES = text(COUNTED.format(10**9))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty file."""
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    yield database
    await database.close()


async def test_a_read_that_nobody_waits_for_is_interrupted_and_its_connection_used_again(
    database: Database,
) -> None:
    async def read() -> None:
        async with database.read() as session:
            await session.execute(FOR_MINUTES)

    for _ in range(20):
        with statements() as asked:
            reading = asyncio.create_task(read())
            while not asked:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
    async with database.read() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_who_is_cancelled_again_and_again_leaves_no_statement_behind(tmp_path: Path) -> None:
    """It would run on the connection of whoever has that next. A deadline and a client that goes cancel the
    same read twice."""
    gate, ended = threading.Event(), list[str]()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(gate.wait)  # so that the statement has to wait for its thread
        connection = await ThreadedConnection.opened(str(tmp_path / "empty.db"), threads)
        asking = asyncio.create_task(connection.elsewhere(lambda: ended.append("the statement")))
        for _ in range(10):
            await asyncio.sleep(0)
            asking.cancel()
        left = asking.done()
        gate.set()
        assert not left
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ended == ["the statement"]
        await connection.close()


async def test_a_statement_does_not_hold_the_event_loop_up(database: Database) -> None:
    async with database.read() as session:
        reading = asyncio.ensure_future(session.execute(text(COUNTED.format(300_000))))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await reading).scalar_one() == 300_000
    assert turns > 10


async def test_a_connection_that_the_server_has_ended_meanwhile_is_replaced(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pinging.SECONDS_UNTIL_PING", -1.0)
    database = Database(postgres_database_url, pool_size=1)
    async with database.read() as session:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    with psycopg.connect(postgres_database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    async with database.read() as session:
        assert (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one() != pid
    await database.close()


async def test_a_connection_that_has_just_worked_is_not_pinged(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres_database_url, pool_size=1)
    pinged: list[object] = []
    monkeypatch.setattr(database._writer.dialect, "do_ping", pinged.append)
    for _ in range(5):
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
    assert pinged == []
    await database.close()

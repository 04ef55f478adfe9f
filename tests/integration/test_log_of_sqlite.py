"""SQLite's log: what is moved out of it beside writers; and which connection the next transaction has."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from app import checkpoint
from app.database import Database
from app.sending.ahead import Version, version_of
from tests.integration.campaigning import add_users

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def log_of(directory: Path) -> int:
    """The bytes of the log."""
    return (directory / "carillon.db-wal").stat().st_size


async def test_the_log_is_moved_beside_a_transaction_and_truncated_after_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAL_BYTES_BEFORE_CHECKPOINT", 1)
    monkeypatch.setattr(checkpoint, "_BYTES_LEFT_TO_CHECKPOINT", 1)  # so it comes back until nothing is left
    await add_users(database, [f"u{number}" for number in range(1_000)])
    async with database.transaction() as session:
        await session.execute(text("UPDATE users SET name = 'new'"))
        await database.checkpoint_if_large()
        assert database._checkpoint is not None and database._checkpoint.moved is not None
        await database._checkpoint.moved
        with closing(sqlite3.connect(tmp_path / "carillon.db", timeout=0)) as other:
            _, frames, moved = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            assert frames == moved > 0
            assert other.execute("SELECT count(*) FROM users WHERE name = 'new'").fetchone() == (0,)
    assert log_of(tmp_path) > 0
    await database.checkpoint_if_large()
    assert log_of(tmp_path) == 0


async def test_a_long_read_makes_nobody_wait_for_the_log(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAL_BYTES_BEFORE_CHECKPOINT", 1)
    with closing(sqlite3.connect(tmp_path / "carillon.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        await add_users(database, ["ann"])
        await database.checkpoint_if_large()
        assert database._checkpoint is not None and database._checkpoint.moved is not None
        await database._checkpoint.moved
        await database.checkpoint_if_large()
        assert log_of(tmp_path) > 0
        assert database._checkpoint.not_before > 0  # and for a while nobody tries again


async def test_a_log_that_grew_large_beside_readers_waits_for_them(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads for 0.2 s again and again, and no two begin at once: there is no moment without any."""
    monkeypatch.setattr(checkpoint, "WAL_BYTES_BEFORE_CHECKPOINT", 1)
    monkeypatch.setattr(checkpoint, "_PATIENCE_MILLISECONDS", ((0, 50), (1, 20_000)))
    begun, over = threading.Semaphore(0), threading.Event()

    def read(later: float) -> None:
        over.wait(later)
        with closing(sqlite3.connect(tmp_path / "carillon.db", isolation_level=None)) as reader:
            while not over.is_set():
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM users").fetchone()
                begun.release()
                over.wait(0.2)
                reader.execute("COMMIT")

    reading = asyncio.gather(asyncio.to_thread(read, 0.0), asyncio.to_thread(read, 0.1))
    for _ in range(2):
        await asyncio.to_thread(begun.acquire)
    await add_users(database, ["ann"])
    await database.checkpoint_if_large()
    assert database._checkpoint is not None and database._checkpoint.moved is not None
    await database._checkpoint.moved
    await database.checkpoint_if_large()
    over.set()
    await reading
    assert log_of(tmp_path) == 0


async def versions(database: Database, times: int) -> set[Version | None]:
    """What the connections of some transactions have seen, one after the other, each with a commit."""
    found = set()
    for number in range(times):
        async with database.transaction() as session:
            found.add(await version_of(session))
            await session.execute(text(f"UPDATE users SET name = 'name {number}'"))
    return found


async def test_transactions_one_after_the_other_are_of_one_connection(database: Database) -> None:
    """So what it made ready stands: another connection's commits would be those of a stranger."""
    await add_users(database, ["ann"])
    async with database.opened() as first:  # a second one is opened beside it
        await first.rollback()
        async with database.transaction() as second:
            await second.execute(text("UPDATE users SET name = 'second'"))
    assert len(await versions(database, 5)) == 1

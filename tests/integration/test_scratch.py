"""What is staged ahead of a transaction, in memory: it writes the same whatever becomes of that."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app import scratch
from app.database import Database
from app.scratch import Filled, Scratch
from app.sending import ahead, planning
from app.sending.engine import Engine
from tests.integration.campaigning import add_users, books, create, engine, messages, start, work

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
USERS = [f"u{number:02d}" for number in range(30)]
TABLE = "CREATE TABLE IF NOT EXISTS staged (target_id TEXT)"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database as a worker has it."""
    opened = Database(database_url, durable=False, inline=True)
    yield opened
    await opened.close()


def scratch_of(database: Database) -> Scratch:
    """The memory that its writers share with threads."""
    assert database.scratch is not None
    return database.scratch


def staged_ahead(worker: Engine) -> Filled | None:
    """Where what is made ready is staged already."""
    (held,) = worker._hands._ahead.values()
    assert held.ready is not None and held.ready.entries.alike is not None
    ahead: Filled | None = held.ready.entries.alike.staged_as.ahead
    return ahead


async def second_staged(database: Database, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine after the first of three batches; what is ready does not become old by itself."""
    monkeypatch.setattr(planning, "BATCH", 10)
    monkeypatch.setattr(ahead, "SECONDS_READY", 600.0)
    await add_users(database, ["sender", *USERS])
    await create(database, user_ids=USERS)
    await start(database)
    worker = engine(database)
    await worker.turn()
    return worker


async def check(database: Database) -> None:
    """Sends what is left; each gets its own message."""
    counted = await books(database, await work(database))
    assert counted.sent == len(USERS)
    written = {message.target_id: (message.text, message.cid) for message in await messages(database)}
    assert written == {user: (f"Hello {user.title()}", f"messaging:{user}-news") for user in USERS}


def fill(database: Database, user_id: str) -> Filled | None:
    """Fills one of the two with something else."""
    rows = [("INSERT INTO staged (target_id) VALUES (?)", [user_id])]
    return scratch_of(database).fill("staged", TABLE, rows)


@contextmanager
def reading(schema: str, database: Database) -> Iterator[None]:
    """Somebody reads this one."""
    uri = scratch_of(database)._uris[schema]
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM staged").fetchall()
        yield


async def test_slices_are_read_from_where_they_were_staged(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await second_staged(database, monkeypatch)
    first = staged_ahead(worker)
    assert first is not None and first.stands
    await worker.turn()
    second = staged_ahead(worker)
    assert second is not None and second.schema != first.schema
    assert first.stands and second.stands
    await check(database)


def filled_since(database: Database, ahead: Filled) -> None:
    """Both hold something else now."""
    fill(database, "nobody")
    fill(database, "nobody")
    assert not ahead.stands


def half_filled_since(database: Database, ahead: Filled) -> None:
    """Somebody failed to fill them."""
    for statement in (
        "INSERT INTO staged (target_id) VALUES (?, 1)",
        "INSERT INTO staged (target_id) VALUES (?)",
    ):
        assert scratch_of(database).fill("staged", TABLE, [(statement, ["\ud800"])]) is None
    assert not ahead.stands


@pytest.mark.parametrize("lose", [filled_since, half_filled_since])
async def test_what_does_not_stand_is_staged_by_the_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Database, Filled], None]
) -> None:
    worker = await second_staged(database, monkeypatch)
    ahead = staged_ahead(worker)
    assert ahead is not None
    lose(database, ahead)
    await worker.turn()
    await check(database)


async def test_what_somebody_fills_at_this_moment_is_staged_by_the_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await second_staged(database, monkeypatch)
    ahead = staged_ahead(worker)
    assert ahead is not None
    connection = scratch_of(database)._connections[ahead.schema]
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("DELETE FROM staged")
    await worker.turn()
    connection.execute("COMMIT")
    await check(database)


async def test_what_is_too_large_is_staged_by_the_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_MOST_PAGES", 1)
    small = Database(database_url, durable=False, inline=True)
    worker = await second_staged(small, monkeypatch)
    assert staged_ahead(worker) is None
    await worker.turn()
    await check(small)
    await small.close()


async def test_an_older_sqlite_stages_in_the_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "SHARES_MEMORY", (99, 0, 0))
    older = Database(database_url, durable=False, inline=True)
    assert older.scratch is None
    worker = await second_staged(older, monkeypatch)
    assert staged_ahead(worker) is None
    await check(older)
    await older.close()


async def test_what_is_read_is_not_filled(database: Database) -> None:
    before = fill(database, "ann")
    assert before is not None and fill(database, "bob") is not None
    with reading(before.schema, database):
        assert fill(database, "cat") is None
        assert fill(database, "dan") is not None
    assert fill(database, "eve") is not None


async def test_a_transaction_locks_the_file_from_its_start_and_nothing_else(
    database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "carillon.db", isolation_level=None, timeout=0)
    with closing(other):
        async with database.transaction():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            assert fill(database, "ann") is not None
            assert fill(database, "bob") is not None
        other.execute("BEGIN IMMEDIATE")


async def test_memory_is_free_once_it_is_closed(database_url: str) -> None:
    opened = Database(database_url, durable=False, inline=True)
    fill(opened, "ann")
    uris = scratch_of(opened)._uris.values()
    async with opened.transaction():
        pass
    await opened.close()
    for uri in uris:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)

"""How long a query may take, who waits for whom, and what goes on when nobody waits any more."""

import asyncio
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from app import keyset
from app.database import Database, dialect_of
from app.errors import LimitExceeded
from app.graphql.reading import ReadingDatabase, Turns
from app.settings import Settings
from tests.api.conftest import Client, eventually

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE query = 'SELECT pg_sleep(600)' AND state = 'active' AND datname = current_database()"
)
DEADLINE = 2.0  # short, so that the tests are; what is to be interrupted has begun by then
USERS = "{ users { nodes { userId } } }"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A deadline that does not come."""
    return settings.model_copy(update={"query_seconds": 25})


async def endless(session: AsyncSession) -> None:
    """A statement that ends only when it is interrupted."""
    await session.execute(text(ENDLESS[dialect_of(session)]))


async def stopped(database: Database) -> bool:
    """Whether the server does nothing endless any more. SQLite's thread is waited for by who cancels it."""
    if database.dialect == "sqlite":
        return True
    async with database.read() as session:
        return (await session.execute(text(RUNNING))).scalar_one() == 0


class Slow:
    """What pages do instead of reading: something endless."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: list[BaseException] = []

    async def page(self, session: AsyncSession, *_: Any, **__: Any) -> Any:
        """Takes the connection, and reads for ever."""
        await session.connection()
        self.begun.set()
        try:
            await endless(session)
        except BaseException as error:
            self.ended.append(error)
            raise


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Lists that are never read to their end."""
    found = Slow()
    monkeypatch.setattr(keyset, "page", found.page)
    return found


def is_over(error: dict[str, Any], limit: float) -> bool:
    """Whether this says that the time was over."""
    extensions = error["extensions"]
    return extensions["code"] == "LIMIT_EXCEEDED" and extensions["details"]["limit"] == limit


class TestTooLong:
    """The deadline comes in the middle."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Those of an API that does not read for long."""
        return settings.model_copy(update={"query_seconds": DEADLINE})

    async def test_a_query_that_takes_too_long_is_interrupted(
        self, client: Client, slow: Slow, database: Database
    ) -> None:
        await client.data("{ viewer { name } }")  # who asks is known, and there is a connection
        aliases = " ".join(f"a{each}: users {{ nodes {{ userId }} }}" for each in range(30))
        answer = await client.execute(f"{{ {aliases} }}")
        assert len(answer["errors"]) >= 1
        assert all(is_over(error, DEADLINE) for error in answer["errors"])
        assert 1 <= len(slow.ended) <= 4
        assert all(isinstance(error, asyncio.CancelledError) for error in slow.ended)
        await eventually(lambda: stopped(database))

    async def test_so_is_one_on_a_websocket(self, client: Client, slow: Slow, database: Database) -> None:
        async with client.subscribed(USERS) as subscription:
            message = await subscription.socket.receive_json()
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert is_over(errors[0], DEADLINE)
        await eventually(lambda: stopped(database))


async def test_what_is_asked_by_somebody_who_goes_is_interrupted(
    client: Client, slow: Slow, database: Database
) -> None:
    asking = asyncio.create_task(client.execute(USERS))
    await slow.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await eventually(lambda: _true(bool(slow.ended)))
    await eventually(lambda: stopped(database))


async def _true(value: bool) -> bool:
    return value


async def test_another_key_is_served_while_one_waits(database: Database) -> None:
    turns, loud = Turns(8), 0
    release = asyncio.Event()
    order: list[int] = []

    async def hold(number: int) -> None:
        nonlocal loud
        async with ReadingDatabase(database, turns, "loud", None).read() as session:
            order.append(number)
            await session.execute(text("SELECT 1"))
            loud += 1
            await release.wait()

    holding = [asyncio.create_task(hold(number)) for number in range(20)]
    await eventually(lambda: _true(loud == 4))
    async with ReadingDatabase(database, turns, "quiet", None).read() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    assert loud == 4
    release.set()
    await asyncio.gather(*holding)
    assert order == list(range(20))


async def test_keys_together_leave_connections_to_everybody(database: Database) -> None:
    turns, release, held = Turns(8), asyncio.Event(), 0

    async def hold(key: str) -> None:
        nonlocal held
        async with ReadingDatabase(database, turns, key, None).read() as session:
            await session.execute(text("SELECT 1"))
            held += 1
            await release.wait()

    holding = [asyncio.create_task(hold(f"key {number % 3}")) for number in range(30)]
    await eventually(lambda: _true(held == 6))
    shared = ReadingDatabase(database, turns, "key 0", 25.0, each=True).for_everybody()
    for reading in (database, shared):
        async with reading.read() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    assert held == 6
    release.set()
    await asyncio.gather(*holding)


async def test_a_subscription_has_its_time_for_every_read(database: Database) -> None:
    reading = ReadingDatabase(database, Turns(8), "key", None, each=True)
    for _ in range(2):
        reading._seconds = 0.2
        with pytest.raises(LimitExceeded):
            async with reading.read() as session:
                await endless(session)
        reading._seconds = 25.0  # it may have to connect anew
        async with reading.read() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_what_had_its_time_reads_nothing_more(database: Database) -> None:
    reading = ReadingDatabase(database, Turns(8), "key", 25.0)
    async with reading.read() as session:
        await session.execute(text("SELECT 1"))
    reading.end()
    with pytest.raises(LimitExceeded):
        async with reading.read():
            pytest.fail("it may not begin")


async def test_no_connection_in_time_is_told_as_such(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def page(*_: Any, **__: Any) -> Any:
        raise PoolTimeout("QueuePool limit of size 8 overflow 0 reached")

    monkeypatch.setattr(keyset, "page", page)
    error = await client.error(USERS)
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "details": {"retryAfterSeconds": 1}}
    assert "Traceback" not in capsys.readouterr().out


async def test_nor_one_to_look_the_key_up_with(
    client: Client, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def by_hash(*_: Any) -> Any:
        raise PoolTimeout("QueuePool limit of size 8 overflow 0 reached")

    monkeypatch.setattr("app.keys.queries.by_hash", by_hash)
    headers = {"authorization": "Bearer crl_unknown-so-far", "content-type": "application/json"}
    async with http.post(client.url, data=b"{}", headers=headers) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        answer = await response.json(content_type=None)
    assert answer["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"

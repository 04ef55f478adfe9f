"""systemHealth: what works, and the workers of all machines."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from app import health, heartbeats
from app.database import Database
from app.sending.engine import Engine
from app.settings import Settings
from tests.api.campaigns import Campaigns, engine, people
from tests.api.conftest import PATIENCE, Client, serving
from tests.integration.receiving import talking

HEALTH = "{ systemHealth { database queue version workers { name lastSeenAt sending } } }"


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """The queue server, without workers before and after."""
    async with Redis.from_url(valkey_url) as redis:
        await _forget_workers(redis)
        yield redis
        await _forget_workers(redis)


async def _forget_workers(redis: Redis) -> None:
    for worker in await heartbeats.living(redis):
        await redis.delete(heartbeats.KEY + worker.name)
    await heartbeats.living(redis)


async def test_everything_works(viewer: Client, redis: Redis) -> None:
    health = (await viewer.data(HEALTH))["systemHealth"]
    assert health == {"database": True, "queue": True, "version": "0.1.0", "workers": []}


async def test_the_workers_of_all_machines_are_there_until_they_die(client: Client, redis: Redis) -> None:
    began = datetime.now(UTC)
    await heartbeats.beat(redis, "worker-1@two:7", 3)
    await heartbeats.beat(redis, "worker-1@one:7", 0)
    workers = (await client.data(HEALTH))["systemHealth"]["workers"]
    assert [(each["name"], each["sending"]) for each in workers] == [
        ("worker-1@one:7", 0),
        ("worker-1@two:7", 3),
    ]
    assert began <= datetime.fromisoformat(workers[0]["lastSeenAt"]) <= datetime.now(UTC)
    assert 0 < await redis.ttl(heartbeats.KEY + "worker-1@one:7") <= heartbeats.EXPIRES_SECONDS
    await redis.delete(heartbeats.KEY + "worker-1@one:7")  # it has expired
    assert [each["name"] for each in (await client.data(HEALTH))["systemHealth"]["workers"]] == [
        "worker-1@two:7"
    ]
    assert await redis.smembers(heartbeats.NAMES) == {b"worker-1@two:7"}


async def test_sending_counts_the_campaigns_that_run(
    client: Client, database: Database, valkey_url: str
) -> None:
    await people(database, 3)
    campaigns = Campaigns(client)
    template = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
    for name in ("a", "b"):
        audience = ["u00", "u01", "u02"]
        await campaigns.draft(name, userIds=audience, maxMessagesPerSecond=1, **template)
        await campaigns.done("start", campaignId=name)
    async with engine(database, valkey_url) as worker:
        assert worker.campaigns_at_work() == 0
        await _until_both_were_sent_for(worker)
        for name in ("a", "b"):
            await campaigns.done("stop", campaignId=name)
        await worker.turn()
        assert worker.campaigns_at_work() == 0


async def _until_both_were_sent_for(worker: Engine) -> None:
    async with asyncio.timeout(PATIENCE):
        while worker.campaigns_at_work() < 2:
            await asyncio.sleep(min(await worker.turn(), 0.1))


async def test_a_schema_of_another_version_is_no_database(client: Client, database: Database) -> None:
    await client.data(HEALTH)
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert (await client.data(HEALTH))["systemHealth"]["database"] is False


async def test_without_a_queue_it_says_so(
    settings: Settings, http: aiohttp.ClientSession, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SECONDS_TO_ANSWER", PATIENCE)  # the database may take its time
    async with serving(settings, "unix:///nowhere/valkey.sock") as address:
        found = (await Client(http, address, admin_key).data(HEALTH))["systemHealth"]
    assert found == {"database": True, "queue": False, "version": found["version"], "workers": []}


async def test_a_queue_that_hangs_is_not_waited_for(
    settings: Settings, http: aiohttp.ClientSession, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection, and never answers."""
    assert health.SECONDS_TO_ANSWER < 2
    monkeypatch.setattr(health, "SECONDS_TO_ANSWER", 0.1)
    async with talking(hang) as url, serving(settings, f"redis:{url[5:-1]}") as address:
        found = (await Client(http, address, admin_key).data(HEALTH))["systemHealth"]
        async with http.get(f"{address}/readyz") as response:
            assert response.status == 503
            assert "queue" in (await response.json())["missing"]
    assert (found["queue"], found["workers"]) == (False, [])


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await asyncio.Event().wait()

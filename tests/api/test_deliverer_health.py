"""A deliverer is missed where there is a webhook endpoint, and shown beside the workers."""

import json

import aiohttp
from redis.asyncio import Redis

from app import heartbeats
from app.database import Database
from app.settings import Settings
from app.webhooks import service
from tests.api.conftest import Client


async def test_a_deliverer_is_missed_only_where_there_is_an_endpoint(
    address: str, http: aiohttp.ClientSession, viewer: Client, valkey_url: str, database: Database
) -> None:
    async def missing() -> dict[str, str]:
        async with http.get(f"{address}/readyz") as response:
            found: dict[str, str] = json.loads(await response.text()).get("missing", {})
            return found

    async with Redis.from_url(valkey_url) as redis:
        await heartbeats.beat(redis, "a-worker", 0)
        assert await missing() == {}
        async with database.transaction() as session:
            await service.create(session, {"url": "https://example.com/"}, Settings())
        assert list(await missing()) == ["deliverer"]
        assert "carillon deliver" in (await missing())["deliverer"]

        await redis.delete(heartbeats.KEY + "a-worker")
        await heartbeats.beat(redis, "a-deliverer", 2, "deliverer")
        assert list(await missing()) == ["worker"]  # one does not stand for the other
        health = (await viewer.data("{ systemHealth { workers { name sending } } }"))["systemHealth"]
        assert health["workers"] == [{"name": "a-deliverer", "sending": 2}]
        await redis.delete(heartbeats.KEY + "a-deliverer")

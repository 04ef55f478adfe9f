"""Keys that are tried out, over HTTP and WebSocket, with and without a proxy."""

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest

from app.database import Database
from app.keys import guessing
from app.keys.roles import Role
from app.settings import Settings, load
from tests.api.conftest import PATIENCE, Client, new_key, serving

BODY = {"query": "{ __typename }"}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guess comes back while a test goes on."""
    monkeypatch.setattr(guessing, "time", SimpleNamespace(monotonic=lambda: 1_000.0))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Three wrong keys a minute, and a proxy on this machine."""
    proxies = load(trusted_proxies="127.0.0.1").trusted_proxies
    return settings.model_copy(update={"max_wrong_keys_per_minute": 3, "trusted_proxies": proxies})


async def tried(client: Client, key: str, **headers: str) -> aiohttp.ClientResponse:
    """The answer to a key."""
    sent = {"authorization": f"Bearer {key}", **headers}
    async with client.http.post(client.url, json=BODY, headers=sent) as response:
        await response.read()
        return response


async def test_wrong_keys_are_slowed_and_right_ones_are_not(
    client: Client, viewer_key: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.data("{ __typename }")) == {"__typename": "Query"}
    looked_at: list[str] = []

    async def by_hash(_: object, secret_hash: str) -> None:
        looked_at.append(secret_hash)

    with monkeypatch.context() as blind:
        blind.setattr("app.keys.queries.by_hash", by_hash)
        found = [(await tried(client, f"wrong {each}")).status for each in range(10)]
    assert found == [401] * 3 + [429] * 7
    assert len(looked_at) == 3
    refused = await tried(client, viewer_key)  # right, and nobody has seen it yet
    assert refused.status == 429
    assert refused.headers["retry-after"] == "20"
    (error,) = (await refused.json())["errors"]
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["details"]["limit"] == 3
    assert (await tried(client, client.key)).status == 200
    assert (await tried(client, viewer_key, **{"x-forwarded-for": "192.0.2.1"})).status == 200
    async with client.socket() as socket:
        await socket.send_json({"type": "connection_init", "payload": {"authorization": "Bearer wrong"}})
        message = await socket.receive(timeout=PATIENCE)
        assert (message.data, "Too many wrong keys" in str(message.extra)) == (4403, True)
    async with client.socket(authorization=f"Bearer {client.key}") as socket:
        await socket.send_json({"type": "connection_init"})
        assert await socket.receive_json() == {"type": "connection_ack"}


async def test_many_new_right_keys_at_once_are_no_guesses(client: Client, database: Database) -> None:
    keys = [await new_key(database, Role.VIEWER) for _ in range(10)]
    answers = await asyncio.gather(*(tried(client, key) for key in keys * 4))
    assert {answer.status for answer in answers} == {200}


async def test_no_key_is_no_guess(client: Client) -> None:
    for _ in range(10):
        async with client.http.post(client.url, json=BODY) as response:
            assert response.status == 401
        assert (await tried(client, "x" * 300)).status == 401


async def test_only_trusted_proxies_name_clients(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession
) -> None:
    alone = settings.model_copy(update={"trusted_proxies": ()})
    async with serving(alone, valkey_url) as address:
        client = Client(http, address, "")
        found = [
            (await tried(client, "wrong", **{"x-forwarded-for": f"192.0.2.{each}"})).status
            for each in range(5)
        ]
    assert found == [401] * 3 + [429] * 2


async def test_names_of_trusted_proxies_count_one_by_one(client: Client) -> None:
    for each in range(5):
        headers = {"x-forwarded-for": f"203.0.113.7, 192.0.2.{each}"}  # the first is what the client says
        assert (await tried(client, "wrong", **headers)).status == 401

"""Requests under idempotency keys while API processes are killed, again and again, at random moments.

Every client repeats its request under its key until it has an answer, from whichever process lives. Each
request makes three things that show if they were made twice: a campaign whose id the server chooses, an API
key whose secret is shown once, and a message that somebody reads.
"""

import asyncio
import os
import random
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from app import valkey
from app.campaigns.models import Campaign
from app.database import Database
from app.keys.models import ApiKey
from app.messages.models import Message
from tests.acceptance.conftest import Instances
from tests.acceptance.instances import Carillon, until

ROUNDS = 8
CLIENTS = 15  # new ones in each round
LATEST_STRIKE = 0.12  # seconds after the clients began; by then all of them are done if nothing strikes

PREPARE = """mutation ($users: UpsertUsersInput!, $campaign: CreateCampaignInput!) {
  upsertUsers(input: $users) { errors { message } }
  createCampaign(input: $campaign) { errors { message } } }"""
REQUEST = """mutation ($campaign: CreateCampaignInput!, $key: CreateApiKeyInput!, $test: TestCampaignInput!) {
  createCampaign(input: $campaign) { campaign { campaignId name createdAt } errors { message } }
  createApiKey(input: $key) { secret apiKey { name } errors { message } }
  testCampaign(input: $test) { results { userId messageId cid } errors { message } } }"""
TEMPLATE = {
    "senderId": "sender",
    "messageTemplate": {"text": "Hello"},
    "channelTemplate": {"type": "messaging"},
    "createChannels": True,
}


@pytest.fixture
def redis_url(short_tmp: Path) -> Iterator[str]:
    """A queue server that nobody kills."""
    server = valkey.start(short_tmp / "valkey")
    yield server.url
    server.stop()


class Place:
    """One process that serves, and one that is ready to follow it."""

    def __init__(self, instances: Instances, database_url: str, redis_url: str) -> None:
        self._instances = instances
        self._given: dict[str, Any] = {
            "database_url": database_url,
            "environment": {"CARILLON_REDIS_URL": redis_url},
        }
        self._serving = self._launched()
        self._serving.command("migrate")
        self._next = self._launched()

    def _launched(self) -> Carillon:
        return self._instances(**self._given)

    def start(self) -> None:
        """Starts both."""
        for process in (self._serving, self._next):
            process.launch("api")
        self.wait()

    def wait(self) -> None:
        """Waits until both serve."""
        for process in (self._serving, self._next):
            until(60.0, "an API that serves", lambda each=process: serves(each))

    @property
    def url(self) -> str:
        """Where clients are served now."""
        return f"{self._serving.url}/graphql"

    def strike(self) -> None:
        """Kills the one that serves; the next takes over, and another one is started to follow it."""
        assert self._serving.process is not None
        os.kill(self._serving.process.pid, signal.SIGKILL)
        self._serving, self._next = self._next, self._launched()
        self._next.launch("api")


def serves(process: Carillon) -> bool:
    """Whether it answers by now."""
    assert process.process is not None and process.process.poll() is None, process.log()
    try:
        with urllib.request.urlopen(f"{process.url}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Clients:
    """Clients that repeat what they asked for until they have an answer."""

    def __init__(self, place: Place, http: aiohttp.ClientSession) -> None:
        self._place = place
        self._http = http
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.met: Counter[str] = Counter()

    async def ask(self, name: str) -> None:
        """One request under one key, sent again until it is answered."""
        variables = {
            "campaign": {**TEMPLATE, "name": name},
            "key": {"name": name, "role": "VIEWER"},
            "test": {"campaignId": "tested", "userIds": ["reader"]},
        }
        headers = {"idempotency-key": name}
        body = {"query": REQUEST, "variables": variables}
        while (answer := await self._sent(body, headers)) is None:
            await asyncio.sleep(0.01)
        self.answers.setdefault(name, []).append(answer)

    async def _sent(self, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any] | None:
        """The answer; None if the process died, or if another execution was not over yet."""
        try:
            async with self._http.post(self._place.url, json=body, headers=headers) as response:
                answer: dict[str, Any] = await response.json()
        except aiohttp.ClientError:
            self.met["killed"] += 1
            return None
        if response.status == 409:
            self.met["busy"] += 1
            return None
        assert response.status == 200 and "errors" not in answer, answer
        self.met["repeated" if "idempotent-replayed" in response.headers else "first"] += 1
        data: dict[str, Any] = answer["data"]
        assert not any(field["errors"] for field in data.values()), data
        return data


@pytest.fixture
def place(instances: Instances, database_url: str, redis_url: str) -> Place:
    """Two processes that serve."""
    place = Place(instances, database_url, redis_url)
    place.start()
    return place


async def test_every_key_takes_effect_once_and_has_one_answer(
    place: Place, database_url: str, instances: Instances
) -> None:
    chance = random.Random()
    key = {"authorization": f"Bearer {instances(database_url=database_url).admin_key}"}
    async with aiohttp.ClientSession(headers=key, timeout=aiohttp.ClientTimeout(total=120)) as http:
        clients = Clients(place, http)
        await prepare(place, http)
        asking: list[asyncio.Task[None]] = []
        for number in range(ROUNDS):
            await asyncio.to_thread(place.wait)
            asking += [asyncio.create_task(clients.ask(f"{number}-{each}")) for each in range(CLIENTS)]
            await asyncio.sleep(chance.uniform(0.0, LATEST_STRIKE))
            place.strike()
        await asyncio.gather(*asking)
        await asyncio.gather(*(clients.ask(name) for name in list(clients.answers)))
    print(dict(clients.met))
    assert clients.met["killed"] > ROUNDS
    await check(clients.answers, database_url)


async def prepare(place: Place, http: aiohttp.ClientSession) -> None:
    users = {"users": [{"userId": "sender"}, {"userId": "reader"}]}
    body = {"query": PREPARE, "variables": {"users": users, "campaign": {**TEMPLATE, "campaignId": "tested"}}}
    async with http.post(place.url, json=body) as response:
        assert not any(field["errors"] for field in (await response.json())["data"].values())


async def check(answers: dict[str, list[dict[str, Any]]], database_url: str) -> None:
    """The database holds what each answer says, once, and nothing else."""
    assert len(answers) == ROUNDS * CLIENTS
    assert all(first == again for first, again in answers.values())
    made = {name: given[0] for name, given in answers.items()}
    database = Database(database_url)
    async with database.read() as session:
        campaigns = (await session.execute(select(Campaign.name, Campaign.campaign_id))).all()
        keys = (await session.execute(select(ApiKey.name))).scalars().all()
        messages = (await session.execute(select(Message.id))).scalars().all()
    await database.close()
    expected = [(name, data["createCampaign"]["campaign"]["campaignId"]) for name, data in made.items()]
    assert sorted(map(tuple, campaigns), key=str) == sorted([(None, "tested"), *expected], key=str)
    assert sorted(name for name in keys if name in made) == sorted(made)
    assert len({data["createApiKey"]["secret"] for data in made.values()}) == len(made)
    sent = [result["messageId"] for data in made.values() for result in data["testCampaign"]["results"]]
    assert sorted(messages) == sorted(sent) and len(sent) == len(made)

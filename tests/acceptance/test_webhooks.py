"""Webhooks through real processes: killed at random moments, stopped in between, and led astray.

Nothing is lost, and what comes twice comes under the same id, with the same body.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from app import supervisor, valkey
from app.database import Database
from app.events.models import Event
from app.messages.models import Message
from app.webhooks.models import Delivery, DeliveryStatus, Queued
from tests.acceptance.conftest import Instances
from tests.acceptance.instances import PATIENCE, PROGRAM, STOPPED_WITHIN, Carillon
from tests.acceptance.test_campaign import campaign_to_all, people, start
from tests.acceptance.test_run import STARTS, WAITS_FOR_AN_HOUR
from tests.integration.delivering import deliveries
from tests.integration.receiving import Post, Receiver, receiving

AUDIENCE = 2_000
SECONDS = 90.0
ALLOWED = {
    "CARILLON_WEBHOOK_ALLOW_HTTP": "true",
    "CARILLON_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}
CREATE = """mutation ($input: CreateWebhookEndpointInput!) {
  createWebhookEndpoint(input: $input) { endpoint { endpointId } secret errors { code message path } } }"""
DELIVERIES = """query ($id: String!) { webhookEndpoint(endpointId: $id) {
  deliveries(last: 1) { nodes { status attempts statusCode error } } } }"""


@pytest.fixture
def not_started(instances: Instances, database_url: str) -> Carillon:
    """An instance that may post to this machine; once on SQLite and once on PostgreSQL."""
    return instances(database_url=database_url, environment=ALLOWED)


async def add_endpoint(server: Carillon, url: str, **given: Any) -> tuple[str, str]:
    """Its id and its secret."""
    made = (await server.graphql(CREATE, {"input": {"url": url, **given}}))["createWebhookEndpoint"]
    assert made["errors"] == []
    return made["endpoint"]["endpointId"], made["secret"]


def told(posts: Iterable[Post], secret: str) -> dict[str, list[str]]:
    """The ids of the messages that each delivery told of. Every post is verified, and whatever came under the
    same id was the same."""
    bodies: dict[str, bytes] = {}
    found: dict[str, list[str]] = {}
    for post in posts:
        assert bodies.setdefault(post.id, post.body) == post.body
        body = post.verified(secret)
        each = body["events"] if body["type"] == "batch" else [body]
        found[post.id] = [event["message"]["id"] for event in each]
    return found


def nothing_is_lost_or_told_under_two_ids(receiver: Receiver, secret: str, messages: set[str]) -> None:
    """Each message stands in exactly one delivery."""
    under = defaultdict[str, set[str]](set)
    for delivery_id, ids in told(receiver.posts, secret).items():
        for message_id in ids:
            under[message_id].add(delivery_id)
    assert set(under) == messages
    assert {len(each) for each in under.values()} == {1}


async def messages_of(database: Database) -> set[str]:
    async with database.read() as session:
        return set((await session.execute(select(col(Message.id)))).scalars())


async def until_all_is_delivered(database: Database, *receivers: Receiver) -> list[Delivery]:
    """Waits until the receivers have heard of the end of the campaign, and no delivery waits."""
    async with asyncio.timeout(SECONDS):
        while True:
            async with database.read() as session:
                undispatched = select(col(Event.id)).where(col(Event.dispatched_at).is_(None))
                waiting = select(col(Queued.event_id)).union_all(undispatched).limit(1)
                nothing_waits = (await session.execute(waiting)).first() is None
            found = await deliveries(database)
            heard = all(any(b"campaign.completed" in post.body for post in each.posts) for each in receivers)
            if heard and nothing_waits and all(each.status != DeliveryStatus.PENDING for each in found):
                return found
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_at_random_moments_lose_nothing_and_double_only_under_the_same_id(
    not_started: Carillon, seed: int
) -> None:
    server, chance = not_started, random.Random(seed)
    async with receiving() as singles, receiving() as batches, receiving() as campaigns:
        await asyncio.to_thread(server.start)
        database = Database(server.database_url)
        await people(database, AUDIENCE)
        _, secret = await add_endpoint(server, singles.url, eventTypes=["message.new"])
        _, other = await add_endpoint(server, batches.url, eventTypes=["message.new"], batchSize=50)
        await add_endpoint(server, campaigns.url, eventTypes=["campaign.started", "campaign.completed"])
        await campaign_to_all(server, maxMessagesPerSecond=AUDIENCE // 2)
        await start(server)
        for _ in range(9):
            await asyncio.sleep(chance.uniform(0.1, 0.6))
            victim = server.pid_of(f"app.child {chance.choice(['deliverer', 'deliverer', 'worker', 'api'])}")
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
        found = await until_all_is_delivered(database, campaigns)

        messages = await messages_of(database)
        assert len(messages) == AUDIENCE
        nothing_is_lost_or_told_under_two_ids(singles, secret, messages)
        nothing_is_lost_or_told_under_two_ids(batches, other, messages)
        types = [post.told["type"] for post in campaigns.posts]
        assert set(types) == {"campaign.started", "campaign.completed"}
        assert types[0] == "campaign.started"
        assert len(set(campaigns.ids)) == 2
        assert {each.status for each in found} == {DeliveryStatus.DELIVERED}
        await database.close()


async def test_everything_dies_at_once_and_is_started_again(not_started: Carillon) -> None:
    server = not_started
    async with receiving() as receiver, receiving() as campaigns:
        await asyncio.to_thread(server.start)
        database = Database(server.database_url)
        await people(database, AUDIENCE)
        _, secret = await add_endpoint(server, receiver.url, eventTypes=["message.new"])
        await add_endpoint(server, campaigns.url, eventTypes=["campaign.completed"])
        await campaign_to_all(server, maxMessagesPerSecond=AUDIENCE)
        await start(server)
        while len(receiver.posts) < AUDIENCE // 4:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.kill_everything)
        await asyncio.to_thread(server.start)
        await until_all_is_delivered(database, campaigns)

        nothing_is_lost_or_told_under_two_ids(receiver, secret, await messages_of(database))
        await database.close()


async def test_a_deliverer_that_hangs_is_killed_and_its_successor_goes_on(instances: Instances) -> None:
    server = instances(environment=ALLOWED)
    async with receiving() as receiver, receiving() as campaigns:
        await asyncio.to_thread(server.start)
        database = Database(server.database_url)
        await people(database, AUDIENCE)
        _, secret = await add_endpoint(server, receiver.url, eventTypes=["message.new"])
        await add_endpoint(server, campaigns.url, eventTypes=["campaign.completed"])
        await campaign_to_all(server, maxMessagesPerSecond=AUDIENCE)
        await start(server)
        while len(receiver.posts) < AUDIENCE // 4:
            await asyncio.sleep(0.01)
        stuck = server.pid_of("app.child deliverer")
        assert stuck is not None
        os.kill(stuck, signal.SIGSTOP)
        await until_all_is_delivered(database, campaigns)

        assert server.pid_of("app.child deliverer") != stuck
        nothing_is_lost_or_told_under_two_ids(receiver, secret, await messages_of(database))
        await database.close()


async def test_it_stops_in_time_whatever_is_in_flight(instances: Instances, database_url: str) -> None:
    """By itself, long before a post is given up and counts as tried; who does not is killed in time."""
    assert supervisor.SECONDS_TO_END + supervisor.SECONDS_FOR_QUEUE_TO_END < STOPPED_WITHIN
    patient = {"CARILLON_WEBHOOK_TIMEOUT_SECONDS": "60"}
    server = instances(database_url=database_url, environment={**ALLOWED, **patient})
    server.program = [sys.executable, "-c", WAITS_FOR_AN_HOUR + STARTS]
    begun = asyncio.Event()

    async def answer(_: Post) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async with receiving(Receiver(answer)) as receiver:
        await asyncio.to_thread(server.start)
        database = Database(server.database_url)
        await people(database, 500)
        await add_endpoint(server, receiver.url)
        await campaign_to_all(server)
        await start(server)
        await begun.wait()
        assert await asyncio.to_thread(server.stop) == 0
        assert server.processes() == {}
        given_back = {(each.status, each.attempts) for each in await deliveries(database)}
        assert given_back == {(DeliveryStatus.PENDING, 0)}
        await database.close()


@contextlib.asynccontextmanager
async def deliverer_of_its_own(server: Carillon) -> AsyncIterator[asyncio.subprocess.Process]:
    """`carillon deliver`, as on another machine."""
    queue = valkey.url_of(server.data_dir / "valkey")
    with server.log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "deliver",
            stdout=log,
            stderr=log,
            env={**server.environment, "CARILLON_REDIS_URL": queue},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def workers_of(server: Carillon) -> list[str]:
    """The names that systemHealth has."""
    health = await server.graphql("{ systemHealth { workers { name } } }")
    return sorted(each["name"].partition("@")[0] for each in health["systemHealth"]["workers"])


async def test_deliverers_of_their_own_share_the_work(
    instances: Instances, postgres_database_url: str
) -> None:
    server = instances(database_url=postgres_database_url, environment=ALLOWED)
    async with receiving() as one, receiving() as two, receiving() as campaigns:
        await asyncio.to_thread(server.start)
        database = Database(server.database_url)
        await people(database, AUDIENCE)
        async with deliverer_of_its_own(server) as second:
            async with asyncio.timeout(SECONDS):
                while await workers_of(server) != ["deliverer", "deliverer-1", "worker-1"]:
                    await asyncio.sleep(0.1)
            _, secret = await add_endpoint(server, one.url, eventTypes=["message.new"])
            _, other = await add_endpoint(server, two.url, eventTypes=["message.new"])
            await add_endpoint(server, campaigns.url, eventTypes=["campaign.completed"])
            await campaign_to_all(server)
            await start(server)
            await until_all_is_delivered(database, campaigns)

            messages = await messages_of(database)
            nothing_is_lost_or_told_under_two_ids(one, secret, messages)
            nothing_is_lost_or_told_under_two_ids(two, other, messages)
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), PATIENCE) == 0
        await database.close()


async def test_a_name_that_leads_to_this_machine_is_not_posted_to(instances: Instances) -> None:
    """Of a name nothing can be said when the endpoint is made; of the address it leads to, everything."""
    server = instances(environment={"CARILLON_WEBHOOK_ALLOW_HTTP": "true"})
    async with receiving() as receiver:
        await asyncio.to_thread(server.start)
        url = receiver.url.replace("127.0.0.1", socket.gethostname())
        endpoint_id, secret = await add_endpoint(server, url)
        database = Database(server.database_url)
        await people(database, 1)
        await campaign_to_all(server)
        await start(server)

        async with asyncio.timeout(PATIENCE):
            nodes: list[dict[str, Any]] = []
            while not nodes or not nodes[0]["attempts"]:
                page = await server.graphql(DELIVERIES, {"id": endpoint_id})
                nodes = page["webhookEndpoint"]["deliveries"]["nodes"]
                await asyncio.sleep(0.1)
        assert nodes[0]["error"].startswith("Refused: the host's address is ")
        assert nodes[0]["statusCode"] is None
        assert receiver.posts == []
        assert secret not in server.log()
        await database.close()

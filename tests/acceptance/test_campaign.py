"""A whole campaign through real processes: watched over a WebSocket, and killed in the middle.

Books are checked by counting ledger rows and messages in one snapshot, not by believing the stats.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import pytest
import redis

from app.campaigns import queries
from app.database import Database
from app.ledger.verification import Books, audit
from tests.acceptance.conftest import Instances
from tests.acceptance.instances import Carillon
from tests.integration.campaigning import add_users

AUDIENCE = 20_000  # half a second of sending at least: there is a middle to strike

CREATE = """mutation ($input: CreateCampaignInput!) {
  createCampaign(input: $input) { campaign { campaignId status } errors { code message path } } }"""
START = """mutation ($id: String!) {
  startCampaign(input: {campaignId: $id}) { campaign { status } errors { code message path } } }"""
WATCH = """subscription ($id: String!) { campaignUpdated(campaignId: $id) {
  status stats { planned targets sent skipped failed pending progress } } }"""
LEDGER = """query ($id: String!, $after: String) { campaign(campaignId: $id) {
  recipients(first: 500, after: $after) {
    totalCount pageInfo { hasNextPage endCursor } nodes { targetId status message { text cid } } } } }"""


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, instances: Instances) -> Carillon:
    """A started instance: one worker on SQLite, two on PostgreSQL."""
    if request.param == "sqlite":
        server = instances()
    else:
        url = request.getfixturevalue("postgres_database_url")
        server = instances(database_url=url, environment={"CARILLON_WORKERS": "2"})
    server.start()
    return server


async def people(database: Database, count: int) -> None:
    """A sender and `count` receivers."""
    ids: Iterable[str] = (f"user-{number:06d}" for number in range(count))
    await add_users(database, ["sender"])
    remaining = iter(ids)
    while chunk := list(islice(remaining, 5_000)):
        await add_users(database, chunk)


async def campaign_to_all(server: Carillon, **given: Any) -> None:
    """Creates the segment and the campaign, as a dashboard would."""
    await server.graphql(
        """mutation { createSegment(input: {segmentId: "all", type: USER, allUsers: true}) {
          errors { message } } }"""
    )
    made = await server.graphql(
        CREATE,
        {
            "input": {
                "campaignId": "news",
                "senderId": "sender",
                "segmentIds": ["all"],
                "messageTemplate": {"text": "Hello {{ receiver.name }}"},
                "createChannels": True,
                "channelTemplate": {"type": "messaging", "id": "{{ receiver.id }}-news"},
                **given,
            }
        },
    )
    assert made["createCampaign"] == {"campaign": {"campaignId": "news", "status": "DRAFT"}, "errors": []}


async def start(server: Carillon) -> None:
    """Starts it."""
    started = await server.graphql(START, {"id": "news"})
    assert started["startCampaign"] == {"campaign": {"status": "IN_PROGRESS"}, "errors": []}


async def books(database: Database) -> tuple[str, Books]:
    """Status and books in one snapshot."""
    async with database.read() as session:
        campaign = await queries.by_id(session, "news")
        assert campaign is not None
        counted = await audit(session, campaign.campaign_no)
    assert counted.problems == ()
    return campaign.status, counted


async def until_the_middle(database: Database) -> None:
    """Waits for a moment at which a strike counts: some are sent and some are pending."""
    while True:
        status, counted = await books(database)
        if counted.sent and counted.pending:
            return
        assert status == "IN_PROGRESS", "the campaign was over before its middle was seen"
        await asyncio.sleep(0.01)


async def until_it_is_over(database: Database, seconds: float = 60.0) -> Books:
    """The closing books, looked at all the way there: they balance at every moment."""
    deadline = time.monotonic() + seconds
    while True:
        status, counted = await books(database)
        if status == "COMPLETED":
            return counted
        assert status == "IN_PROGRESS"
        assert time.monotonic() < deadline, f"not completed in {seconds} s: {counted}"
        await asyncio.sleep(0.1)


async def test_a_campaign_is_created_started_watched_and_read(running: Carillon) -> None:
    database = Database(running.database_url)
    await people(database, 3_000)
    await campaign_to_all(running)
    seen: list[dict[str, Any]] = []

    async def watch() -> None:
        async for event in running.subscribe(WATCH, {"id": "news"}):
            seen.append(event["campaignUpdated"])

    watching = asyncio.create_task(watch())
    while not seen:
        await asyncio.sleep(0.01)
    await start(running)
    await asyncio.wait_for(watching, 30)  # the subscription ends by itself, with the terminal state

    assert seen[0]["status"] == "DRAFT"
    assert seen[-1] == {
        "status": "COMPLETED",
        "stats": {
            "planned": True,
            "targets": 3_001,
            "sent": 3_000,
            "skipped": 1,
            "failed": 0,
            "pending": 0,
            "progress": 1.0,
        },
    }
    assert all(
        state["stats"]["targets"]
        == sum(state["stats"][name] for name in ("sent", "skipped", "failed", "pending"))
        for state in seen
    )
    texts, after = {}, None
    while True:
        page = (await running.graphql(LEDGER, {"id": "news", "after": after}))["campaign"]["recipients"]
        texts |= {node["targetId"]: node for node in page["nodes"]}
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert page["totalCount"] == len(texts) == 3_001
    assert texts["user-000007"] == {
        "targetId": "user-000007",
        "status": "SENT",
        "message": {"text": "Hello User-000007", "cid": "messaging:user-000007-news"},
    }
    assert texts["sender"]["status"] == "SKIPPED"
    counted = await until_it_is_over(database)
    assert (counted.sent, counted.skipped) == (3_000, 1)
    said = running.command("verify", "news").stdout
    assert "balance" in said
    assert "3,000" in said
    await database.close()


def kill_worker(server: Carillon) -> None:
    """The sending worker dies; the supervisor starts it anew."""
    server.kill_worker()


def kill_api(server: Carillon) -> None:
    """The API dies and is started anew."""
    server.kill_api()


def kill_everything(server: Carillon) -> None:
    """Everything dies at once; an operator starts it again."""
    server.kill_everything()
    server.start()


def lose_the_queue(server: Carillon) -> None:
    """All that the queue server knew is gone, and its process too."""
    from app import valkey

    with redis.Redis.from_url(valkey.url_of(server.data_dir / "valkey")) as client:
        client.flushall()
    server.kill_valkey()


@pytest.mark.parametrize("strike", [kill_worker, kill_api, kill_everything, lose_the_queue])
async def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    running: Carillon, strike: Callable[[Carillon], None]
) -> None:
    database = Database(running.database_url)
    await people(database, AUDIENCE)
    await campaign_to_all(running, maxMessagesPerSecond=AUDIENCE)
    await start(running)
    await until_the_middle(database)

    await asyncio.to_thread(strike, running)

    counted = await until_it_is_over(database)
    assert (counted.targets, counted.sent, counted.skipped) == (AUDIENCE + 1, AUDIENCE, 1)
    await database.close()


async def test_a_stopped_worker_keeps_nobody_waiting(instances: Instances) -> None:
    """SIGSTOP in mid-campaign: on SQLite the supervisor kills a sender that does not beat any more."""
    server = instances()
    server.start()
    database = Database(server.database_url)
    await people(database, AUDIENCE)
    await campaign_to_all(server, maxMessagesPerSecond=AUDIENCE)
    await start(server)
    await until_the_middle(database)
    worker = server.pid_of("app.child worker")
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    counted = await until_it_is_over(database)
    assert counted.sent == AUDIENCE
    await database.close()

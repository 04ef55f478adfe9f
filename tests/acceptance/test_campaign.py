"""A whole campaign through real processes, watched over a WebSocket. (How it is killed: `test_chaos.py`.)

Its books are checked by counting ledger rows and messages, not by believing the stats.
"""

import asyncio
from typing import Any

import pytest

from app.campaigns import queries
from app.database import Database
from app.ledger.verification import audit
from tests.acceptance.conftest import Instances
from tests.acceptance.instances import PATIENCE, Carillon
from tests.integration.campaigning import add_users

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
    await add_users(database, ["sender", *(f"user-{number:06d}" for number in range(count))])


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
    await asyncio.wait_for(watching, PATIENCE)  # the subscription ends by itself, with the terminal state

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
    async with database.read() as session:
        counted = await audit(session, (await queries.existing(session, "news")).campaign_no)
    assert (counted.sent, counted.skipped, counted.problems) == (3_000, 1, ())
    said = running.command("verify", "news").stdout
    assert "balance" in said
    assert "3,000" in said
    await database.close()

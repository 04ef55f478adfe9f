"""A page costs a fixed small number of statements, however many rows it has."""

import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event

from app.database import Database
from tests.api.campaigns import STATS, Campaigns, engine, people
from tests.api.conftest import Client

PAGE = f"""query ($first: Int!) {{ campaigns(first: $first) {{ totalCount nodes {{
  campaignId status allowedActions sender {{ userId name }} segments {{ segmentId size }}
  audienceEstimate {STATS} }} }} }}"""
SEGMENTS = """mutation { one: createSegment(input: {segmentId: "one", type: USER}) { errors { message } }
  two: createSegment(input: {segmentId: "two", type: USER}) { errors { message } }
  add: addSegmentTargets(input: {segmentId: "one", targetIds: ["u00", "u01"]}) { errors { message } } }"""
RECIPIENTS = """query ($first: Int!) { campaign(campaignId: "c0") { recipients(first: $first) { totalCount
  nodes { status user { name } channel { cid } message { text campaign { campaignId } } } } } }"""


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """What is asked of the database inside the block, on any connection."""
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")) and "api_keys" not in statement:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
async def campaigns(client: Client, database: Database, valkey_url: str) -> Campaigns:
    """Thirty campaigns: drafts, running ones, ended ones."""
    await people(database, 3)
    await client.data(SEGMENTS)
    campaigns = Campaigns(client)
    for number in range(30):
        audience = {"segmentIds": ["one", "two"]} if number % 2 else {"userIds": ["u00", "u01", "x"]}
        template = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
        await campaigns.draft(f"c{number}", senderId=f"u0{number % 3}", **audience, **template)
        if number % 5 == 0:
            await campaigns.done("start", campaignId=f"c{number}")
    async with engine(database, valkey_url) as worker:
        await worker.turn()
        await worker.turn()
    for number in range(1, 30, 5):
        await campaigns.done("start", campaignId=f"c{number}")
    return campaigns


async def test_a_page_of_campaigns_with_all_their_numbers(client: Client, campaigns: Campaigns) -> None:
    await client.data(PAGE, first=1)  # the key is known from now on
    costs = {}
    for first in (10, 30):
        with statements() as asked:
            page = (await client.data(PAGE, first=first))["campaigns"]
        assert len(page["nodes"]) == first
        assert {"DRAFT", "COMPLETED", "IN_PROGRESS"} == {node["status"] for node in page["nodes"]}
        costs[first] = len(asked)
    # page, count, clock (PostgreSQL), sums, reasons, first reads (2), speeds, estimates (2), senders,
    # segments, named ids
    assert costs[10] == costs[30] <= 13


async def test_a_page_of_recipients_with_their_messages(client: Client, campaigns: Campaigns) -> None:
    await client.data(RECIPIENTS, first=1)
    costs = {}
    for first in (2, 3):
        with statements() as asked:
            await client.data(RECIPIENTS, first=first)
        costs[first] = len(asked)
    # campaign, order (PostgreSQL), settled, pending, count (3), users, channels, messages, their campaigns
    assert costs[2] == costs[3] <= 11

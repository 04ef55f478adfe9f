"""A page costs a fixed small number of statements, whatever the number of its rows and of what they list."""

from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.database import Database
from app.graphql.fields import WEIGHT
from app.graphql.limits import DEFINITION
from app.settings import Settings, load
from app.webhooks.models import Endpoint
from tests.api.campaigns import STATS, Campaigns, engine, people
from tests.api.conftest import Client
from tests.api.counting import statements
from tests.api.lists import AT_WORK, GRAPHQL, List, everything, lists
from tests.api.world import BEGIN, World

PAGE = f"""query ($first: Int!) {{ campaigns(first: $first) {{ totalCount nodes {{
  campaignId status allowedActions sender {{ userId name }} segments {{ segmentId size }}
  audienceEstimate {STATS} recipients(first: 10) {{ nodes {{ targetId status }} }} }} }} }}"""
SEGMENTS = """mutation { one: createSegment(input: {segmentId: "one", type: USER}) { errors { message } }
  two: createSegment(input: {segmentId: "two", type: USER}) { errors { message } }
  add: addSegmentTargets(input: {segmentId: "one", targetIds: ["u00", "u01"]}) { errors { message } } }"""
RECIPIENTS = """query ($first: Int!) { campaign(campaignId: "c0") { recipients(first: $first) { totalCount
  nodes { status user { name } channel { cid } message { text campaign { campaignId } } } } } }"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Everything at once is more than a client may ask for."""
    return load(**{**settings.model_dump(), "max_document_cost": 10_000_000, "max_document_fields": 5_000})


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
        while await worker.turn() <= 0:
            pass
    for number in range(1, 30, 5):
        await campaigns.done("start", campaignId=f"c{number}")
    return campaigns


async def test_a_page_of_campaigns_with_all_their_numbers_and_the_first_recipients(
    client: Client, campaigns: Campaigns
) -> None:
    await client.data(PAGE, first=1)  # the key is known from now on
    costs = {}
    for first in (10, 30):
        with statements() as asked:
            page = (await client.data(PAGE, first=first))["campaigns"]
        assert len(page["nodes"]) == first
        assert {"DRAFT", "COMPLETED", "IN_PROGRESS"} == {node["status"] for node in page["nodes"]}
        assert any(node["recipients"]["nodes"] for node in page["nodes"])
        costs[first] = len(asked)
    # page, count, clock (PostgreSQL), sums, reasons, first reads (2), speeds, estimates (2), senders,
    # segments, named ids; of recipients: order (PostgreSQL), settled, pending
    assert costs[10] == costs[30] <= 16


async def test_a_page_of_recipients_with_their_messages(client: Client, campaigns: Campaigns) -> None:
    await client.data(RECIPIENTS, first=1)
    costs = {}
    for first in (2, 3):
        with statements() as asked:
            await client.data(RECIPIENTS, first=first)
        costs[first] = len(asked)
    # campaign, order (PostgreSQL), settled, pending, count (3), users, channels, messages, their campaigns
    assert costs[2] == costs[3] <= 11


async def test_every_list_with_everything_in_it_costs_the_same_for_few_and_many(
    client: Client, database: Database
) -> None:
    world = World(database, size=9)
    await world.build()
    costs = {each.name: await _costs(client, world, each) for each in lists()}
    print(*(f"{name}: {few} statements" for name, (few, _) in costs.items()), sep="\n")
    # a page that has all the segments loads none again for what is nested in it, so that it may cost less
    assert {name: (few, many) for name, (few, many) in costs.items() if many > few} == {}
    assert max(few for few, _ in costs.values()) <= 50


async def test_the_deliveries_of_every_endpoint_cost_the_same_for_few_and_many(
    client: Client, database: Database
) -> None:
    world = World(database, size=9)
    await world.build()
    document = f"{{ webhookEndpoints {{ {everything('WebhookEndpoint', 3)} }} }}"
    await client.data(document)
    costs = {}
    for endpoint_id in world.endpoints[:2]:
        with statements() as asked:
            found = (await client.data(document))["webhookEndpoints"]
        costs[len(found)] = len(asked)
        async with database.transaction() as session:
            gone = update(Endpoint).where(col(Endpoint.endpoint_id) == endpoint_id)
            await session.execute(gone.values(deleted_at=BEGIN))
    assert costs.keys() == {3, 2} and costs[3] == costs[2] <= 10


async def _costs(client: Client, world: World, listed: List) -> tuple[int, int]:
    """What a page of four with three of everything in each costs, and a page of nine with seven."""
    costs = []
    for size, nested in ((4, 3), (9, 7)):
        selection = f"totalCount nodes {{ {everything(listed.node, nested)} }}"
        document = listed.asked(selection, f"first: {size}", parent_id=world.parents(listed.parent)[0])
        with statements() as asked:
            page = listed.found(await client.data(document))
        assert len(page["nodes"]) == size
        costs.append(len(asked))
    return costs[0], costs[1]


async def test_a_field_that_works_for_each_object_costs_the_same_for_each_and_weighs_more_than_that(
    client: Client, database: Database
) -> None:
    world = World(database, size=9)
    await world.build()
    for name, selection in AT_WORK.items():
        costs = {first: await _working_for(client, first, selection) for first in (1, 2, 4, 9)}
        each = costs[2] - costs[1]
        print(f"{name}: {each} statements for each object")
        assert {first: cost - costs[1] for first, cost in costs.items()} == {
            first: each * (first - 1) for first in costs
        }
        assert each <= 20 and _weight(name) >= 50 * each


async def _working_for(client: Client, first: int, selection: str) -> int:
    """What a page of campaigns costs with this in each."""
    document = f"{{ campaigns(first: {first}) {{ nodes {{ {selection} }} }} }}"
    with statements() as asked:
        assert len((await client.data(document))["campaigns"]["nodes"]) == first
    return len(asked)


def _weight(name: str) -> int:
    parent, field = name.split(".")
    kind: Any = GRAPHQL.type_map[parent]
    weight: int = kind.fields[field].extensions[DEFINITION].metadata[WEIGHT]
    return weight


async def test_counting_costs_statements_only_when_it_is_asked_for(
    client: Client, database: Database
) -> None:
    world = World(database, size=6)
    await world.build()
    for listed in lists():
        parent = world.parents(listed.parent)[0]
        with statements() as without:
            await client.data(listed.asked("nodes { id }", parent_id=parent))
        with statements() as counted:
            await client.data(listed.asked("totalCount nodes { id }", parent_id=parent))
        assert len(without) < len(counted), listed.name

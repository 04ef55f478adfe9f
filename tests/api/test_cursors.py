"""Cursors from outside: forged ones are no fault, and a list is the same however its filter is written."""

import base64
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.database import Database
from tests.api.conftest import Client
from tests.api.lists import List, lists
from tests.api.test_pagination import _walks
from tests.api.world import World

LISTS = lists()


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database, 7)
    await world.build()
    return world


# What somebody who writes cursors by hand may put where a number, a text, a time or nothing stands.
FORGED: list[Any] = [
    0, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 0.0, -0.5, 1e300, True,
    False, None, "", "\0", "\ud7ff", "\U0010ffff", "x" * 9_000, "2026-01-01T00:00:00Z", [], ["a"], {},
    {"a": 1}, -62135596800000000, -62135596800000001, 253402300799999999, 253402300800000000,
]  # fmt: skip


@pytest.mark.parametrize("listed", LISTS, ids=lambda listed: listed.name)
async def test_a_forged_cursor_is_refused_or_gives_a_page(client: Client, world: World, listed: List) -> None:
    """It is never a fault: all of FORGED with every column that a list can be sorted by, and some of it in
    every other place."""
    chance = random.Random(listed.name)
    parent = world.parents(listed.parent)[0]
    for walk in (each for each in _walks(client, world, listed, chance) if each.parent == parent):
        cursor = (await walk.page("first: 1"))["pageInfo"]["endCursor"]
        scope, *key = orjson.loads(base64.urlsafe_b64decode(cursor))
        for place, forged in _forgeries(walk.order, len(key), chance):
            side = chance.choice(("first: 2, after", "last: 2, before"))
            parts = [scope, *key[:place], forged, *key[place + 1 :]]
            answer = await walk.answer(f'{side}: "{base64.urlsafe_b64encode(orjson.dumps(parts)).decode()}"')
            codes = [error["extensions"]["code"] for error in answer.get("errors", ())]
            assert codes in ([], ["INVALID_INPUT"]), (walk.order, side, place, forged)


def _forgeries(order: tuple[str, ...], parts: int, chance: random.Random) -> Iterator[tuple[int, Any]]:
    whole = not order or (len(order) == 1 and order[0].endswith("ASC"))
    for place in range(parts):
        tried = FORGED if whole and (place == 0 or not order) else chance.sample(FORGED, 2)
        yield from ((place, forged) for forged in tried)


# Variables that mean the same, for each list that takes filter and sort.
NOTHING: list[dict[str, Any]] = [{}, {"filter": {}}, {"sort": []}, {"filter": None, "sort": None}]
ALIKE: dict[str, list[list[dict[str, Any]]]] = {
    "users": [
        [{"filter": {"id": {"$gte": "u", "$lt": "v"}, "age": {"$ne": 1}}},
         {"filter": {"age": {"$ne": 1}, "id": {"$lt": "v", "$gte": "u"}}}],
        [{"filter": {"$nor": [{"age": 1}]}}, {"filter": {"$nor": [{"age": 1.0}]}, "sort": []}],
    ],
    "channels": [
        [{"filter": {"member_count": {"$gte": 1, "$lt": 1000}}},
         {"filter": {"member_count": {"$lt": 1e3, "$gte": 1.0}}}],
    ],
    "campaigns": [
        [{"filter": {"createdAt": {"gt": "2020-01-01T00:00:00Z"}, "name": {"gte": ""}}},
         {"filter": {"name": {"gte": ""}, "createdAt": {"gt": "2020-01-01T01:00:00.0+01:00"}}}],
    ],
}  # fmt: skip
KINDS = {
    "users": ("JSON", "User"),
    "channels": ("JSON", "Channel"),
    "campaigns": ("CampaignFilter", "Campaign"),
}


@pytest.mark.parametrize("field", sorted(ALIKE))
async def test_a_cursor_is_of_the_list_however_its_filter_is_written(
    client: Client, world: World, field: str
) -> None:
    kind, sort = KINDS[field]
    document = f"""query ($filter: {kind}, $sort: [{sort}Sort!], $after: String) {{
      {field}(first: 2, filter: $filter, sort: $sort, after: $after) {{
        nodes {{ id }} pageInfo {{ endCursor }} }} }}"""
    firsts = set()
    for alike in (NOTHING, *ALIKE[field]):
        pages = [(await client.data(document, **variables))[field] for variables in alike]
        assert pages[0]["nodes"] and all(page == pages[0] for page in pages)
        firsts.add(pages[0]["pageInfo"]["endCursor"])
        for variables in alike:
            await client.data(document, after=pages[0]["pageInfo"]["endCursor"], **variables)
    assert len(firsts) == 1 + len(ALIKE[field])

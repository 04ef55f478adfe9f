"""Pages of every list of the schema: each row once and in order, both ways, whatever comes and goes."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from app.database import Database
from app.graphql.nodes import decode_id
from tests.api.conftest import Client
from tests.api.lists import GRAPHQL, List, lists
from tests.api.world import World

LISTS = lists()
SIZE = 12
# What SEMANTICS.md allows a page to have.
LARGEST = {
    "Query.campaigns": 100,
    "Query.segments": 100,
    "Segment.campaigns": 100,
    "Query.users": 1_000,
    "Query.channels": 1_000,
    "User.channels": 1_000,
    "Channel.members": 1_000,
    "Channel.messages": 1_000,
    "Campaign.targets": 1_000,
    "Segment.targets": 10_000,
    "Campaign.recipients": 10_000,
    "WebhookEndpoint.deliveries": 100,
}
PAGE = "edges { cursor node { id %s } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
FILTERS = {
    "Query.users": 'filter: {name: "a"}',
    "Query.channels": "filter: {frozen: false}",
    "Query.segments": "filter: {type: {eq: USER}}",
    "Query.campaigns": "filter: {status: {eq: DRAFT}}",
    "Segment.targets": 'filter: {targetId: {gte: "a"}}',
    "Campaign.recipients": "filter: {status: {eq: SENT}}",
    "WebhookEndpoint.deliveries": "filter: {status: PENDING}",
}


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database, SIZE)
    await world.build()
    return world


class Walk:
    """One list of one parent, in one order, read page by page."""

    def __init__(self, client: Client, listed: List, parent: str, order: tuple[str, ...] = ()) -> None:
        self.client = client
        self.listed = listed
        self.parent = parent
        self.order = order
        self.field = _camel(order[0].split(" ")[0]) if order else ""

    async def page(self, *arguments: str) -> Any:
        answer = await self.answer(*arguments)
        assert "errors" not in answer, answer["errors"]
        return self.listed.found(answer["data"])

    async def answer(self, *arguments: str) -> dict[str, Any]:
        """The whole answer, errors included."""
        parts = (level.split(" ") for level in self.order)
        levels = ", ".join(f"{{field: {field}, direction: {way}}}" for field, way in parts)
        sort = f"sort: [{levels}]" if levels else ""
        return await self.client.execute(
            self.listed.asked(PAGE % self.field, *arguments, sort, parent_id=self.parent)
        )

    async def all(self) -> list[Any]:
        """Every edge, with one page."""
        page = await self.page("first: 100")
        assert not page["pageInfo"]["hasNextPage"] and not page["pageInfo"]["hasPreviousPage"]
        found: list[Any] = page["edges"]
        return found

    async def forward(self, chance: random.Random) -> list[Any]:
        """Every edge, page after page."""
        found: list[Any] = []
        after: str | None = None
        while True:
            size = chance.randint(2, 6)
            page = await self.page(f"first: {size}", f'after: "{after}"' if after else "")
            found += page["edges"]
            assert page["pageInfo"]["hasPreviousPage"] == (after is not None)
            assert len(page["edges"]) == size or not page["pageInfo"]["hasNextPage"]
            _check_ends(page)
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    async def backward(self, chance: random.Random) -> list[Any]:
        """Every edge in the list's own order, the last pages first."""
        found: list[Any] = []
        before: str | None = None
        while True:
            size = chance.randint(2, 6)
            page = await self.page(f"last: {size}", f'before: "{before}"' if before else "")
            found = page["edges"] + found
            assert page["pageInfo"]["hasNextPage"] == (before is not None)
            _check_ends(page)
            if not page["pageInfo"]["hasPreviousPage"]:
                return found
            before = page["pageInfo"]["startCursor"]


def _check_ends(page: Any) -> None:
    cursors = [edge["cursor"] for edge in page["edges"]]
    ends = (page["pageInfo"]["startCursor"], page["pageInfo"]["endCursor"])
    assert ends == ((cursors[0], cursors[-1]) if cursors else (None, None))


def _camel(name: str) -> str:
    first, *others = name.lower().split("_")
    return first + "".join(part.title() for part in others)


def _ids(edges: list[Any]) -> list[str]:
    return [edge["node"]["id"] for edge in edges]


def _walks(client: Client, world: World, listed: List, chance: random.Random) -> Iterator[Walk]:
    """The list of each parent in its own order, by each sort both ways, and by two at once."""
    levels = [f"{sort} {way}" for sort in listed.sorts for way in ("ASC", "DESC")]
    pairs = [tuple(chance.sample(levels, 2)) for _ in range(2)] if len(listed.sorts) > 1 else []
    for parent in world.parents(listed.parent):
        for order in [(), *((level,) for level in levels), *pairs]:
            yield Walk(client, listed, parent, order)


@pytest.mark.parametrize("listed", LISTS, ids=lambda listed: listed.name)
async def test_both_ways_give_every_row_once_in_the_same_order(
    client: Client, world: World, listed: List
) -> None:
    chance = random.Random(listed.name)
    for walk in _walks(client, world, listed, chance):
        whole = await walk.all()
        assert len(whole) >= 6 and len(set(_ids(whole))) == len(whole)
        assert await walk.forward(chance) == whole
        assert await walk.backward(chance) == whole
        _check_order(walk, whole)
        await _check_cursors(walk, whole, chance)


def _check_order(walk: Walk, edges: list[Any]) -> None:
    """By the first level, nulls last whichever way it goes."""
    if not walk.order:
        return
    values = [edge["node"][walk.field] for edge in edges]
    some = [value for value in values if value is not None]
    assert values == some + [None] * (len(values) - len(some))
    assert some == sorted(some, reverse=walk.order[0].endswith("DESC"))


async def _check_cursors(walk: Walk, whole: list[Any], chance: random.Random) -> None:
    """Two of them part the list exactly."""
    low, high = sorted(chance.sample(range(len(whole)), 2))
    after, before = f'after: "{whole[low]["cursor"]}"', f'before: "{whole[high]["cursor"]}"'
    assert (await walk.page("first: 100", after))["edges"] == whole[low + 1 :]
    assert (await walk.page("last: 100", before))["edges"] == whole[:high]
    assert (await walk.page("first: 2", after, before))["edges"] == whole[low + 1 : high][:2]
    assert (await walk.page("last: 2", after, before))["edges"] == whole[low + 1 : high][-2:]


@pytest.mark.parametrize("listed", LISTS, ids=lambda listed: listed.name)
async def test_what_comes_and_goes_meanwhile_neither_repeats_nor_hides_others(
    client: Client, world: World, listed: List
) -> None:
    chance = random.Random(listed.name)
    for parent, backward in itertools.product(world.parents(listed.parent), (False, True)):
        order = (f"{chance.choice(listed.sorts)} {chance.choice(['ASC', 'DESC'])}",) if listed.sorts else ()
        walk = Walk(client, listed, parent, order)
        stayed = set(_ids(await walk.all()))
        read, gone = await _read_while_it_changes(walk, world, chance, backward=backward)
        assert len(read) == len(set(read))
        assert stayed - gone <= set(read)
        left = _ids(await walk.all())
        assert [each for each in read if each in left] == [each for each in left if each in set(read)]


async def _read_while_it_changes(
    walk: Walk, world: World, chance: random.Random, *, backward: bool
) -> tuple[list[str], set[str]]:
    """What is read page by page, in the list's order, and what was taken out between the pages."""
    size, bound, more, end = ("first", "after", "hasNextPage", "endCursor")
    if backward:
        size, bound, more, end = ("last", "before", "hasPreviousPage", "startCursor")
    read, gone, page = list[str](), set[str](), await walk.page(f"{size}: 1")
    while True:
        read = _ids(page["edges"]) + read if backward else read + _ids(page["edges"])
        if not page["pageInfo"][more]:
            return read, gone
        if chance.random() < 0.5:
            await world.add(walk.listed.name, walk.parent)
        cursor_at = _ids(page["edges"])[0 if backward else -1]
        for each in _going(chance, cursor_at, await walk.all()):
            await world.remove(walk.listed.name, each, walk.parent)
            gone.add(each)
        page = await walk.page(f"{size}: {chance.randint(2, 4)}", f'{bound}: "{page["pageInfo"][end]}"')


def _going(chance: random.Random, cursor_at: str, whole: list[Any]) -> Iterator[str]:
    """Now and then a row goes: the one that the cursor stands at, or any other that can."""
    settled = [edge["node"]["id"] for edge in whole if not _is_pending(edge["node"]["id"])]
    if chance.random() < 0.3 and len(settled) > 3:
        at_cursor = [cursor_at] * 5 if cursor_at in settled else []
        yield chance.choice([*at_cursor, *settled])


def _is_pending(node_id: str) -> bool:
    """Pending recipients stand in their batch; they are settled, and never go."""
    kind, key = decode_id(node_id)
    return kind == "Recipient" and key.split(" ")[1].startswith("v")


async def test_wrong_sizes_have_codes(client: Client, world: World) -> None:
    for listed in LISTS:
        await _check_sizes(client, world, listed)


async def _check_sizes(client: Client, world: World, listed: List) -> None:
    parent, most = world.parents(listed.parent)[0], LARGEST[listed.name]

    async def refused(*arguments: str) -> tuple[str, Any]:
        error = await client.error(listed.asked("nodes { id }", *arguments, parent_id=parent))
        return error["extensions"]["code"], error["extensions"].get("details")

    assert await refused("first: 1", "last: 1") == ("INVALID_INPUT", None)
    assert await refused("first: -1") == ("INVALID_INPUT", {"given": -1})
    assert await refused("last: -1") == ("INVALID_INPUT", {"given": -1})
    for side in ("first", "last"):
        beyond = {"limit": most, "given": most + 1}
        assert await refused(f"{side}: {most + 1}") == ("LIMIT_EXCEEDED", beyond)
        nothing = await client.data(listed.asked("nodes { id }", f"{side}: 0", parent_id=parent))
        assert listed.found(nothing) == {"nodes": []}
        everything = await client.data(listed.asked("nodes { id }", f"{side}: {most}", parent_id=parent))
        assert listed.found(everything)["nodes"]


async def test_a_cursor_of_another_list_parent_sort_or_filter_is_refused(
    client: Client, world: World
) -> None:
    cursors = {}
    for listed in LISTS:
        page = await Walk(client, listed, world.parents(listed.parent)[0]).page("first: 1")
        cursors[listed] = page["pageInfo"]["endCursor"]
    assert len(set(cursors.values())) == len(LISTS)
    for (owner, cursor), listed in itertools.product(cursors.items(), LISTS):
        if owner is not listed:
            await _refused(client, world, listed, cursor)
    for listed, cursor in cursors.items():
        await Walk(client, listed, world.parents(listed.parent)[0]).page(f'after: "{cursor}"')
        for sort in listed.sorts:
            await _refused(client, world, listed, cursor, f"sort: [{{field: {sort}, direction: DESC}}]")
        if listed.name in FILTERS:
            await _refused(client, world, listed, cursor, FILTERS[listed.name])
        for parent in world.parents(listed.parent)[1:]:
            await _refused(client, world, listed, cursor, parent=parent)
        await _refused(client, world, listed, cursor[:-4] + "AAA=")
    filtered = [listed.name for listed in LISTS if "filter" in _arguments(listed)]
    assert sorted(filtered) == sorted(FILTERS)


async def _refused(
    client: Client, world: World, listed: List, cursor: str, *arguments: str, parent: str | None = None
) -> None:
    at = parent or world.parents(listed.parent)[0]
    for side in ("after", "before"):
        error = await client.error(
            listed.asked("nodes { id }", f'{side}: "{cursor}"', *arguments, parent_id=at)
        )
        assert error["extensions"]["code"] == "INVALID_INPUT", (listed.name, arguments)


def _arguments(listed: List) -> set[str]:
    kind: Any = GRAPHQL.type_map[listed.parent]
    return set(kind.fields[listed.field].args)


PAGES_OF_PARENTS = {"User": "users", "Channel": "channels", "Segment": "segments", "Campaign": "campaigns"}
NESTED = [listed for listed in LISTS if listed.parent != "Query"]


@pytest.mark.parametrize("listed", NESTED, ids=lambda listed: listed.name)
async def test_siblings_are_read_as_each_alone_would_be(client: Client, world: World, listed: List) -> None:
    """Lists within a page are read together, each from where it begins to where its page ends."""
    chosen = {"", FILTERS.get(listed.name, "")}
    for size, filtered in itertools.product(("first: 3", "last: 3", "first: 0"), chosen):
        selection = "totalCount edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage }"
        parents = await _parents(client, listed, f"id {listed.within(selection, size, filtered)}")
        for parent in parents[:: max(1, len(parents) // 4)]:
            alone = await client.data(listed.asked(selection, size, filtered, parent_id=parent["id"]))
            assert listed.found(alone) == parent[listed.field]


async def _parents(client: Client, listed: List, selection: str) -> list[Any]:
    """Every parent of this list, several of them."""
    if listed.parent == "WebhookEndpoint":
        found = (await client.data(f"{{ webhookEndpoints {{ {selection} }} }}"))["webhookEndpoints"]
    else:
        page = PAGES_OF_PARENTS[listed.parent]
        found = (await client.data(f"{{ {page} {{ nodes {{ {selection} }} }} }}"))[page]["nodes"]
    assert len(found) >= 3
    parents: list[Any] = found
    return parents

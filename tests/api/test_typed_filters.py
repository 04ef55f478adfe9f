"""Typed filters of lists: every field and operator, beside a plain reading of what stands in the rows.

What there is to ask is found by introspection, so that a new field or operator is asked for as well. The
rows are read through the API, without a filter; every random filter has to give exactly those that hold.
"""

import operator
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from graphql import GraphQLEnumType, get_named_type
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.database import Database
from app.ledger.models import Batch, BatchRead, BatchReason, Recipient
from app.segments.models import Segment
from tests.api.conftest import Client
from tests.api.lists import GRAPHQL, List, lists
from tests.api.world import BEGIN, World
from tests.semantics.filtering import _begins_a_word

SIZE = 18
EACH = 4  # filters of one operator alone
MIXED = 100  # of several
AT_ONCE = 15
OUTCOMES = [(1, None), (2, 1), (2, 4), (3, 9)]  # status and reason, as they are stored
NAMES = [
    None,
    "",
    "a",
    "B",
    "b",
    "Ä",
    "ä ä",
    "anna Änna",
    "new-year",
    "New Year",
    "日本",
    "a%",
    "_",
    "😀",
    "\uffff",
]
ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
READ = {
    "Query.campaigns": "campaignId name senderId status scheduledFor createdAt updatedAt"
    " segments { segmentId }",
    "Query.segments": "segmentId name type allUsers createdAt updatedAt",
    "Segment.targets": "targetId",
    "Campaign.recipients": "targetId status reason readAt",
}
VALUES: Mapping[tuple[str, str], Callable[[Any], Any]] = {
    ("Query.campaigns", "segmentId"): lambda row: [each["segmentId"] for each in row["segments"]],
    ("Campaign.recipients", "read"): lambda row: row["readAt"] is not None,
}
TYPED = [each for each in lists() if each.name in READ]


@pytest.fixture
async def world(database: Database) -> World:
    """A world whose rows differ in everything that can be asked for."""
    world = World(database, SIZE)
    await world.build()
    chance = world.chance
    async with database.transaction() as session:
        for campaign in (await session.execute(select(Campaign))).scalars():
            campaign.name = chance.choice(NAMES)
            campaign.sender_id = chance.choice(["u00", "u01", "anna"])
            campaign.status = chance.choice(["DRAFT", "SCHEDULED", "IN_PROGRESS", "PAUSED", "STOPPED"])
        for segment in (await session.execute(select(Segment))).scalars():
            segment.name = chance.choice(NAMES) or ""
        await settle_otherwise(session, world.campaigns)
    return world


async def settle_otherwise(session: AsyncSession, campaigns: list[int]) -> None:
    """Gives recipients every kind of outcome, and the batch that counts them the same."""
    await session.execute(delete(BatchReason))
    for place, row in enumerate((await session.execute(select(Recipient))).scalars()):
        row.status, row.reason = OUTCOMES[place % SIZE % len(OUTCOMES)]
        row.read_at = BEGIN if place % SIZE == 0 else None
    settled = Counter(OUTCOMES[place % len(OUTCOMES)] for place in range(SIZE))
    for batch in (await session.execute(select(Batch).where(col(Batch.batch_no) == 1))).scalars():
        for status, name in enumerate(("sent", "skipped", "failed"), start=1):
            setattr(batch, name, sum(count for outcome, count in settled.items() if outcome[0] == status))
    for number in campaigns:
        session.add(BatchRead(campaign_no=number, batch_no=1, users_read=1))
        session.add_all(
            BatchReason(campaign_no=number, reason=reason, batch_no=1, count=count, samples=[])
            for (_, reason), count in settled.items()
            if reason
        )


def test_every_typed_filter_is_asked_for() -> None:
    def filtered(listed: List) -> bool:
        kind: Any = GRAPHQL.type_map[listed.parent]
        given = kind.fields[listed.field].args.get("filter")
        return given is not None and get_named_type(given.type).name != "JSON"

    others = {"WebhookEndpoint.deliveries"}  # two plain values: asked for where deliveries are tested
    assert {each.name for each in lists() if filtered(each)} - others == set(READ)


@pytest.mark.parametrize("listed", TYPED, ids=lambda listed: listed.name)
async def test_a_filter_gives_the_rows_that_hold(client: Client, world: World, listed: List) -> None:
    made = Maker(listed, random.Random(listed.name))
    some = 0
    for parent in world.parents(listed.parent):
        whole = await client.data(
            listed.asked(f"nodes {{ id {READ[listed.name]} }}", "first: 100", parent_id=parent)
        )
        rows = listed.found(whole)["nodes"]
        made.learn(rows)
        filters = [*made.alone(), *(made.filter() for _ in range(MIXED))]
        for part in (filters[at : at + AT_ONCE] for at in range(0, len(filters), AT_ONCE)):
            found = await answers(client, listed, made.kind, parent, part)
            for given, ids in zip(part, found, strict=True):
                assert ids == [row["id"] for row in rows if made.holds(given, row)], given
                some += 0 < len(ids) < len(rows)
    assert some > MIXED / 4  # enough of them tell rows apart


async def answers(
    client: Client, listed: List, kind: str, parent: str, filters: list[dict[str, Any]]
) -> list[list[str]]:
    """The ids that each filter gives, and as many as totalCount says."""
    names = [f"f{place}" for place in range(len(filters))]
    declared = ", ".join(f"${name}: {kind}" for name in names)
    within = " ".join(
        f"{name}: {listed.within('totalCount nodes { id }', 'first: 100', f'filter: ${name}')}"
        for name in names
    )
    asked = (
        within
        if listed.parent == "Query"
        else f'node(id: "{parent}") {{ ... on {listed.parent} {{ {within} }} }}'
    )
    data = await client.data(f"query ({declared}) {{ {asked} }}", **dict(zip(names, filters, strict=True)))
    pages = data if listed.parent == "Query" else data["node"]
    found = [[node["id"] for node in pages[name]["nodes"]] for name in names]
    assert [pages[name]["totalCount"] for name in names] == [len(ids) for ids in found]
    return found


class Maker:
    """Random filters of a list, and what they mean."""

    def __init__(self, listed: List, chance: random.Random) -> None:
        parent: Any = GRAPHQL.type_map[listed.parent]
        self.kind = get_named_type(parent.fields[listed.field].args["filter"].type).name
        self.fields: dict[str, Any] = {
            name: get_named_type(field.type) for name, field in GRAPHQL.type_map[self.kind].fields.items()
        }
        self.name = listed.name
        self.chance = chance
        self.values: dict[str, list[Any]] = {}

    def learn(self, rows: list[Any]) -> None:
        """What there is to compare with: what stands in the rows, and what stands beside it."""
        for name in self.fields.keys() - {"and", "or"}:
            found = [self.value(row, name) for row in rows]
            flat = [one for each in found for one in (each if isinstance(each, list) else [each])]
            self.values[name] = [each for each in flat if each is not None] or ["nobody"]

    def alone(self) -> Iterator[dict[str, Any]]:
        """Every operator of every field by itself."""
        for name, kind in self.fields.items():
            for _ in range(EACH):
                if name in ("and", "or") or not hasattr(kind, "fields"):
                    yield {name: self._part(name, 1)}
                else:
                    yield from ({name: self._comparisons(name, [each])} for each in kind.fields)

    def filter(self, depth: int = 2) -> dict[str, Any]:
        """A filter of one to three fields."""
        usable = [name for name in self.fields if depth or name not in ("and", "or")]
        return {
            name: self._part(name, depth)
            for name in self.chance.sample(usable, min(len(usable), self._few()))
        }

    def _few(self) -> int:
        return self.chance.choice([1, 1, 1, 2, 3])

    def _part(self, name: str, depth: int) -> Any:
        kind = self.fields[name]
        if name in ("and", "or"):
            return [self.filter(depth - 1) for _ in range(self._few())]
        if not hasattr(kind, "fields"):
            return self.chance.choice([True, False])
        return self._comparisons(name, self.chance.sample([*kind.fields], min(len(kind.fields), self._few())))

    def _comparisons(self, name: str, operators: list[str]) -> dict[str, Any]:
        fields = self.fields[name].fields
        return {each: self._operand(name, each, get_named_type(fields[each].type)) for each in operators}

    def _operand(self, name: str, comparison: str, kind: Any) -> Any:
        if comparison == "exists" or kind.name == "Boolean":
            return self.chance.choice([True, False])
        if comparison == "in":
            return [self._value(name, kind) for _ in range(self.chance.randint(0, 3))]
        if comparison == "autocomplete":
            return (str(self._value(name, kind)) or "a")[: self.chance.randint(1, 4)].swapcase()
        return self._value(name, kind)

    def _value(self, name: str, kind: Any) -> Any:
        if isinstance(kind, GraphQLEnumType):
            return self.chance.choice([*self.values[name], *kind.values])
        if kind.name == "DateTime":
            return self.chance.choice([*self.values[name], "2026-01-01T00:00:00.000002+00:00"])
        return self.chance.choice([*self.values[name], "", "a", "zz"])

    def value(self, row: Any, name: str) -> Any:
        """What stands in a row, several values of which one has to hold."""
        read = VALUES.get((self.name, name))
        return read(row) if read else row[name]

    def holds(self, given: Mapping[str, Any], row: Any) -> bool:
        """Whether a row is chosen: everything holds."""
        return all(self._holds(name, part, row) for name, part in given.items())

    def _holds(self, name: str, part: Any, row: Any) -> bool:
        if name == "and":
            return all(self.holds(each, row) for each in part)
        if name == "or":
            return any(self.holds(each, row) for each in part)
        value = self.value(row, name)
        if not isinstance(part, dict):
            return bool(value == part)
        alternatives = value if isinstance(value, list) else [value]
        return any(all(_compares(one, *each) for each in part.items()) for one in alternatives)


def _compares(value: Any, comparison: str, operand: Any) -> bool:
    if comparison == "exists":
        return (value is not None) is operand
    if value is None:
        return False
    match comparison:
        case "eq":
            return bool(_instant(value) == _instant(operand))
        case "in":
            return _instant(value) in map(_instant, operand)
        case "autocomplete":
            return _begins_a_word(value.lower(), operand.lower())
    return bool(ORDERS[comparison](_instant(value), _instant(operand)))


def _instant(value: Any) -> Any:
    """Times as the API writes them, which are ordered as texts are; every other value as it is."""
    return (
        value.replace("+00:00", "Z") if isinstance(value, str) and value.startswith("2026-01-01T") else value
    )

"""Connections: pages, page info, cursors that belong to one list, and counting only when asked."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import strawberry
from strawberry.schema.config import StrawberryConfig

from app.errors import InvalidInput
from app.graphql.connections import Cursors, Listing, connection
from app.graphql.context import Info
from app.graphql.execution import CarillonSchema
from app.graphql.nodes import Node
from app.graphql.scalars import SCALARS
from app.keys.roles import Role
from app.keyset import Bounds, Key

NAMES = [f"n{number:02}" for number in range(25)]
counted: list[int] = []


def names(node: Any) -> Listing[str]:
    async def fetch(bounds: Bounds) -> Sequence[tuple[str, Key]]:
        rows = [
            name
            for name in NAMES
            if (bounds.after is None or (name,) > bounds.after)
            and (bounds.before is None or (name,) < bounds.before)
        ]
        walked = rows[::-1] if bounds.backward else rows
        return [(name, (name,)) for name in walked[: bounds.limit]]

    async def count() -> int:
        counted.append(1)
        return len(NAMES)

    return Listing(fetch=fetch, kinds=(str,), node=node, count=count)


@strawberry.type(description="A name.")
class Name(Node):
    text: str

    @classmethod
    def of(cls, text: str) -> "Name":
        return cls(id=cls.global_id(text), text=text)

    @connection(
        Annotated["Name", strawberry.lazy("tests.unit.test_graphql_connections")],
        max_size=5,
        description="More names.",
    )
    async def others(self, info: Info) -> Any:
        return names(Name.of)


@strawberry.type
class Query:
    @connection(Name, max_size=10, description="All names.")
    async def names(self, info: Info, prefix: str | None = None) -> Any:
        return names(Name.of)


schema = CarillonSchema(query=Query, config=StrawberryConfig(scalar_map=SCALARS))
PAGE = """query ($first: Int, $after: String, $last: Int, $before: String) {
  names(first: $first, after: $after, last: $last, before: $before) {
    nodes { text } edges { cursor node { text } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


async def run(query: str, **variables: Any) -> Any:
    context = SimpleNamespace(viewer=SimpleNamespace(role=Role.VIEWER), loaders={})
    return await schema.execute(query, variable_values=variables, context_value=context)


async def page(**arguments: Any) -> dict[str, Any]:
    result = await run(PAGE, **arguments)
    assert result.errors is None, result.errors
    found: dict[str, Any] = result.data["names"]
    assert [edge["node"] for edge in found["edges"]] == found["nodes"]
    return found


def texts(found: dict[str, Any]) -> list[str]:
    return [node["text"] for node in found["nodes"]]


async def test_forward_through_the_list() -> None:
    first = await page(first=10)
    assert texts(first) == NAMES[:10]
    assert first["pageInfo"]["hasNextPage"]
    assert not first["pageInfo"]["hasPreviousPage"]
    assert first["pageInfo"]["startCursor"] == first["edges"][0]["cursor"]
    second = await page(first=10, after=first["pageInfo"]["endCursor"])
    third = await page(first=10, after=second["pageInfo"]["endCursor"])
    assert texts(second) + texts(third) == NAMES[10:]
    assert second["pageInfo"]["hasPreviousPage"]
    assert not third["pageInfo"]["hasNextPage"]


async def test_backward_keeps_the_lists_order() -> None:
    last = await page(last=10)
    assert texts(last) == NAMES[15:]
    assert last["pageInfo"]["hasPreviousPage"]
    assert not last["pageInfo"]["hasNextPage"]
    before = await page(last=10, before=last["pageInfo"]["startCursor"])
    assert texts(before) == NAMES[5:15]
    assert before["pageInfo"]["hasNextPage"]


async def test_without_a_size_there_are_30_or_the_maximum() -> None:
    assert len((await page())["nodes"]) == 10
    assert (await page(first=0))["nodes"] == []
    assert (await page(first=0))["pageInfo"]["hasNextPage"]


@pytest.mark.parametrize(
    ("arguments", "code", "details"),
    [
        ({"first": 1, "last": 1}, "INVALID_INPUT", None),
        ({"first": -1}, "INVALID_INPUT", {"given": -1}),
        ({"last": 11}, "LIMIT_EXCEEDED", {"limit": 10, "given": 11}),
        ({"after": ""}, "INVALID_INPUT", None),
        ({"after": "nonsense"}, "INVALID_INPUT", None),
        ({"before": "W10="}, "INVALID_INPUT", None),
        ({"before": "é"}, "INVALID_INPUT", None),
    ],
)
async def test_wrong_arguments_have_codes(arguments: Any, code: str, details: Any) -> None:
    result = await run(PAGE, **arguments)
    assert len(result.errors) == 1
    extensions = result.errors[0].extensions
    assert (extensions["code"], extensions.get("details")) == (code, details)


async def test_a_cursor_belongs_to_its_list_parent_and_filter() -> None:
    nested = "{ names(first: 2) { nodes { others(first: 1) { edges { cursor } } } } }"
    found = (await run(nested)).data["names"]["nodes"]
    cursors = {node["others"]["edges"][0]["cursor"] for node in found}
    cursors.add((await page(first=1))["pageInfo"]["endCursor"])
    assert len(cursors) == 3
    mine = (await page(first=1))["pageInfo"]["endCursor"]
    other = 'query ($after: String) { names(prefix: "n", after: $after) { nodes { text } } }'
    result = await run(other, after=mine)
    assert result.errors[0].extensions["code"] == "INVALID_INPUT"
    assert "same filter and sort" in result.errors[0].message


async def test_counting_happens_only_when_asked_for() -> None:
    counted.clear()
    await page(first=1)
    assert counted == []
    assert (await run("{ names { totalCount } }")).data == {"names": {"totalCount": 25}}
    assert counted == [1]


def test_cursors_keep_every_kind_of_key_exactly() -> None:
    key = ("ü'\"", -(2**63) + 1, 0.5, True, datetime(2026, 1, 1, 1, 1, 1, 123456, tzinfo=UTC), None)
    cursors = Cursors("scope", (str, int, float, bool, datetime, str))
    assert cursors.key(cursors.of(key), "after") == key


@pytest.mark.parametrize("key", [(1,), ("a", "b"), (), (["a"],), ({"a": 1},), ("\0",), (True,), (2**70,)])
def test_forged_keys_are_refused(key: Any) -> None:
    forged = base64.urlsafe_b64encode(json.dumps(["scope", *key]).encode()).decode()
    with pytest.raises(InvalidInput):
        Cursors("scope", (str,)).key(forged, "after")

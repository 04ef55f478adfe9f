"""Segments over GraphQL: kinds, lists, sizes, targets, filters of their list, deletion."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.database import Database, now
from app.segments import queries, service
from app.segments.models import Segment
from tests.api.conftest import Client

ERRORS = "errors { code message path details }"
FIELDS = (
    "id segmentId type name description filter allUsers allSenderChannels size sizeAsOf sizeState deletedAt"
)
CREATE = f"""mutation ($input: CreateSegmentInput!) {{
  createSegment(input: $input) {{ segment {{ {FIELDS} }} {ERRORS} }} }}"""
UPDATE = CREATE.replace("CreateSegment", "UpdateSegment").replace("createSegment", "updateSegment")
DELETE = f"mutation ($id: String!) {{ deleteSegment(input: {{segmentId: $id}}) {{ deletedIds {ERRORS} }} }}"
ADD = f"""mutation ($id: String!, $ids: [String!]!) {{
  addSegmentTargets(input: {{segmentId: $id, targetIds: $ids}}) {{ segment {{ {FIELDS} }} {ERRORS} }} }}"""
REMOVE = ADD.replace("addSegment", "removeSegment")
READ = f"query ($id: String!) {{ segment(segmentId: $id) {{ {FIELDS} }} }}"
TARGETS = """query ($id: String!, $sender: String, $filter: TargetFilter, $sort: [TargetSort!], $first: Int) {
  segment(segmentId: $id) {
    targets(senderId: $sender, filter: $filter, sort: $sort, first: $first) {
      nodes { id targetId createdAt user { userId name } channel { cid } } totalCount
    }
  }
}"""
LIST = """query ($filter: SegmentFilter, $sort: [SegmentSort!]) {
  segments(filter: $filter, sort: $sort) { nodes { segmentId } totalCount } }"""
USERS = "mutation ($users: [UserInput!]!) { upsertUsers(input: {users: $users}) { errors { message } } }"


async def create(client: Client, **given: Any) -> Any:
    return (await client.data(CREATE, input={"type": "USER", **given}))["createSegment"]


async def created(client: Client, **given: Any) -> Any:
    payload = await create(client, **given)
    assert payload["errors"] == []
    return payload["segment"]


async def users(client: Client, *given: dict[str, Any]) -> None:
    assert (await client.data(USERS, users=given))["upsertUsers"]["errors"] == []


async def targets(client: Client, segment_id: str, **given: Any) -> Any:
    return (await client.data(TARGETS, id=segment_id, **given))["segment"]["targets"]


async def listed(client: Client, **given: Any) -> list[str]:
    found = (await client.data(LIST, **given))["segments"]
    assert found["totalCount"] == len(found["nodes"])
    return [node["segmentId"] for node in found["nodes"]]


async def test_a_manual_list(client: Client) -> None:
    await users(client, {"userId": "a", "name": "Ann"})
    made = await created(client, segmentId="vip", name="VIPs", description="The best")
    assert (made["size"], made["sizeState"], made["filter"], made["allUsers"]) == (0, "READY", None, False)
    added = (await client.data(ADD, id="vip", ids=["b", "a", "a"]))["addSegmentTargets"]
    assert (added["errors"], added["segment"]["size"]) == ([], 2)
    found = await targets(client, "vip")
    assert found["totalCount"] == 2
    ann, nobody = found["nodes"]
    assert (ann["targetId"], ann["user"], ann["channel"]) == ("a", {"userId": "a", "name": "Ann"}, None)
    assert (nobody["targetId"], nobody["user"]) == ("b", None)
    assert ann["createdAt"] is not None
    node = "query ($id: ID!) { node(id: $id) { id ... on Target { targetId } } }"
    assert (await client.data(node, id=ann["id"]))["node"] == {"id": ann["id"], "targetId": "a"}
    removed = (await client.data(REMOVE, id="vip", ids=["a", "nobody"]))["removeSegmentTargets"]
    assert (removed["errors"], removed["segment"]["size"]) == ([], 1)
    assert (await client.data(node, id=ann["id"]))["node"] is None
    exists = """query { segment(segmentId: "vip") {
      a: targetExists(targetId: "a") b: targetExists(targetId: "b") } }"""
    assert (await client.data(exists))["segment"] == {"a": False, "b": True}


async def test_targets_are_filtered_and_sorted(client: Client) -> None:
    await created(client, segmentId="s")
    await client.data(ADD, id="s", ids=["ann", "bob", "bo-ann"])
    for given, expected in (
        ({"filter": {"targetId": {"gt": "ann"}}}, ["bo-ann", "bob"]),
        ({"filter": {"targetId": {"in": ["ann", "x"]}}}, ["ann"]),
        ({"filter": {"targetId": {"autocomplete": "ANN"}}}, ["ann", "bo-ann"]),
        ({"sort": [{"field": "TARGET_ID", "direction": "DESC"}], "first": 2}, ["bob", "bo-ann"]),
    ):
        assert [node["targetId"] for node in (await targets(client, "s", **given))["nodes"]] == expected
    error = await client.error(TARGETS, id="s", filter={"targetId": {"eq": None}})
    assert error["extensions"]["code"] == "INVALID_INPUT"


async def test_a_filter_is_counted_and_its_targets_are_those_of_now(
    client: Client, database: Database
) -> None:
    await users(client, *({"userId": f"u{n}", "custom": {"age": n}} for n in range(5)))
    made = await created(client, segmentId="f", filter={"age": {"$gte": 3}})
    assert (made["size"], made["sizeState"], made["filter"]) == (None, "COMPUTING", {"age": {"$gte": 3}})
    await count(database)
    segment = (await client.data(READ, id="f"))["segment"]
    assert (segment["size"], segment["sizeState"]) == (2, "READY")
    found = await targets(client, "f")
    assert [(node["targetId"], node["createdAt"]) for node in found["nodes"]] == [("u3", None), ("u4", None)]
    changed = await client.data(UPDATE, input={"segmentId": "f", "filter": {"age": 1}, "name": "One"})
    assert changed["updateSegment"]["segment"]["sizeState"] == "COMPUTING"
    async with database.transaction() as session:
        await session.execute(
            update(Segment).values(size_state="READY", size_as_of=await now(session) - timedelta(hours=1))
        )
    segment = (await client.data(READ, id="f"))["segment"]
    assert (segment["size"], segment["sizeState"], segment["name"]) == (2, "COMPUTING", "One")
    await count(database)
    segment = (await client.data(READ, id="f"))["segment"]
    assert (segment["size"], segment["sizeState"]) == (1, "READY")


async def count(database: Database) -> None:
    async with database.read() as session:
        waiting = await queries.computing(session)
    assert waiting
    for segment_no in waiting:
        await service.count_size(database, segment_no)


async def test_all_channels_of_a_sender_need_one(client: Client) -> None:
    made = await created(client, segmentId="c", type="CHANNEL", allSenderChannels=True)
    assert (made["size"], made["sizeState"], made["allSenderChannels"]) == (None, "NEVER", True)
    assert (await client.error(TARGETS, id="c"))["extensions"]["code"] == "INVALID_INPUT"
    assert (await targets(client, "c", sender="s"))["nodes"] == []
    exists = 'query { segment(segmentId: "c") { targetExists(targetId: "a:b") } }'
    assert (await client.error(exists))["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ({"filter": {}}, "INVALID_INPUT", ["filter"]),
        ({"filter": {"$or": [{"age": {"$in": 5}}]}}, "INVALID_INPUT", ["filter", "$or", "0", "age", "$in"]),
        ({"filter": {"a": 1}, "allUsers": True}, "INVALID_INPUT", []),
        ({"type": "CHANNEL", "allUsers": True}, "INVALID_INPUT", ["allUsers"]),
        ({"allSenderChannels": True}, "INVALID_INPUT", ["allSenderChannels"]),
        ({"segmentId": "a b"}, "INVALID_INPUT", ["segmentId"]),
        ({"name": "x" * 129}, "LIMIT_EXCEEDED", ["name"]),
        ({"segmentId": "taken"}, "ALREADY_EXISTS", ["segmentId"]),
    ],
)
async def test_refused_at_creation(client: Client, given: dict[str, Any], code: str, path: list[str]) -> None:
    await created(client, segmentId="taken")
    refused = await create(client, **given)
    assert refused["segment"] is None
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [(code, path)]
    assert await listed(client) == ["taken"]


async def test_refused_changes(client: Client) -> None:
    await created(client, segmentId="all", allUsers=True)
    for query, variables, code, path in (
        (UPDATE, {"input": {"segmentId": "all", "filter": {"a": 1}}}, "CONFLICT", ["filter"]),
        (UPDATE, {"input": {"segmentId": "all", "name": None}}, "INVALID_INPUT", ["name"]),
        (UPDATE, {"input": {"segmentId": "x", "name": "n"}}, "NOT_FOUND", ["segmentId"]),
        (ADD, {"id": "all", "ids": ["a"]}, "CONFLICT", ["segmentId"]),
        (ADD, {"id": "all", "ids": []}, "INVALID_INPUT", ["targetIds"]),
        (ADD, {"id": "all", "ids": ["a", "a b"]}, "INVALID_INPUT", ["targetIds", "1"]),
        (DELETE, {"id": "x"}, "NOT_FOUND", ["segmentId"]),
    ):
        [payload] = (await client.data(query, **variables)).values()
        assert [(error["code"], error["path"]) for error in payload["errors"]] == [(code, path)]


async def test_the_list_of_segments(client: Client) -> None:
    await created(client, segmentId="a", name="Spring sale")
    await created(client, segmentId="b", name="All", allUsers=True)
    await created(client, segmentId="c", name="Rooms", type="CHANNEL")
    await client.data(ADD, id="a", ids=["x"])
    assert await listed(client) == ["c", "b", "a"]
    for given, expected in (
        ({"filter": {"type": {"eq": "USER"}}}, ["b", "a"]),
        ({"filter": {"type": {"in": ["CHANNEL"]}}}, ["c"]),
        ({"filter": {"allUsers": {"eq": True}}}, ["b"]),
        ({"filter": {"allUsers": {"eq": False}}}, ["c", "a"]),
        ({"filter": {"name": {"autocomplete": "sAl"}}}, ["a"]),
        (
            {
                "filter": {
                    "or": [{"segmentId": {"eq": "a"}}, {"name": {"gt": "R"}, "type": {"eq": "CHANNEL"}}]
                }
            },
            ["c", "a"],
        ),
        ({"filter": {"and": [{"createdAt": {"gt": "2020-01-01T00:00:00Z"}}, {"name": {"lt": "B"}}]}}, ["b"]),
        ({"sort": [{"field": "NAME"}]}, ["b", "c", "a"]),
        ({"sort": [{"field": "SIZE", "direction": "DESC"}]}, ["a", "c", "b"]),
    ):
        assert await listed(client, **given) == expected


async def test_a_deleted_segment_is_gone_and_its_id_free(client: Client) -> None:
    made = await created(client, segmentId="s")
    deleted = (await client.data(DELETE, id="s"))["deleteSegment"]
    assert deleted == {"deletedIds": [made["id"]], "errors": []}
    assert (await client.data(READ, id="s"))["segment"] is None
    node = "query ($id: ID!) { node(id: $id) { id } }"
    assert (await client.data(node, id=made["id"]))["node"] is None
    assert (await created(client, segmentId="s"))["id"] != made["id"]

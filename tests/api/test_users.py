"""Users over GraphQL: upserts, look-ups, filters, sorts, pages, and every refusal with its place."""

from typing import Any

import pytest

from tests.api.conftest import Client

UPSERT = """
mutation ($users: [UserInput!]!) {
  upsertUsers(input: {users: $users}) {
    users {
      id userId name role language teams imageUrl custom createdAt updatedAt lastActiveAt deactivatedAt
    }
    errors { code message path details }
  }
}
"""
LIST = """
query ($filter: JSON, $sort: [UserSort!], $first: Int, $after: String, $last: Int, $before: String) {
  users(filter: $filter, sort: $sort, first: $first, after: $after, last: $last, before: $before) {
    nodes { userId } edges { cursor node { userId } } totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


async def upsert(client: Client, *users: dict[str, Any]) -> Any:
    return (await client.data(UPSERT, users=users))["upsertUsers"]


async def ids(client: Client, **variables: Any) -> list[str]:
    page = (await client.data(LIST, **variables))["users"]
    assert [edge["node"] for edge in page["edges"]] == page["nodes"]
    return [node["userId"] for node in page["nodes"]]


async def test_a_user_is_created_changed_and_found(client: Client) -> None:
    given = {
        "userId": "ann",
        "name": "Änn",
        "role": "admin",
        "language": "de",
        "teams": ["red"],
        "imageUrl": "https://example.com/a.png",
        "custom": {"country": "AT", "address": {"city": "Graz"}},
        "lastActiveAt": "2026-01-01T02:00:00+02:00",
        "deactivated": True,
    }
    made = await upsert(client, given)
    assert made["errors"] == []
    [ann] = made["users"]
    del given["deactivated"]
    assert ann["deactivatedAt"] == ann["createdAt"] == ann["updatedAt"]
    given["lastActiveAt"] = "2026-01-01T00:00:00.000000Z"
    assert {key: ann[key] for key in given} == given
    [changed] = (await upsert(client, {"userId": "ann", "name": None, "deactivated": False}))["users"]
    assert (changed["name"], changed["language"], changed["deactivatedAt"]) == (None, "de", None)
    assert changed["id"] == ann["id"]
    found = await client.data(
        'query ($id: ID!) { user(userId: "ann") { id } none: user(userId: "bob") { id } '
        "node(id: $id) { id __typename } }",
        id=ann["id"],
    )
    assert found == {"user": {"id": ann["id"]}, "none": None, "node": {"id": ann["id"], "__typename": "User"}}


async def test_refusals_name_the_place_and_nothing_is_stored(client: Client) -> None:
    refused = await upsert(
        client,
        {"userId": "fine"},
        {"userId": "not fine", "imageUrl": "x" * 2_049, "custom": {"created_at": 1}},
        {"userId": "fine"},
    )
    assert refused["users"] == []
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("INVALID_INPUT", ["users", "1", "userId"]),
        ("LIMIT_EXCEEDED", ["users", "1", "imageUrl"]),
        ("INVALID_INPUT", ["users", "1", "custom", "created_at"]),
        ("INVALID_INPUT", ["users", "2", "userId"]),
    ]
    assert refused["errors"][1]["details"] == {"limit": 2_048, "given": 2_049}
    assert await ids(client) == []


@pytest.mark.parametrize(("count", "code"), [(0, "INVALID_INPUT"), (1_001, "LIMIT_EXCEEDED")])
async def test_one_to_a_thousand_at_once(client: Client, count: int, code: str) -> None:
    refused = await upsert(client, *({"userId": str(number)} for number in range(count)))
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [(code, ["users"])]


async def test_a_viewer_reads_and_changes_nothing(client: Client, viewer: Client) -> None:
    await upsert(client, {"userId": "a"})
    assert await ids(viewer) == ["a"]
    error = await viewer.error(UPSERT, users=[{"userId": "b"}])
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert await ids(viewer) == ["a"]


async def test_filters_and_sorts(client: Client) -> None:
    await upsert(
        client,
        {"userId": "a", "name": "Zoe", "custom": {"age": 30}, "lastActiveAt": "2026-01-02T00:00:00Z"},
        {"userId": "B", "name": "Ann", "custom": {"age": 20}, "teams": ["red"]},
        {"userId": "c", "custom": {"age": "20"}, "lastActiveAt": "2026-01-01T00:00:00Z"},
    )
    assert await ids(client) == ["B", "a", "c"]
    assert await ids(client, filter={}) == ["B", "a", "c"]
    assert await ids(client, filter={"age": {"$gte": 20}}) == ["B", "a"]
    assert await ids(client, filter={"$or": [{"team": "red"}, {"name": {"$exists": False}}]}) == ["B", "c"]
    assert await ids(client, sort=[{"field": "NAME"}]) == ["B", "a", "c"]
    assert await ids(client, sort=[{"field": "NAME", "direction": "DESC"}]) == ["a", "B", "c"]
    assert await ids(client, sort=[{"field": "LAST_ACTIVE_AT"}]) == ["c", "a", "B"]
    assert await ids(client, sort=[{"field": "USER_ID", "direction": "DESC"}]) == ["c", "a", "B"]
    error = await client.error(LIST, filter={"age": {"$like": 1}})
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["extensions"]["inputPath"] == ["filter", "age", "$like"]
    assert "$gte" in error["extensions"]["details"]["allowed"]


async def test_pages_in_both_directions(client: Client) -> None:
    await upsert(client, *({"userId": f"u{number:02}", "name": "same"} for number in range(25)))
    for sort in (None, [{"field": "NAME", "direction": "DESC"}]):
        whole = await ids(client, sort=sort, first=100)
        assert sorted(whole) == [f"u{number:02}" for number in range(25)]
        walked: list[str] = []
        after = None
        while True:
            page = (await client.data(LIST, sort=sort, first=10, after=after))["users"]
            walked += [node["userId"] for node in page["nodes"]]
            assert page["totalCount"] == 25
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert walked == whole
        assert await ids(client, sort=sort, last=10, before=after) == whole[14:24]
    error = await client.error(LIST, first=1_001)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"

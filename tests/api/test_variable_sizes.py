"""What variables hold too much of is refused before they are coerced, and so is what a viewer may not do."""

from typing import Any

import pytest

from app.graphql import coercion
from tests.api.conftest import Client

FILTER = "query ($f: CampaignFilter) { campaigns(filter: $f) { nodes { campaignId } } }"
UPSERT = "mutation ($input: UpsertUsersInput!) { upsertUsers(input: $input) { errors { code details } } }"
NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
CONDITION = {"campaignId": {"eq": "x"}}
NESTED = {"or": [{"and": [CONDITION] * 30}] * 20}
WRONG = [{"wrong": 1}] * 2_501

REFUSED: list[tuple[str, dict[str, Any], int, int]] = [
    (FILTER, {"f": {"or": [CONDITION] * 30_000}}, 20_000, 30_000),
    (FILTER, {"f": {"or": [{}] * 195_000}}, 20_000, 195_000),
    (FILTER, {"f": {"or": [CONDITION] * 501}}, 500, 501),
    (FILTER, {"f": NESTED}, 500, 20 + 17 * 30),
    (NODES, {"ids": ["x"] * 20_001}, 20_000, 20_001),
    (UPSERT, {"input": {"users": [{"userId": "x"}] * 60_000}}, 20_000, 60_000),
    (UPSERT, {"input": {"users": WRONG}}, 2_500, len(WRONG)),
    (
        UPSERT,
        {"input": {"users": [{"userId": "x", "teams": ["t"] * 9_999}] * 20}},
        150_000,
        20 + 15 * 9_999,
    ),
]


@pytest.fixture
def uncoerced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be coerced, nor explained."""

    def fail(*_: Any, **__: Any) -> Any:
        pytest.fail("variables were coerced")

    monkeypatch.setattr("graphql.execution.executor.get_variable_values", fail)
    monkeypatch.setattr(coercion, "errors_of", fail)


@pytest.mark.usefixtures("uncoerced")
@pytest.mark.parametrize(("document", "variables", "limit", "given"), REFUSED, ids=range(len(REFUSED)))
async def test_what_holds_too_much_is_not_coerced(
    client: Client, document: str, variables: dict[str, Any], limit: int, given: int
) -> None:
    error = await client.error(document, **variables)
    assert error["extensions"]["details"] == {"limit": limit, "given": given}
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"


@pytest.mark.usefixtures("uncoerced")
async def test_a_viewer_hears_first_that_it_may_not(viewer: Client) -> None:
    document = UPSERT.replace("{ upsertUsers", "{ a: upsertUsers").replace("} } }", "} } ...More }")
    document += " fragment More on Mutation { b: upsertUsers(input: $input) { errors { code } } }"
    answer = await viewer.execute(document, input={"users": WRONG})
    assert answer["data"] == {"a": None, "b": None}
    assert [error["path"] for error in answer["errors"]] == [["a"], ["b"]]
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}


async def test_what_services_allow_passes(client: Client) -> None:
    users = [{"userId": f"u{each}", "teams": [f"t{team}" for team in range(100)]} for each in range(1_000)]
    answer = await client.data(UPSERT, input={"users": users})
    assert answer == {"upsertUsers": {"errors": []}}
    answer = await client.data(UPSERT, input={"users": [*users, users[0]]})
    assert answer["upsertUsers"]["errors"][0]["details"] == {"limit": 1_000, "given": 1_001}
    await client.data(FILTER, f={"or": [CONDITION] * 100})
    error = await client.error(FILTER, f={"or": [CONDITION] * 101})
    assert error["extensions"]["details"] == {"limit": 100, "given": 101}

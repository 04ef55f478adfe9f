"""What clients are told of their own mistakes: their JSON, the place, and a word that fits it."""

from typing import Any

import pytest

from tests.api.conftest import Client

UPSERT = """mutation (%s) {
  upsertUsers(input: {users: [{userId: "u", custom: %s}]}) { users { custom } errors { code } } }"""
CAMPAIGNS = (
    "query ($c: CampaignFilter, $s: [CampaignSort!]) { campaigns(filter: $c, sort: $s) { totalCount } }"
)
USERS = "query ($n: Int! = 1) { users(first: $n) { totalCount } }"
DIRECTED = "query ($d: SortDirection) { campaigns(sort: [{field: NAME, direction: $d}]) { totalCount } }"
SENT = "Variable '$%s' has invalid value%s"


@pytest.mark.parametrize(
    ("declared", "literal", "variables", "stored"),
    [
        ("$x: Int", "{a: $x}", {}, {}),
        ("$x: Int", "{a: $x}", {"x": None}, {"a": None}),
        ("$x: Int", "{a: $x}", {"x": 5}, {"a": 5}),
        ("$x: Int = 7", "{a: $x}", {}, {"a": 7}),
        ("$x: String", "{a: [1, $x, {b: $x}], c: {d: $x}, e: 1.5}", {},
         {"a": [1, None, {}], "c": {}, "e": 1.5}),
        ("$x: JSON", "{a: $x}", {"x": {"b": [2**60, "y"]}}, {"a": {"b": [2**60, "y"]}}),
        ("$x: DateTime", "{a: $x}", {"x": "2026-01-01T02:00:00+02:00"},
         {"a": "2026-01-01T00:00:00.000000Z"}),
        ("$x: SortDirection", "{a: [$x]}", {"x": "ASC"}, {"a": ["ASC"]}),
        ("$x: CampaignSort", "{a: $x}", {"x": {"field": "NAME"}},
         {"a": {"field": "NAME", "direction": "ASC"}}),
        ("$x: CampaignFilter", "{a: $x}", {"x": {"name": {"eq": "n"}}}, {"a": {"name": {"eq": "n"}}}),
    ],
)  # fmt: skip
async def test_variables_within_json_literals(
    client: Client, declared: str, literal: str, variables: dict[str, Any], stored: Any
) -> None:
    """One that is not given is left out, and null in a list."""
    data = await client.data(UPSERT % (declared, literal), **variables)
    assert data["upsertUsers"] == {"users": [{"custom": stored}], "errors": []}


@pytest.mark.parametrize(
    ("literal", "column"),
    [
        ("users(filter: [1]) { totalCount }", 17),
        ('users(filter: "x") { totalCount }', 17),
        ("users(filter: [{a: 1}]) { totalCount }", 17),
        ('campaigns(filter: {createdAt: {gt: "x"}}) { totalCount }', 38),
        ("campaigns(filter: {createdAt: {gt: 5}}) { totalCount }", 38),
        ('campaigns(filter: {createdAt: {in: ["2026-01-01T00:00:00Z", {a: 1}]}}) { totalCount }', 63),
        ('campaigns(filter: {createdAt: {gt: "2026-13-01T00:00:00Z"}}) { totalCount }', 38),
        ('campaigns(first: "1") { totalCount }', 20),
    ],
)
async def test_a_literal_of_the_wrong_kind_has_its_place(client: Client, literal: str, column: int) -> None:
    error = await client.error(f"{{ {literal} }}")
    assert error["locations"] == [{"line": 1, "column": column}]
    assert error["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize(
    ("document", "variables", "sentence"),
    [
        ("{ campaign(campaignId: null) { id } }", {},
         "Expected value of non-null type 'String!' not to be null."),
        (CAMPAIGNS, {"s": [None]},
         SENT % ("s", " at [0]: Expected value of non-null type 'CampaignSort!' not to be null.")),
        (CAMPAIGNS, {"c": {"nam": {}}},
         SENT % ("c", ": Type 'CampaignFilter' has no field \"nam\". Did you mean 'name' or 'and'?")),
        (USERS, {"n": True}, SENT % ("n", ": Int cannot represent non-integer value: true")),
        (USERS, {"n": None}, SENT % ("n", ": Expected value of non-null type 'Int!' not to be null.")),
    ],
)  # fmt: skip
async def test_values_are_shown_as_json(
    client: Client, document: str, variables: dict[str, Any], sentence: str
) -> None:
    error = await client.error(document, **variables)
    assert error["message"] == sentence
    assert error["locations"] and error["extensions"] == {"code": "INVALID_INPUT"}


async def test_what_is_said_of_a_request_is_short(client: Client) -> None:
    name = "a" * 50_000
    for document, variables in (
        (f"{{ {name} }}", {}),
        (f"{{ campaigns(filter: {{{name}: 1}}) {{ totalCount }} }}", {}),
        (CAMPAIGNS, {"c": {name: name}}),
        (DIRECTED, {"d": name}),
    ):
        error = await client.error(document, **variables)
        assert len(error["message"]) < 1_100


async def test_an_operation_name_is_shown_as_json(client: Client) -> None:
    body = b'{"query": "query a { viewer { name } }", "operationName": "\\u0000\\ud800"}'
    headers = {**client.headers, "content-type": "application/json"}
    async with client.http.post(client.url, data=body, headers=headers) as response:
        answer = await response.json()
    assert answer["errors"][0]["message"] == r'The document has no operation named "\u0000\ud800".'

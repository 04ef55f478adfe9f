"""Keys: who gets in, who may change things, and that a revoked key is out, open connections included."""

import asyncio

import aiohttp
import pytest
from sqlalchemy import select

from app import auth
from app.database import Database
from app.graphql import streams
from app.keys import queries, service
from app.keys.models import ApiKey
from app.keys.roles import Role
from app.keys.secrets import hash_of
from app.schema import schema
from tests.api.conftest import PATIENCE, Client, eventually

CREATE = """mutation ($input: CreateApiKeyInput!) {
  createApiKey(input: $input) {
    apiKey { id keyId name role revokedAt } secret errors { code message path details }
  }
}"""
REVOKE = """mutation ($input: RevokeApiKeyInput!) {
  revokeApiKey(input: $input) { apiKey { keyId revokedAt } secret errors { code message path } }
}"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revoking takes effect within ten seconds; these tests do not wait for that long."""
    assert auth.SECONDS_CACHED + 1 < 10
    assert streams.SECONDS_BETWEEN_CHECKS + 1 < 10
    monkeypatch.setattr(auth, "SECONDS_CACHED", 0.2)
    monkeypatch.setattr(streams, "SECONDS_BETWEEN_CHECKS", 0.2)


async def test_the_viewer_is_who_the_key_is(client: Client, viewer: Client) -> None:
    query = "{ viewer { name role } }"
    assert await client.data(query) == {"viewer": {"name": "a key for ADMIN", "role": "ADMIN"}}
    assert await viewer.data(query) == {"viewer": {"name": "a key for VIEWER", "role": "VIEWER"}}


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic eDp5", "bearer " + "x" * 300]
)
async def test_without_a_valid_key_nothing_answers(
    address: str, http: aiohttp.ClientSession, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with http.post(f"{address}/graphql", json={"query": "{ __typename }"}, headers=headers) as response:
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await response.json(content_type=None))["errors"][0]["extensions"][
            "code"
        ] == "UNAUTHENTICATED"


async def test_a_made_key_opens_and_a_revoked_one_does_not(client: Client, database: Database) -> None:
    made = (await client.data(CREATE, input={"name": "for the dashboard", "role": "VIEWER"}))["createApiKey"]
    assert made["errors"] == []
    assert made["secret"].startswith("car_")
    assert len(made["secret"]) == 4 + 43
    async with database.read() as session:
        stored = await queries.by_hash(session, hash_of(made["secret"]))
    assert stored is not None
    assert made["secret"] not in repr(stored)

    key = Client(client.http, client.address, made["secret"])
    assert (await key.data("{ viewer { role } }"))["viewer"]["role"] == "VIEWER"
    key_id = made["apiKey"]["keyId"]
    revoked = (await client.data(REVOKE, input={"keyId": key_id}))["revokeApiKey"]
    assert revoked["apiKey"]["revokedAt"] is not None
    assert revoked["secret"] is None

    async def refused() -> bool:
        return "errors" in await key.execute("{ __typename }")

    await eventually(refused)
    again = (await client.data(REVOKE, input={"keyId": key_id}))["revokeApiKey"]
    assert again["apiKey"] == revoked["apiKey"]


async def test_keys_have_user_errors_with_paths(client: Client) -> None:
    refused = (await client.data(CREATE, input={"name": "x" * 129, "role": "ADMIN"}))["createApiKey"]
    assert refused["apiKey"] is None
    assert refused["secret"] is None
    error = refused["errors"][0]
    assert (error["code"], error["path"]) == ("LIMIT_EXCEEDED", ["name"])
    assert error["details"] == {"limit": 128, "given": 129}
    unknown = (await client.data(REVOKE, input={"keyId": "nobody"}))["revokeApiKey"]
    assert (unknown["errors"][0]["code"], unknown["errors"][0]["path"]) == ("NOT_FOUND", ["keyId"])


async def test_keys_are_nodes(client: Client) -> None:
    key = (await client.data("{ apiKeys { id name createdAt } }"))["apiKeys"][0]
    found = await client.data(
        "query ($id: ID!) { node(id: $id) { id ... on ApiKey { name } } }", id=key["id"]
    )
    assert found["node"] == {"id": key["id"], "name": key["name"]}


async def test_a_viewer_can_call_no_mutation(viewer: Client) -> None:
    answer = await viewer.execute(CREATE, input={"name": "more", "role": "ADMIN"})
    assert answer["data"] == {"createApiKey": None}
    assert answer["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    assert answer["errors"][0]["path"] == ["createApiKey"]
    assert len((await viewer.data("{ apiKeys { keyId } }"))["apiKeys"]) == 1


def test_every_mutation_demands_an_admin_and_every_query_a_viewer() -> None:
    demanded = {"Query": "IsViewer", "Mutation": "IsAdmin", "Subscription": "IsViewer"}
    for root, permission in demanded.items():
        definition = schema.get_type_by_name(root)
        for field in getattr(definition, "fields", []):
            asked = {kind.__name__ for kind in field.permission_classes}
            assert permission in asked, f"{root}.{field.python_name} is open to anybody"


def test_every_mutation_is_nullable_and_takes_one_input() -> None:
    mutations = schema._schema.mutation_type
    assert mutations is not None
    for name, field in mutations.fields.items():
        assert not str(field.type).endswith("!"), f"a fault in {name} would take the others with it"
        assert str(field.type).endswith("Payload"), name
        assert list(field.args) == ["input"], name


async def test_the_use_of_a_key_is_noted_once_a_minute(client: Client, database: Database) -> None:
    async def last_used() -> object:
        async with database.read() as session:
            return (await session.execute(select(ApiKey))).scalar_one().last_used_at

    await client.data("{ __typename }")

    async def noted() -> bool:
        return await last_used() is not None

    await eventually(noted)
    first = await last_used()
    await client.data("{ __typename }")
    async with database.transaction() as session:
        key_id = (await session.execute(select(ApiKey.key_id))).scalar_one()
        await queries.note_use(session, [key_id], first)  # type: ignore[arg-type]
    assert await last_used() == first


async def test_the_first_start_makes_one_key(database: Database) -> None:
    async def ensure(given: str | None) -> str | None:
        async with database.transaction() as session:
            return await service.ensure_admin_key(session, given)

    async def role_of(secret: str) -> str | None:
        async with database.read() as session:
            key = await queries.by_hash(session, hash_of(secret))
        return key.role if key else None

    secret = await ensure(None)
    assert secret is not None
    assert await role_of(secret) == "ADMIN"
    assert await ensure(None) is None

    assert await ensure("the operators own key") is None
    assert await role_of("the operators own key") == "ADMIN"
    assert await ensure("another one of theirs") is None
    assert await role_of("the operators own key") is None
    assert await role_of("another one of theirs") == "ADMIN"
    assert await role_of(secret) == "ADMIN"
    assert await ensure(secret) is None
    assert await role_of("another one of theirs") is None
    assert await role_of(secret) == "ADMIN"


async def test_two_first_starts_make_one_key(database: Database) -> None:
    async def ensure(given: str | None) -> str | None:
        async with database.transaction() as session:
            return await service.ensure_admin_key(session, given)

    made = await asyncio.gather(ensure(None), ensure(None))
    assert sum(secret is not None for secret in made) == 1
    await asyncio.gather(ensure("a key from the environment"), ensure("a key from the environment"))
    async with database.read() as session:
        assert len(await queries.listed(session)) == 2


async def test_a_revoked_key_ends_its_open_connections(client: Client, viewer: Client) -> None:
    async with viewer.socket() as socket:
        payload = {"authorization": f"bearer {viewer.key}"}
        await socket.send_json({"type": "connection_init", "payload": payload})
        assert await socket.receive_json() == {"type": "connection_ack"}
        keys = (await client.data("{ apiKeys { keyId role } }"))["apiKeys"]
        revoked = next(key["keyId"] for key in keys if key["role"] == Role.VIEWER.value)
        await client.data(REVOKE, input={"keyId": revoked})
        closing = await socket.receive(timeout=PATIENCE)
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 4403)

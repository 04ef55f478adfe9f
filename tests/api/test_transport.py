"""GraphQL over HTTP: status codes, media types, limits of bodies, and that nothing answers with a 500."""

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from app import health, heartbeats
from app.database import Database
from app.settings import Settings
from tests.api.conftest import PATIENCE, Client, serving

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"


async def post(client: Client, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON body of a raw POST."""
    sent = {"content-type": JSON, **client.headers, **{n.replace("_", "-"): v for n, v in headers.items()}}
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with client.http.post(client.url, data=data, headers=sent) as response:
        return response.status, dict(response.headers), await response.json(content_type=None)


@pytest.mark.parametrize(
    ("accept", "content_type", "status"),
    [
        (GRAPHQL, GRAPHQL, 400),
        (JSON, JSON, 200),
        ("*/*", JSON, 200),
        (f"{JSON};q=0.5, {GRAPHQL}", GRAPHQL, 400),
    ],
)
async def test_answers_have_the_negotiated_type_and_its_status(
    client: Client, accept: str, content_type: str, status: int
) -> None:
    for query in ("{ nothing }", "{", "query ($x: Int!) { __typename }"):
        code, headers, body = await post(client, json.dumps({"query": query}), accept=accept)
        assert code == status
        assert headers["Content-Type"] == f"{content_type}; charset=utf-8"
        assert "data" not in body
        assert body["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    code, _, body = await post(client, b'{"query": "{ __typename }"}', accept=accept)
    assert (code, body) == (200, {"data": {"__typename": "Query"}})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "INVALID_INPUT"),
        (b"{", 400, "INVALID_INPUT"),
        (b"[]", 400, "INVALID_INPUT"),
        (b'"x"', 400, "INVALID_INPUT"),
        (b"null", 400, "INVALID_INPUT"),
        (b"{}", 400, "INVALID_INPUT"),
        (b'{"query": 1}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": []}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": "x"}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "extensions": 1}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "operationName": 1}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "operationName": "x"}', 400, "INVALID_INPUT"),
        (b'{"query": "query a { __typename } query b { __typename }"}', 400, "INVALID_INPUT"),
        (b'{"query": "fragment f on Query { __typename }"}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }\xff"}', 400, "INVALID_INPUT"),
        (b'{"query": "{ \\ud800 }"}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": "\\u0000"}}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": "\\udfff"}}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"\\u0000": 1}}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": 18446744073709551616}}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": %s}}' % (b"9" * 5_000), 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": NaN}}', 400, "INVALID_INPUT"),
        (b'{"query": "{ __typename }", "variables": {"a": 1e400}}', 400, "INVALID_INPUT"),
        (
            b'{"query": "{ __typename }", "variables": {"a": %s}}' % (b"[" * 70 + b"]" * 70),
            400,
            "LIMIT_EXCEEDED",
        ),
        (b"[" * 20_000 + b"]" * 20_000, 400, "LIMIT_EXCEEDED"),
        (b'{"a":' * 20_000, 400, "LIMIT_EXCEEDED"),
        (b'{"query": "{ __typename }"}' + b" " * 8_000_000, 413, "LIMIT_EXCEEDED"),
        (
            b'{"query": "{ __typename }", "variables": {"a": [1%s]}}' % (b",1" * 400_000),
            400,
            "LIMIT_EXCEEDED",
        ),
        (
            b'{"query": "{ __typename }", "variables": {"a": [%s]}}' % (b"{}," * 400_000),
            400,
            "LIMIT_EXCEEDED",
        ),
        (b'{"query": "{ \\"", "x": "%s"}' % (b",\\\\[" * 300_000), 400, "INVALID_INPUT"),
        (gzip.compress(b'{"query": "{ __typename }"}', mtime=0), 400, "INVALID_INPUT"),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
async def test_bad_bodies_get_a_sentence(client: Client, body: bytes, status: int, code: str) -> None:
    answered, _, answer = await post(client, body, accept=GRAPHQL)
    assert (answered, answer["errors"][0]["extensions"]["code"]) == (status, code)
    assert "data" not in answer


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "The body is not JSON (line 1, column 2)."),
        (b'{"a": NaN}', "The body is not JSON: NaN is no value of it."),
        (b'{"a": "\xff"}', "The body is not UTF-8."),
        (
            b'{"a": %s}' % (b"9" * 5_000),
            "The body has an integer of thousands of digits; an integer has at most 64 bits.",
        ),
    ],
    ids=["no JSON", "a constant", "no UTF-8", "digits"],
)
async def test_it_is_said_what_is_wrong_with_a_body(client: Client, body: bytes, sentence: str) -> None:
    _, _, answer = await post(client, body)
    assert answer["errors"][0]["message"] == sentence


async def test_json_that_is_nested_too_deeply_is_told_the_limit(client: Client) -> None:
    nested = "[" * 20_000
    _, _, answer = await post(client, f'{{"a": "[[[", "b": {nested}'.encode())
    (error,) = answer["errors"]
    assert error["message"] == "Levels of the JSON: 20,001 were given, 64 are allowed."
    assert error["extensions"]["details"] == {"limit": 64, "given": 20_001}
    parameters = {"query": "{ __typename }", "variables": nested[:5_000]}
    async with client.http.get(client.url, params=parameters, headers=client.headers) as response:
        (error,) = (await response.json())["errors"]
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "details": {"limit": 64, "given": 5_000}}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            rb'{"\udfff": 1}',
            "A name in `variables`: text must contain neither NUL nor half of a surrogate pair.",
        ),
        (rb'{"a": {"\udfff": 1}}', "a: text must contain neither NUL nor half of a surrogate pair."),
    ],
)
async def test_it_is_said_where_a_name_is_no_text(client: Client, variables: bytes, sentence: str) -> None:
    _, _, answer = await post(client, b'{"query": "{ __typename }", "variables": %s}' % variables)
    assert answer["errors"][0]["message"] == sentence


async def test_chunked_bodies_are_limited_too(client: Client) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000_000

    status, _, body = await post(client, endless())
    assert (status, body["errors"][0]["extensions"]["code"]) == (413, "LIMIT_EXCEEDED")


async def test_without_a_key_bodies_are_small(client: Client) -> None:
    stranger = Client(client.http, client.address, "nobody")
    status, _, body = await post(stranger, b" " * 15_999 + b"1")
    assert (status, body["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    status, _, body = await post(stranger, b" " * 16_001)
    assert status == 413
    assert body["errors"][0]["extensions"]["details"] == {"limit": 16_000, "given": 16_001}


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_encoding": "gzip"},
    ],
)
async def test_what_a_foreign_page_may_send_unasked_is_refused(
    client: Client, headers: dict[str, str]
) -> None:
    status, _, body = await post(client, b'{"query": "{ __typename }"}', **headers)
    assert status == 415
    assert body["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_get_reads_and_never_changes(client: Client) -> None:
    async def get(**parameters: str) -> tuple[int, Any]:
        headers = {"accept": GRAPHQL, **client.headers}
        async with client.http.get(client.url, params=parameters, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    named = "query a($id: ID!) { node(id: $id) { id } } query b { __typename }"
    assert await get(query=named, operationName="b") == (200, {"data": {"__typename": "Query"}})
    variables = json.dumps({"id": "QXBpS2V5OngK"})
    assert await get(query=named, operationName="a", variables=variables) == (200, {"data": {"node": None}})
    revoke = 'mutation { revokeApiKey(input: {keyId: "x"}) { errors { code } } }'
    assert (await get(query=revoke))[0] == 405
    assert (await get())[0] == 400
    status, answer = await get(query="{ __typename }", variables="[1")
    assert status == 400
    assert answer["errors"][0]["message"] == "The parameter variables is not JSON (line 1, column 3)."
    assert (await get(query="{ __typename }", variables="[1]"))[0] == 400


async def test_other_methods_and_types_are_refused(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "FOO"):
        async with client.http.request(method, client.url, headers=client.headers) as response:
            assert response.status == 405
            assert response.headers["allow"] == "GET, POST"
    status, headers, _ = await post(client, b'{"query": "{ __typename }"}', accept="text/html")
    assert status == 406
    assert headers["Content-Type"].startswith(GRAPHQL)


async def test_an_address_with_a_slash_at_its_end_is_another(client: Client) -> None:
    async with client.http.post(
        f"{client.url}/", json={"query": "{ __typename }"}, headers=client.headers, allow_redirects=False
    ) as response:
        assert response.status == 404
        assert (await response.json())["errors"][0]["extensions"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("given", ["", "nonsense", "QXBpS2V5", "Tm90aGluZzox", "UXVlcnk6MQ==", "Tm9kZTox"])
async def test_malformed_global_ids_are_mistakes_in_our_words(client: Client, given: str) -> None:
    error = await client.error("query ($id: ID!) { node(id: $id) { id } }", id=given)
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert "not an id of this API" in error["message"]


async def test_nodes_come_in_order_with_null_for_the_unknown(client: Client) -> None:
    key = (await client.data("{ apiKeys { id } }"))["apiKeys"][0]["id"]
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }"
    known = {"id": key, "__typename": "ApiKey"}
    assert (await client.data(query, ids=["QXBpS2V5Ong=", key, key]))["nodes"] == [None, known, known]
    error = await client.error(query, ids=[key] * 101)
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "details": {"limit": 100, "given": 101}}


async def test_usage_is_of_this_month(client: Client) -> None:
    usage = (await client.data("{ usage { periodStart periodEnd messagesSent messageCapacity } }"))["usage"]
    assert usage["periodStart"].endswith("-01T00:00:00.000000Z")
    assert usage["periodStart"] < usage["periodEnd"]
    assert (usage["messagesSent"], usage["messageCapacity"]) == (0, None)


async def test_a_fault_in_one_mutation_keeps_the_others(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a detail of ours")

    monkeypatch.setattr("app.keys.service.revoke", broken)
    answer = await client.execute(
        """mutation {
          a: createApiKey(input: {name: "a", role: VIEWER}) { apiKey { name } }
          b: revokeApiKey(input: {keyId: "x"}) { errors { code } }
          c: createApiKey(input: {name: "c", role: VIEWER}) { apiKey { name } }
        }"""
    )
    assert answer["data"] == {"a": {"apiKey": {"name": "a"}}, "b": None, "c": {"apiKey": {"name": "c"}}}
    (error,) = answer["errors"]
    assert error["path"] == ["b"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "detail" not in json.dumps(answer)
    logged = capsys.readouterr().out
    assert error["extensions"]["incident"] in logged
    assert "a detail of ours" in logged


async def test_a_client_mistake_is_not_logged(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    for query in ("{", "{ nothing }", '{ node(id: "x") { id } }', "query ($x: Int) { __typename }"):
        await client.execute(query, x="no number")
    assert "Traceback" not in capsys.readouterr().out


async def events(response: aiohttp.ClientResponse) -> list[tuple[str, Any]]:
    """The events of a stream that ends."""
    found = []
    for event in (await response.text()).split("\n\n")[:-1]:
        kind, data = (line.partition(":")[2].strip() for line in event.split("\n"))
        found.append((kind, json.loads(data) if data else None))
    return found


async def test_event_streams_carry_any_operation(client: Client) -> None:
    async def streamed(query: str) -> list[tuple[str, Any]]:
        headers = {"accept": "text/event-stream", **client.headers}
        async with client.http.post(client.url, json={"query": query}, headers=headers) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            return await events(response)

    assert await streamed("{ __typename }") == [
        ("next", {"data": {"__typename": "Query"}}),
        ("complete", None),
    ]
    refused = await streamed("{ nothing }")
    assert [kind for kind, _ in refused] == ["next", "complete"]
    assert refused[0][1]["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_cors_lets_listed_origins_in_and_no_other(client: Client) -> None:
    async def allowed(origin: str) -> str | None:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        async with client.http.options(client.url, headers=headers) as response:
            assert "access-control-allow-credentials" not in response.headers
            return response.headers.get("access-control-allow-origin")

    _, headers, _ = await post(client, b"{}", origin="https://dashboard.example")
    assert headers["Access-Control-Expose-Headers"] == "idempotent-replayed"
    assert await allowed("https://dashboard.example") == "https://dashboard.example"
    assert await allowed("https://evil.example") is None


async def test_health_needs_no_key(
    address: str, http: aiohttp.ClientSession, valkey_url: str, database: Database
) -> None:
    async def asked(path: str) -> tuple[int, str]:
        async with http.get(f"{address}{path}") as response:
            return response.status, await response.text()

    assert await asked("/healthz") == (200, '{"status":"alive"}')
    status, page = await asked("/")
    assert (status, "/graphql" in page) == (200, True)
    async with Redis.from_url(valkey_url) as redis:
        status, body = await asked("/readyz")
        assert status == 503
        assert list(json.loads(body)["missing"]) == ["worker"]
        await heartbeats.beat(redis, "test", 0)
        assert await asked("/readyz") == (200, '{"status":"ready"}')
        async with database.transaction() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        status, body = await asked("/readyz")
        assert (status, list(json.loads(body)["missing"])) == (503, ["migrations"])
        assert "newer Carillon (9999)" in body
        await redis.delete("carillon:worker:test")


async def test_without_a_queue_the_process_lives_and_says_what_is_missing(
    settings: Settings, http: aiohttp.ClientSession, admin_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SECONDS_TO_ANSWER", PATIENCE)  # the database may take its time
    async with serving(settings, "unix:///nowhere/valkey.sock") as address:
        async with http.get(f"{address}/readyz") as response:
            assert response.status == 503
            assert set((await response.json())["missing"]) == {"queue", "worker"}
        assert await Client(http, address, admin_key).data("{ __typename }") == {"__typename": "Query"}


async def test_twenty_requests_at_once_all_answer(client: Client) -> None:
    query = "{ viewer { name } apiKeys { id } usage { messagesSent } }"
    answers = await asyncio.gather(*(client.data(query) for _ in range(20)))
    assert all(answer["viewer"]["name"] == "a key for ADMIN" for answer in answers)

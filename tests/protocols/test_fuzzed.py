"""Whatever is asked, the answer is data or a coded mistake of the client, and no fault is logged: what
schemathesis asks, right and wrong, over the whole schema; documents with a few characters changed; bytes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import schemathesis
from graphql import parse, print_ast
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.graphql import nodes

from tests.acceptance.instances import Carillon
from tests.databases import postgres_database

ROOT = Path(__file__).parents[2]
CODES = set(re.findall(r'code = "([A-Z_]+)"', (ROOT / "app" / "errors.py").read_text())) - {"INTERNAL"}
# What only our insides would say. A client hears its own words again: Hypothesis tries strings of our code.
INSIDES = re.compile(r"Traceback|<class|object at 0x|sqlalchemy|psycopg")
FUZZED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
DOCUMENTS = [
    "query ($n: Int = 3, $f: JSON) { users(first: $n, filter: $f) { edges { cursor node { id custom } } } }",
    'mutation { upsertUsers(input: {users: [{userId: "u", custom: {a: [1, 2.5]}}]}) { errors { code } } }',
    '{ a: campaign(campaignId: "c") { ...F } } fragment F on Campaign { id ... @skip(if: true) { id } }',
    "subscription { campaignsChanged { campaignId } }",
    '{ node(id: "QXBpS2V5Ong=") { id ... on User { name } } __type(name: "User") { fields { name } } }',
]


def texts() -> st.SearchStrategy[str]:
    return st.text(max_size=12) | st.sampled_from(["", "\0", "\ud800", "$", "a.b", "{{", "\u202e", "x" * 400])


LEAVES = st.builds(nodes.Int, st.integers()) | texts().filter(lambda text: text != "\ud800").map(nodes.String)
LISTS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3).map(nodes.List), max_leaves=5)
schemathesis.graphql.scalar("JSON", LISTS)
schemathesis.graphql.scalar(
    "DateTime",
    st.sampled_from(["2026-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00Z", "x"]).map(
        nodes.String
    ),
)
SCHEMA = schemathesis.graphql.from_path(ROOT / "schema.graphql")
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carillon]:
    """A whole Carillon, whose log tells of no fault at the end."""
    directory = tmp_path_factory.mktemp("fuzzed") / "data"
    if request.param == "sqlite":
        yield from _served(Carillon(directory))
    else:
        uri: str = request.getfixturevalue("postgres_uri")
        admin: psycopg.Connection[Any] = request.getfixturevalue("postgres_admin")
        with postgres_database(uri, admin) as url:
            yield from _served(Carillon(directory, database_url=url))


def _served(server: Carillon) -> Iterator[Carillon]:
    try:
        server.start()
        yield server
        assert "Traceback" not in server.log()
        assert "incident" not in server.log()
    finally:
        server.kill_everything()
        shutil.rmtree(server.data_dir, ignore_errors=True)


@pytest.fixture(scope="module")
def http(server: Carillon) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {server.admin_key}"
        yield session


def judge(response: requests.Response) -> None:
    """An answer has data, or mistakes with codes and sentences of ours."""
    assert response.status_code in (200, 400, 405, 413), response.text
    answer: dict[str, Any] = response.json()
    errors = answer.get("errors", [])
    for error in errors:
        assert error["extensions"]["code"] in CODES, error
        assert error["message"], error
    assert errors or answer["data"] is not None, answer
    body = response.request.body or b""
    asked = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    assert not set(INSIDES.findall(response.text)) - set(INSIDES.findall(asked))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_operations(server: Carillon, http: requests.Session, operation: Any, mode: GenerationMode) -> None:
    @settings(FUZZED, max_examples=8)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        judge(case.call(base_url=f"{server.url}/graphql", session=http))

    ask()


@settings(FUZZED, max_examples=400)
@given(data=st.data())
def test_documents_with_something_changed(
    server: Carillon, http: requests.Session, data: st.DataObject
) -> None:
    document = data.draw(st.sampled_from(DOCUMENTS))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(document)))
        end = data.draw(st.integers(start, min(start + 8, len(document))))
        piece = data.draw(texts() | st.sampled_from([*'{}()[]!:=@$"#&|.-0', "...", '"""', "on", "first: "]))
        document = document[:start] + piece + document[end:]
    variables = data.draw(st.dictionaries(texts(), st.integers() | texts() | st.none(), max_size=2))
    body = json.dumps({"query": document, "variables": variables})
    judge(http.post(f"{server.url}/graphql", body, headers={"content-type": "application/json"}))


@settings(FUZZED, max_examples=300)
@given(data=st.data())
def test_bytes(server: Carillon, http: requests.Session, data: st.DataObject) -> None:
    body = json.dumps({"query": print_ast(parse(DOCUMENTS[0])), "variables": {"n": 1}}).encode()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    body = body[:start] + data.draw(st.binary(max_size=10)) + body[end:]
    judge(http.post(f"{server.url}/graphql", body, headers={"content-type": "application/json"}))

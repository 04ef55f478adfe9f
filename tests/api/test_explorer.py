"""The explorer as it is served, and introspection: who gets them, and how both are turned off.

What the explorer does in a browser stands in tests/browser.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import pytest
from graphql import get_introspection_query

from app.database import Database
from app.graphql.explorer import STATIC
from app.keys.roles import Role
from app.settings import Settings, load
from tests.api.conftest import Client, new_key, serving

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
GRAPHQL = "application/graphql-response+json"


@pytest.fixture
async def closed(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession, database: Database
) -> AsyncIterator[Client]:
    """A client of an API without explorer and introspection."""
    off = load(**{**settings.model_dump(), "explorer": False, "introspection": False})
    async with serving(off, valkey_url) as address:
        yield Client(http, address, await new_key(database, Role.ADMIN))


@dataclass
class Got:
    """What came back."""

    status: int
    content_type: str
    headers: Mapping[str, str]
    text: str


async def got(client: Client, accept: str, *, method: str = "GET", url: str = "") -> Got:
    """What is answered without a key."""
    async with client.http.request(method, url or client.url, headers={"accept": accept}) as response:
        return Got(response.status, response.content_type, response.headers, await response.text())


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/html, application/json;q=0.9", True),
        (f"text/html;q=0.9, {GRAPHQL}", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("*/*", False),
        ("application/json", False),
        ("text/event-stream", False),
    ],
)
async def test_the_page_is_for_who_likes_html_best(client: Client, accept: str, page: bool) -> None:
    response = await got(client, accept)
    assert (response.content_type == "text/html") is page
    assert response.status == (200 if page else 401)
    assert "accept" in response.headers["vary"]
    asked = await got(client, accept, method="POST")
    assert asked.content_type != "text/html"


async def test_its_policy_lets_nothing_in_but_its_own_files(client: Client) -> None:
    response = await got(client, BROWSER)
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    html = response.text
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", html)
    for path in re.findall(r'(?:src|href)="([^"#]+)"', html):
        file = await got(client, "*/*", url=f"{client.address}/{path}")
        assert file.status == 200 and "immutable" in file.headers["cache-control"]
        assert file.content_type in ("text/javascript", "text/css", "image/svg+xml")


def test_no_file_of_it_names_another_place() -> None:
    """But the namespace of SVG, which is a name and never asked for."""
    for path in STATIC.iterdir():
        others = re.findall(r"(?:https?:|wss?:)?//[\w.]+\.\w+", path.read_text())
        assert set(others) <= {"http://www.w3.org"}, path.name


async def test_the_modules_are_all_served(client: Client) -> None:
    page = (await got(client, BROWSER)).text
    found = re.search(r'src="([^"]+)/explorer\.js"', page)
    assert found
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', path.read_text()):
            assert (await got(client, "*/*", url=f"{client.address}/{found[1]}/{name}")).status == 200


async def test_without_it_a_browser_is_answered_like_everybody(closed: Client, client: Client) -> None:
    response = await got(closed, BROWSER)
    assert (response.status, response.content_type) == (401, "application/json")
    page = (await got(client, BROWSER)).text
    (script,) = re.findall(r'src="([^"]+/explorer\.js)"', page)
    assert (await got(closed, "*/*", url=f"{closed.address}/{script}")).status == 404


@pytest.mark.parametrize(
    "document",
    [
        get_introspection_query(),
        '{ __type(name: "User") { name } }',
        "{ viewer { name } ...F } fragment F on Query { alias: __schema { description } }",
        "query A { viewer { name } } query Q { ... { __schema { types { name } } } }",
    ],
)
async def test_without_introspection_questions_about_the_schema_are_refused(
    closed: Client, document: str
) -> None:
    body = {"query": document, "operationName": "Q" if "query Q" in document else None}
    async with closed.http.post(closed.url, json=body, headers=closed.headers) as response:
        errors = (await response.json())["errors"]
    assert {error["extensions"]["code"] for error in errors} == {"INVALID_INPUT"}
    assert all("CARILLON_INTROSPECTION=false" in error["message"] for error in errors)


async def test_without_introspection_typename_stays(closed: Client) -> None:
    data = await closed.data("{ __typename viewer { __typename name } }")
    assert (data["__typename"], data["viewer"]["__typename"]) == ("Query", "Viewer")


# A mistaken name in each place where one can stand, and the variables beside it.
MISTAKEN: list[tuple[str, dict[str, object]]] = [
    ("{ campaignz { totalCount } }", {}),
    ("{ campaign(campainId: 1) { id } }", {}),
    ("query ($c: CampaignFiltr) { campaigns(filter: $c) { totalCount } }", {}),
    ("{ campaigns(filter: {nam: {}}) { totalCount } }", {}),
    ("{ campaigns(sort: [{field: NAM}]) { totalCount } }", {}),
    ("{ node(id: 1) { ... on Usr { id } } }", {}),
    ("query ($c: CampaignFilter) { campaigns(filter: $c) { totalCount } }", {"c": {"or": [{"nam": {}}]}}),
    ("query ($s: [CampaignSort!]) { campaigns(sort: $s) { totalCount } }", {"s": [{"field": "NAM"}]}),
]


@pytest.mark.parametrize(("document", "variables"), MISTAKEN)
async def test_names_are_suggested_only_where_the_schema_may_be_read(
    client: Client, closed: Client, document: str, variables: dict[str, object]
) -> None:
    for asked, suggests in ((client, True), (closed, False)):
        answer = await asked.execute(document, **variables)
        said = [error["message"] for error in answer["errors"]]
        async with asked.subscribed(document, **variables) as subscription:
            message = await subscription.message()
        assert [error["message"] for error in message["payload"]] == said
        assert any("Did you mean" in sentence for sentence in said) is suggests

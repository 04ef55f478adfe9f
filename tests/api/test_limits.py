"""SEMANTICS, "Limits", as clients meet them: pages, bodies and documents."""

import io
import json
from typing import Any

import pytest

from app.database import Database
from tests.api.campaigns import people
from tests.api.conftest import Client

IDS = "{ nodes { id } }"
PAGES: dict[str, tuple[str, int]] = {
    "targets per page": (f'{{ segment(segmentId: "list") {{ targets(PAGE) {IDS} }} }}', 10_000),
    "recipients per page": (f'{{ campaign(campaignId: "news") {{ recipients(PAGE) {IDS} }} }}', 10_000),
    "campaign users per page": (f'{{ campaign(campaignId: "news") {{ targets(PAGE) {IDS} }} }}', 1_000),
    "users per page": (f"{{ users(PAGE) {IDS} }}", 1_000),
    "channels per page": (f"{{ channels(PAGE) {IDS} }}", 1_000),
    "members per page": (f'{{ channel(cid: "team:a") {{ members(PAGE) {IDS} }} }}', 1_000),
    "messages per page": (f'{{ channel(cid: "team:a") {{ messages(PAGE) {IDS} }} }}', 1_000),
    "campaigns per page": (f"{{ campaigns(PAGE) {IDS} }}", 100),
    "segments per page": (f"{{ segments(PAGE) {IDS} }}", 100),
}
START = """mutation {
  createSegment(input: {segmentId: "list", type: USER}) { errors { message } }
  createCampaign(input: {campaignId: "news", senderId: "sender", messageTemplate: {text: "Hi"}}) {
    errors { message } }
  upsertChannels(input: {channels: [{type: "team", channelId: "a", members: ["sender"]}]}) {
    errors { message } }
}"""


async def test_pages(client: Client, database: Database) -> None:
    await people(database, 1)
    assert set(map(json.dumps, (await client.data(START)).values())) == {'{"errors": []}'}
    for row, (document, limit) in PAGES.items():
        for argument in ("first", "last"):
            await client.data(document.replace("PAGE", f"{argument}: {limit}"))
            error = await client.error(document.replace("PAGE", f"{argument}: {limit + 1}"))
            assert error["extensions"]["code"] == "LIMIT_EXCEEDED", row
            assert error["extensions"]["details"] == {"limit": limit, "given": limit + 1}, row
            assert f"{limit:,}" in error["message"], row


async def posted(client: Client, body: bytes, **headers: str) -> tuple[int, Any]:
    """The status of a body that is posted, and its first error."""
    sent = {**client.headers, "content-type": "application/json", **headers}
    async with client.http.post(client.url, data=io.BytesIO(body), headers=sent) as response:
        answer = await response.json(content_type=None)
    return response.status, (answer.get("errors") or [None])[0]


@pytest.mark.parametrize(
    ("row", "limit", "headers", "status"),
    [
        ("request body: 8 MB with a key", 8_000_000, {}, 200),
        ("request body: 16 kB without", 16_000, {"authorization": "Bearer nobody"}, 401),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_request_bodies(
    client: Client, row: str, limit: int, headers: dict[str, str], status: int
) -> None:
    body = b'{"query": "{ __typename }"}'
    assert (await posted(client, body.ljust(limit), **headers))[0] == status, row
    refused, error = await posted(client, body.ljust(limit + 1), **headers)
    assert (refused, error["extensions"]["code"]) == (413, "LIMIT_EXCEEDED"), row
    assert error["extensions"]["details"] == {"limit": limit, "given": limit + 1}, row


async def test_graphql_document_100_000_characters(client: Client) -> None:
    document = "{ __typename }".ljust(100_000)
    assert (await client.data(document)) == {"__typename": "Query"}
    error = await client.error(document + " ")
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["details"] == {"limit": 100_000, "given": 100_001}

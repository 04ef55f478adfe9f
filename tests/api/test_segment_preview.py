"""segmentPreview: how many targets a definition has now, and the first of them; nothing is stored."""

from typing import Any

import pytest

from app.database import Database
from app.segments import previewing
from tests.api.campaigns import people
from tests.api.conftest import Client

PREVIEW = """query ($input: SegmentPreviewInput!) { segmentPreview(input: $input) {
  size sample { id targetId createdAt user { name } channel { cid } }
  errors { code message path details } } }"""
CHANNELS = """mutation ($channels: [ChannelInput!]!) {
  upsertChannels(input: {channels: $channels}) { errors { message } } }"""


@pytest.fixture(autouse=True)
async def stored(database: Database, client: Client) -> None:
    """The sender, 25 users and three channels."""
    await people(database, 25)
    channels = [{"type": "messaging", "channelId": str(n), "frozen": n == 1} for n in range(3)]
    await client.data(CHANNELS, channels=channels)


async def preview(client: Client, **given: Any) -> Any:
    return (await client.data(PREVIEW, input={"type": "USER", **given}))["segmentPreview"]


async def test_a_filter_is_counted_and_sampled_at_once(client: Client) -> None:
    found = await preview(client, filter={"id": {"$gte": "u03", "$lt": "u20"}})
    assert (found["size"], found["errors"]) == (17, [])
    assert [each["targetId"] for each in found["sample"]] == [f"u{n:02}" for n in range(3, 13)]
    assert found["sample"][0]["user"] == {"name": "User 3"}
    assert found["sample"][0]["channel"] is None


async def test_all_users_and_channels(client: Client) -> None:
    everybody = await preview(client, allUsers=True)
    assert (everybody["size"], everybody["sample"][0]["targetId"]) == (26, "sender")
    frozen = await preview(client, type="CHANNEL", filter={"frozen": True})
    assert frozen["size"] == 1
    assert frozen["sample"][0]["channel"] == {"cid": "messaging:1"}


async def test_without_a_filter_there_is_nobody(client: Client) -> None:
    assert await preview(client) == {"size": 0, "sample": [], "errors": []}


async def test_nothing_is_stored(client: Client) -> None:
    await preview(client, allUsers=True)
    assert (await client.data("{ segments { totalCount } }")) == {"segments": {"totalCount": 0}}


async def test_a_sampled_target_is_a_node_as_long_as_it_exists(client: Client) -> None:
    sample = (await preview(client, filter={"id": "u03"}))["sample"]
    again = "query ($id: ID!) { node(id: $id) { id ... on Target { targetId user { name } } } }"
    node = {"id": sample[0]["id"], "targetId": "u03", "user": {"name": "User 3"}}
    assert (await client.data(again, id=sample[0]["id"]))["node"] == node
    await client.data('mutation { deleteUsers(input: {userIds: ["u03"]}) { errors { message } } }')
    assert (await client.data(again, id=sample[0]["id"]))["node"] is None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"filter": {}}, ["filter"]),
        ({"filter": {"$what": 1}}, ["filter", "$what"]),
        ({"filter": {"id": "a"}, "allUsers": True}, []),
        ({"type": "CHANNEL", "allUsers": True}, ["allUsers"]),
    ],
)
async def test_a_wrong_definition_says_where(client: Client, given: Any, path: list[str]) -> None:
    found = await preview(client, **given)
    assert (found["size"], found["sample"]) == (None, [])
    assert [(error["code"], error["path"]) for error in found["errors"]] == [("INVALID_INPUT", path)]


async def test_a_viewer_may_look(viewer: Client) -> None:
    assert (await preview(viewer, allUsers=True))["size"] == 26


async def test_what_takes_too_long_has_a_sample_and_no_size(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previewing, "SECONDS_TO_COUNT", -1.0)
    found = await preview(client, allUsers=True)
    assert found["size"] is None
    assert len(found["sample"]) == previewing.SAMPLE

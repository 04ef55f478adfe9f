"""duplicateCampaign: a new draft with the same content, whatever became of the original."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.database import Database
from tests.api.campaigns import Campaigns, people, send_everything
from tests.api.conftest import Client

CONTENT = (
    "description",
    "senderId",
    "senderMode",
    "senderVisibility",
    "messageTemplate",
    "channelTemplate",
    "createChannels",
    "showChannels",
    "skipPush",
    "skipWebhook",
    "maxMessagesPerSecond",
    "segments",
    "targets",
)
WHOLE = {
    "name": "June",
    "description": "To everybody",
    "senderMode": "INCLUDE",
    "senderVisibility": "HIDDEN",
    "messageTemplate": {
        "text": "Hello {{ receiver.name }}",
        "attachments": [{"type": "image", "url": "x"}],
        "custom": {"a": {"b": 1}},
        "pollId": "p",
        "defaults": {"receiver.name": "there"},
    },
    "channelTemplate": {
        "type": "messaging",
        "team": "red",
        "custom": {"c": 1},
        "membersTemplate": [{"userId": "u01", "channelRole": "guest", "custom": {"d": 2}}],
    },
    "createChannels": True,
    "showChannels": True,
    "skipPush": True,
    "skipWebhook": True,
    "maxMessagesPerSecond": 50,
}
SEGMENT = """mutation ($id: String!) {
  createSegment(input: {segmentId: $id, type: USER}) { errors { message } } }"""
DELETE_SEGMENT = """mutation ($id: String!) {
  deleteSegment(input: {segmentId: $id}) { errors { message } } }"""


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    await people(database, 3)
    return Campaigns(client)


def content(campaign: Any) -> Any:
    return {name: campaign[name] for name in CONTENT} | {"targets": campaign["targets"]["totalCount"]}


async def test_the_copy_says_the_same(campaigns: Campaigns) -> None:
    original = await campaigns.draft("c", userIds=["u00", "u01", "nobody"], **WHOLE)
    copy = await campaigns.done("duplicate", campaignId="c", newCampaignId="d")
    assert content(copy) == content(original)
    assert (copy["campaignId"], copy["name"], copy["status"]) == ("d", "June", "DRAFT")
    assert copy["id"] != original["id"]
    untouched = await campaigns.read("c")
    assert untouched["updatedAt"] == original["updatedAt"]


async def test_segments_keep_their_order(client: Client, campaigns: Campaigns) -> None:
    for segment_id in ("one", "two", "three"):
        await client.data(SEGMENT, id=segment_id)
    await campaigns.draft("c", segmentIds=["three", "one", "two"])
    copy = await campaigns.done("duplicate", campaignId="c")
    assert [segment["segmentId"] for segment in copy["segments"]] == ["three", "one", "two"]
    assert len(copy["campaignId"]) == 36


async def test_a_name_of_its_own_or_none(campaigns: Campaigns) -> None:
    await campaigns.draft("c", name="June")
    assert (await campaigns.done("duplicate", campaignId="c", name="July"))["name"] == "July"
    assert (await campaigns.done("duplicate", campaignId="c", name=None))["name"] is None


async def test_an_ended_campaign_becomes_a_draft_that_can_be_sent(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    template = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
    await campaigns.draft("c", userIds=["u00"], **template)
    stop_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await campaigns.done("start", campaignId="c", stopAt=stop_at)
    await send_everything(database, valkey_url)
    copy = await campaigns.done("duplicate", campaignId="c", newCampaignId="d")
    assert (copy["status"], copy["stopAt"], copy["stats"]["targets"]) == ("DRAFT", None, 0)
    assert copy["stats"]["startedAt"] is None
    await campaigns.done("start", campaignId="d")
    await send_everything(database, valkey_url)
    assert (await campaigns.read("d"))["stats"]["sent"] == 1


async def test_what_cannot_be_copied(client: Client, campaigns: Campaigns) -> None:
    await campaigns.draft("c")
    assert await campaigns.refused("duplicate", campaignId="x") == [("NOT_FOUND", ["campaignId"])]
    taken = await campaigns.refused("duplicate", campaignId="c", newCampaignId="c")
    assert taken == [("ALREADY_EXISTS", ["newCampaignId"])]
    wrong = await campaigns.refused("duplicate", campaignId="c", newCampaignId="a b", name="x" * 129)
    assert sorted(wrong) == [("INVALID_INPUT", ["newCampaignId"]), ("LIMIT_EXCEEDED", ["name"])]
    await client.data('mutation { deleteUsers(input: {userIds: ["sender"]}) { errors { message } } }')
    assert await campaigns.refused("duplicate", campaignId="c") == [("INVALID_INPUT", ["campaignId"])]


async def test_a_deleted_segment_is_not_taken_for_the_one_that_has_its_id_now(
    client: Client, campaigns: Campaigns
) -> None:
    await client.data(SEGMENT, id="one")
    await campaigns.draft("c", segmentIds=["one"], createChannels=True, channelTemplate={"type": "messaging"})
    await campaigns.done("start", campaignId="c")
    await campaigns.done("stop", campaignId="c")
    await client.data(DELETE_SEGMENT, id="one")
    await client.data(SEGMENT, id="one")
    assert await campaigns.refused("duplicate", campaignId="c") == [("CONFLICT", ["campaignId"])]


async def test_a_viewer_may_not(viewer: Client) -> None:
    error = await viewer.error(
        'mutation { duplicateCampaign(input: {campaignId: "c"}) { campaign { id } errors { code } } }'
    )
    assert error["extensions"]["code"] == "FORBIDDEN"

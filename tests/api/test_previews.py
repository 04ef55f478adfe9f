"""Campaign.preview, messagePreview and testCampaign: messages looked at, or tested, before they are sent."""

from typing import Any

import pytest

from app.database import Database
from app.settings import Settings, load
from tests.api.campaigns import ERRORS, Campaigns, people
from tests.api.conftest import Client

SHOWN = "receiverId cid text attachments custom missingVariables error"
PREVIEW = f"""query ($ids: [String!]) {{ campaign(campaignId: "news") {{
  preview(receiverIds: $ids) {{ {SHOWN} }} }} }}"""
COUNTED = """query ($count: Int!) { campaign(campaignId: "news") { campaignId
  preview(count: $count) { receiverId } } }"""
MESSAGE = f"""query ($input: MessagePreviewInput!) {{ messagePreview(input: $input) {{
  previews {{ {SHOWN} }} {ERRORS} }} }}"""
TEST = f"""mutation ($input: TestCampaignInput!) {{ testCampaign(input: $input) {{
  results {{ userId messageId cid reason detail }} {ERRORS} }} }}"""
TEMPLATE = {"text": "Hi {{ receiver.name }} from {{ receiver.city }}", "custom": {"n": "{{ 1 + 1 }}"}}
CREATING = {"createChannels": True, "channelTemplate": {"type": "messaging", "id": "{{ receiver.id }}"}}


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    """A draft for two users and somebody who does not exist."""
    await people(database, 4)
    campaigns = Campaigns(client)
    audience = {"userIds": ["u00", "u01", "nobody"]}
    await campaigns.draft("news", messageTemplate=TEMPLATE, **audience, **CREATING)
    return campaigns


async def test_the_first_of_the_audience(campaigns: Campaigns) -> None:
    shown = (await campaigns.client.data(PREVIEW))["campaign"]["preview"]
    assert [each["receiverId"] for each in shown] == ["nobody", "u00", "u01"]
    assert shown[0]["error"] == "SKIPPED UNKNOWN_USER: there is no user nobody"
    assert shown[1] == {
        "receiverId": "u00",
        "cid": "messaging:u00",
        "text": "Hi User 0 from ",
        "attachments": [],
        "custom": {"n": 2, "campaign_id": "news"},
        "missingVariables": ["receiver.city"],
        "error": None,
    }


async def test_receivers_that_are_named(campaigns: Campaigns, viewer: Client) -> None:
    shown = (await viewer.data(PREVIEW, ids=["u03"]))["campaign"]["preview"]
    assert [each["text"] for each in shown] == ["Hi User 3 from "]
    assert (await viewer.data(PREVIEW, ids=[]))["campaign"]["preview"] == []


async def test_past_the_maximum_is_a_coded_error(campaigns: Campaigns) -> None:
    client = campaigns.client
    assert len((await client.data(COUNTED, count=20))["campaign"]["preview"]) == 3
    error = await client.error(COUNTED, count=21)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["details"] == {"limit": 20, "given": 21}
    error = await client.error(PREVIEW, ids=[f"u{number}" for number in range(21)])
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    error = await client.error(PREVIEW, ids=["a b"])
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["extensions"]["inputPath"] == ["receiverIds", "0"]


async def test_a_preview_that_is_refused_leaves_the_campaign(campaigns: Campaigns) -> None:
    answer = await campaigns.client.execute(COUNTED, count=-1)
    assert answer["data"]["campaign"] == {"campaignId": "news", "preview": None}
    assert answer["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_previews_weigh_what_they_cost(campaigns: Campaigns) -> None:
    page = "query ($n: Int!) { campaigns(first: $n) { nodes { preview { text } } } }"
    await campaigns.client.data(page, n=10)
    error = await campaigns.client.error(page, n=100)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"


async def look(client: Client, **given: Any) -> Any:
    """The payload of messagePreview."""
    asked = {"senderId": "sender", "messageTemplate": TEMPLATE, "receiverIds": ["u00"], **given}
    return (await client.data(MESSAGE, input=asked))["messagePreview"]


async def test_a_message_without_a_campaign(campaigns: Campaigns, viewer: Client) -> None:
    payload = await look(viewer, receiverIds=["u01", "nobody"])
    assert payload["errors"] == []
    assert payload["previews"][0] == {
        "receiverId": "u01",
        "cid": None,
        "text": "Hi User 1 from ",
        "attachments": [],
        "custom": {"n": 2},
        "missingVariables": ["receiver.city"],
        "error": None,
    }
    assert payload["previews"][1]["error"] == "SKIPPED UNKNOWN_USER: there is no user nobody"


async def test_what_is_wrong_with_a_message(campaigns: Campaigns) -> None:
    payload = await look(
        campaigns.client,
        senderId="a b",
        messageTemplate={"text": "Hi", "custom": {"a": ["fine", "{{ nope.x }}"]}},
        receiverIds=[],
    )
    assert payload["previews"] == []
    found = {tuple(error["path"]): error for error in payload["errors"]}
    assert {error["code"] for error in found.values()} == {"INVALID_INPUT"}
    assert set(found) == {("senderId",), ("messageTemplate", "custom", "a", "1"), ("receiverIds",)}
    assert found["messageTemplate", "custom", "a", "1"]["details"] == {"line": 1, "column": 4}
    payload = await look(campaigns.client, receiverIds=[f"u{number}" for number in range(21)])
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("LIMIT_EXCEEDED", ["receiverIds"])
    ]
    payload = await look(campaigns.client, senderId="nobody")
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", ["senderId"])
    ]


async def send_test(client: Client, *user_ids: str, campaign_id: str = "news") -> Any:
    """The payload of testCampaign."""
    return (await client.data(TEST, input={"campaignId": campaign_id, "userIds": user_ids}))["testCampaign"]


async def test_a_test_is_sent_and_the_campaign_knows_nothing_of_it(campaigns: Campaigns) -> None:
    before = await campaigns.read("news")
    payload = await send_test(campaigns.client, "u03", "nobody")
    assert payload["errors"] == []
    sent, skipped = payload["results"]
    assert (sent["userId"], sent["cid"], sent["reason"], sent["detail"]) == (
        "u03",
        "messaging:u03",
        None,
        None,
    )
    assert skipped == {
        "userId": "nobody",
        "messageId": None,
        "cid": None,
        "reason": "UNKNOWN_USER",
        "detail": "SKIPPED UNKNOWN_USER: there is no user nobody",
    }
    after = await campaigns.read("news")
    for campaign in (before, after):
        del campaign["stats"]["asOf"]
    assert after == before
    messages = """{ channel(cid: "messaging:u03") { messages { nodes {
      messageId text custom type campaignId campaign { id } } } } }"""
    assert (await campaigns.client.data(messages))["channel"]["messages"]["nodes"] == [
        {
            "messageId": sent["messageId"],
            "text": "Hi User 3 from ",
            "custom": {"n": 2, "test": True},
            "type": "regular",
            "campaignId": None,
            "campaign": None,
        }
    ]


async def test_a_test_that_cannot_be(campaigns: Campaigns, viewer: Client) -> None:
    async def refused(*user_ids: str, campaign_id: str = "news") -> Any:
        payload = await send_test(campaigns.client, *user_ids, campaign_id=campaign_id)
        assert payload["results"] == []
        return [(error["code"], error["path"]) for error in payload["errors"]]

    assert await refused() == [("INVALID_INPUT", ["userIds"])]
    assert await refused(*[f"u{n}" for n in range(11)]) == [("LIMIT_EXCEEDED", ["userIds"])]
    assert await refused("a b") == [("INVALID_INPUT", ["userIds", "0"])]
    assert await refused("u00", campaign_id="none") == [("NOT_FOUND", ["campaignId"])]
    error = await viewer.error(TEST, input={"campaignId": "news", "userIds": ["u00"]})
    assert error["extensions"]["code"] == "FORBIDDEN"


class TestCapacity:
    """A month of two messages."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """The same with a limit."""
        return load(**{**settings.model_dump(exclude_unset=True), "monthly_messages": 2})

    async def test_test_messages_count(self, campaigns: Campaigns) -> None:
        assert (await send_test(campaigns.client, "u00", "u01"))["errors"] == []
        assert (await campaigns.client.data("{ usage { messagesSent } }"))["usage"] == {"messagesSent": 2}
        payload = await send_test(campaigns.client, "u02")
        assert [error["code"] for error in payload["errors"]] == ["QUOTA_EXCEEDED"]
        assert (await campaigns.client.data("{ usage { messagesSent } }"))["usage"] == {"messagesSent": 2}

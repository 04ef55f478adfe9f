"""Campaign.explain: what happened, or would happen, to one target."""

import pytest

from app.database import Database
from tests.api.campaigns import Campaigns, people, send_everything
from tests.api.conftest import Client

EXPLAIN = """query ($target: String!) { campaign(campaignId: "news") { explain(targetId: $target) {
  targetId inAudience matchedSegments { segmentId } status reason steps } } }"""
SEGMENTS = """mutation { one: createSegment(input: {segmentId: "one", type: USER}) { errors { message } }
  two: createSegment(input: {segmentId: "two", type: USER}) { errors { message } }
  a: addSegmentTargets(input: {segmentId: "one", targetIds: ["u00", "u01"]}) { errors { message } }
  b: addSegmentTargets(input: {segmentId: "two", targetIds: ["u01", "nobody"]}) { errors { message } } }"""
TEMPLATE = {"createChannels": True, "channelTemplate": {"type": "messaging"}}


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    """A draft for two segments that overlap."""
    await people(database, 4)
    await client.data(SEGMENTS)
    campaigns = Campaigns(client)
    await campaigns.draft("news", segmentIds=["one", "two"], **TEMPLATE)
    return campaigns


async def test_before_the_start(campaigns: Campaigns, viewer: Client) -> None:
    found = (await viewer.data(EXPLAIN, target="u01"))["campaign"]["explain"]
    assert found["matchedSegments"] == [{"segmentId": "one"}, {"segmentId": "two"}]
    assert (found["inAudience"], found["status"], found["reason"]) == (True, None, None)
    assert found["steps"][0].endswith("It counts once, for one: duplicates go.")


async def test_when_it_is_over(campaigns: Campaigns, database: Database, valkey_url: str) -> None:
    await campaigns.done("start", campaignId="news")
    await send_everything(database, valkey_url)
    sent, skipped, outside = [
        (await campaigns.client.data(EXPLAIN, target=target))["campaign"]["explain"]
        for target in ("u00", "nobody", "u03")
    ]
    assert (sent["targetId"], sent["status"], sent["reason"]) == ("u00", "SENT", None)
    assert sent["steps"][-1] == "The receiver has not read it."
    assert (skipped["status"], skipped["reason"]) == ("SKIPPED", "UNKNOWN_USER")
    assert outside["inAudience"] is False
    assert (outside["matchedSegments"], outside["status"]) == ([], None)


async def test_what_can_be_no_target(campaigns: Campaigns) -> None:
    error = await campaigns.client.error(EXPLAIN, target="a b")
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["extensions"]["inputPath"] == ["targetId"]


async def test_explanations_weigh_what_they_cost(campaigns: Campaigns) -> None:
    page = """query ($n: Int!) { campaigns(first: $n) { nodes { explain(targetId: "u00") { steps } } } }"""
    await campaigns.client.data(page, n=100)
    twice = page.replace("nodes {", 'nodes { again: explain(targetId: "u01") { steps }')
    error = await campaigns.client.error(twice, n=100)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"

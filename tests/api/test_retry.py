"""retryRecipients, audiences of channels and the month's capacity, through the API."""

from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.campaigns import capacity
from app.database import Database
from app.settings import Settings, load
from app.users.models import User
from tests.api.campaigns import ERRORS, Campaigns, people, send_everything
from tests.api.conftest import Client

DIRECT = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
BREAKS_FOR_ZERO = {
    "text": "{% if receiver.id == 'u00' and receiver.name == 'User 0' %}{{ 1 // 0 }}{% endif %}Hi"
}
RETRY = f"""mutation ($input: RetryRecipientsInput!) {{ retryRecipients(input: $input) {{
  campaign {{ status allowedActions stopAt stats {{ startedAt completedAt pending }} }} {ERRORS} }} }}"""
SEGMENT = f"""mutation ($input: CreateSegmentInput!) {{ createSegment(input: $input) {{
  segment {{ segmentId }} {ERRORS} }} }}"""


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    """Campaigns of a sender to five users."""
    await people(database, 5)
    return Campaigns(client)


async def retry(campaigns: Campaigns, **given: Any) -> Any:
    """The payload of a retry."""
    return (await campaigns.client.data(RETRY, input={"campaignId": "c", **given}))["retryRecipients"]


async def completed(campaigns: Campaigns, database: Database, valkey_url: str, **given: Any) -> None:
    """Started, and sent until nothing is left; what u00 lacked is there afterwards."""
    await campaigns.draft("c", userIds=["u00", "u01"], **DIRECT, **given)
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == "u00").values(name="Mended"))


async def test_a_completed_campaign_sends_again_to_whom_it_failed(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await completed(campaigns, database, valkey_url, messageTemplate=BREAKS_FOR_ZERO)
    first = await campaigns.read("c")
    assert (first["status"], first["allowedActions"]) == ("COMPLETED", ["DELETE", "RETRY"])
    assert first["stats"]["reasons"] == [{"reason": "RENDER_ERROR", "count": 1, "sampleTargetIds": ["u00"]}]
    payload = await retry(campaigns)
    assert payload["errors"] == []
    again = payload["campaign"]
    assert (again["status"], again["allowedActions"]) == ("IN_PROGRESS", ["STOP", "PAUSE"])
    assert again["stats"]["completedAt"] is None
    assert again["stats"]["startedAt"] == first["stats"]["startedAt"]
    await send_everything(database, valkey_url)
    last = await campaigns.read("c")
    assert (last["status"], last["stats"]["sent"], last["stats"]["reasons"]) == ("COMPLETED", 2, [])
    assert (last["stats"]["progress"], last["stats"]["targets"]) == (1, 2)


async def test_what_cannot_be_retried_is_told_at_its_field(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await campaigns.draft("c", userIds=["u00", "u01"], **DIRECT)
    refused = (await retry(campaigns))["errors"]
    assert [(error["code"], error["path"]) for error in refused] == [("CONFLICT", ["campaignId"])]
    assert refused[0]["details"] == {"status": "DRAFT", "allowed": ["START", "EDIT", "DELETE"]}
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)
    for given, code, path in (
        ({"reasons": ["NO_CHANNEL", "SENDER"]}, "INVALID_INPUT", ["reasons", "1"]),
        ({"reasons": []}, "INVALID_INPUT", ["reasons"]),
        ({"reasons": ["NO_CHANNEL"]}, "CONFLICT", ["reasons"]),
        ({"reasons": None}, "CONFLICT", ["campaignId"]),
        ({"campaignId": "nobody"}, "NOT_FOUND", ["campaignId"]),
    ):
        payload = await retry(campaigns, **given)
        assert payload["campaign"] is None
        assert [(error["code"], error["path"]) for error in payload["errors"]] == [(code, path)]


async def test_segments_of_users_and_of_channels_do_not_mix(campaigns: Campaigns) -> None:
    for segment_id, kind in (("people", "USER"), ("rooms", "CHANNEL")):
        await campaigns.client.data(SEGMENT, input={"segmentId": segment_id, "type": kind})
    await campaigns.draft("c", segmentIds=["rooms"], createChannels=True)
    assert (await campaigns.done("start", campaignId="c"))["status"] == "IN_PROGRESS"
    payload = await campaigns.change(
        "create", senderId="sender", messageTemplate={"text": "Hi"}, segmentIds=["people", "rooms"]
    )
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", ["segmentIds", "1"])
    ]
    assert "rooms holds channels, people before it users" in payload["errors"][0]["message"]


class TestCapacity:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return load(database_url=settings.database_url, data_dir=settings.data_dir, monthly_messages=3)

    async def used(self, campaigns: Campaigns) -> int:
        usage = await campaigns.client.data("{ usage { messagesSent } }")
        return int(usage["usage"]["messagesSent"])

    async def test_a_retry_and_a_resume_that_do_not_fit_are_refused(
        self, campaigns: Campaigns, database: Database, valkey_url: str
    ) -> None:
        await completed(campaigns, database, valkey_url, messageTemplate=BREAKS_FOR_ZERO)
        async with database.transaction() as session:
            for number in await capacity.unreleased(session):
                await capacity.release_unsent(session, number)
        await campaigns.draft("other", userIds=["u02", "u03"], **DIRECT)
        await campaigns.done("start", campaignId="other")
        refused = (await retry(campaigns))["errors"]
        assert [(error["code"], error["path"]) for error in refused] == [("QUOTA_EXCEEDED", ["campaignId"])]
        assert refused[0]["details"].items() >= {"needed": 1, "left": 0}.items()
        await campaigns.done("pause", campaignId="other")
        assert (await campaigns.done("resume", campaignId="other"))["status"] == "IN_PROGRESS"
        assert await self.used(campaigns) == 3
        await campaigns.done("stop", campaignId="other")
        async with database.transaction() as session:
            for number in await capacity.unreleased(session):
                await capacity.release_unsent(session, number)
        assert (await retry(campaigns))["errors"] == []
        await send_everything(database, valkey_url)
        assert await self.used(campaigns) == 2

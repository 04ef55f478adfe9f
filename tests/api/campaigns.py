"""Documents and steps that tests of campaigns share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.database import Database
from app.onlookers import Onlookers
from app.progress import Publisher
from app.sending.engine import Engine
from app.users.service import upsert_users
from tests.api.conftest import Client

ERRORS = "errors { code message path details }"
STATS = """stats { id asOf startedAt completedAt planned progress targets pending sent skipped failed
  messagesSent channelsCreated usersSent reasons { reason count sampleTargetIds }
  messagesPerSecond estimatedCompletionAt }"""
COUNTS = ("targets", "pending", "sent", "skipped", "failed")
FIELDS = f"""id campaignId name description status statusReason statusMessage statusChangedAt allowedActions
  senderId sender {{ userId }} senderMode senderVisibility
  messageTemplate {{ text attachments custom pollId defaults }}
  channelTemplate {{ type id team custom members membersTemplate {{ userId channelRole custom }} }}
  createChannels showChannels skipPush skipWebhook maxMessagesPerSecond
  segments {{ segmentId deletedAt }} targets {{ nodes {{ targetId }} totalCount }} audienceEstimate
  scheduledFor stopAt createdAt updatedAt {STATS}"""
READ = f"query ($id: String!) {{ campaign(campaignId: $id) {{ {FIELDS} }} }}"
RECIPIENTS = """query ($id: String!, $filter: RecipientFilter, $after: String) {
  campaign(campaignId: $id) { recipients(filter: $filter, first: 100, after: $after) {
    totalCount pageInfo { hasNextPage hasPreviousPage endCursor }
    nodes { id targetId status reason detail messageId cid sentAt user { name } channel { cid }
      message { text campaignId campaign { campaignId status } } campaign { campaignId } }
  } } }"""
DRAFT = {"senderId": "sender", "messageTemplate": {"text": "Hello {{ receiver.name }}"}}


class Campaigns:
    """What tests do with campaigns, through the API."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def change(self, mutation: str, **given: Any) -> Any:
        """The payload of a mutation: `create` stands for createCampaign."""
        name = f"{mutation}Campaign"
        kind = f"{name[0].upper()}{name[1:]}Input"
        document = (
            f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ campaign {{ {FIELDS} }} {ERRORS} }} }}"
        )
        return (await self.client.data(document, input=given))[name]

    async def done(self, mutation: str, **given: Any) -> Any:
        """The campaign after a mutation that has to succeed."""
        payload = await self.change(mutation, **given)
        assert payload["errors"] == []
        return payload["campaign"]

    async def refused(self, mutation: str, **given: Any) -> list[tuple[str, list[str]]]:
        """Code and path of the errors of a mutation that has to fail."""
        payload = await self.change(mutation, **given)
        assert payload["campaign"] is None
        return [(error["code"], error["path"]) for error in payload["errors"]]

    async def draft(self, campaign_id: str, **given: Any) -> Any:
        """A new draft."""
        return await self.done("create", campaignId=campaign_id, **{**DRAFT, **given})

    async def delete(self, campaign_id: str) -> Any:
        """The payload of a deletion."""
        document = f"""mutation ($id: String!) {{
          deleteCampaign(input: {{campaignId: $id}}) {{ deletedIds {ERRORS} }} }}"""
        return (await self.client.data(document, id=campaign_id))["deleteCampaign"]

    async def read(self, campaign_id: str) -> Any:
        """The campaign as it is."""
        return (await self.client.data(READ, id=campaign_id))["campaign"]

    async def recipients(self, campaign_id: str, page: str = "first: 100", **given: Any) -> Any:
        """A page of its recipients."""
        document = RECIPIENTS.replace("first: 100", page)
        return (await self.client.data(document, id=campaign_id, **given))["campaign"]["recipients"]


def somebody() -> Onlookers:
    """One who has come to look."""
    onlookers = Onlookers()
    onlookers.arrive()
    return onlookers


async def people(database: Database, count: int) -> None:
    """A sender, and users u00, u01, ..."""
    users = [{"user_id": f"u{number:02}", "name": f"User {number}"} for number in range(count)]
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": "sender", "name": "Sender"}, *users])


@asynccontextmanager
async def engine(database: Database, valkey_url: str) -> AsyncIterator[Engine]:
    """A worker's hands; what it does is heard by the API under test."""
    publisher = Publisher(valkey_url)
    yield Engine(database, publisher)
    await publisher.close()


async def send_everything(database: Database, valkey_url: str) -> None:
    """Turns until there is nothing left to do."""
    async with engine(database, valkey_url) as worker:
        while await worker.turn() == 0.0:
            pass

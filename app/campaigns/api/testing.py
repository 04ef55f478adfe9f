"""Sending a campaign's message to testers, in GraphQL."""

from typing import Self

import strawberry

from app.campaigns.api.inputs import CAMPAIGN_ID
from app.graphql.context import Info
from app.graphql.errors import MutationPayload
from app.graphql.fields import MAX_SIZE
from app.ledger import models
from app.ledger.api import OutcomeReason
from app.sending import testing
from app.sending.writing import Entry


@strawberry.input(description="Who tests a campaign's message.")
class TestCampaignInput:
    """A campaign and its testers."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)
    user_ids: list[str] = strawberry.field(
        description="1 to 10 users. For a campaign for channels: users who have a channel with the sender."
    )


@strawberry.type(description="What became of a test message: messageId and cid, or why it was not sent.")
class TestResult:
    """A message, or a reason."""

    user_id: str = strawberry.field(description="The tester.")
    message_id: str | None = strawberry.field(description="The message that was sent.")
    cid: str | None = strawberry.field(description="The channel that it went to.")
    reason: OutcomeReason | None = strawberry.field(description="Why it was not sent.")
    detail: str | None = strawberry.field(description="The same in a sentence.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """The GraphQL object of an outcome."""
        return cls(
            user_id=entry.target_id,
            message_id=entry.message_id,
            cid=entry.cid if entry.message_id else None,
            reason=None if entry.reason is None else OutcomeReason[models.OutcomeReason(entry.reason).name],
            detail=entry.detail,
        )


@strawberry.type(description="What became of each test message, or why none was sent.")
class TestCampaignPayload(MutationPayload):
    """Results, or errors."""

    results: list[TestResult] = strawberry.field(
        default_factory=list,
        description="One for each user.",
        metadata={MAX_SIZE: testing.MAX_USERS},
    )


async def tested(info: Info, input: TestCampaignInput) -> TestCampaignPayload:
    """What testCampaign answers."""
    database, capacity = info.context.database, info.context.settings.monthly_messages
    async with database.read() as session:
        trial = await testing.prepare(session, input.campaign_id, input.user_ids)
    async with database.transaction() as session:
        entries = await testing.send(session, trial, capacity=capacity)
    return TestCampaignPayload(results=[TestResult.of(entry) for entry in entries])

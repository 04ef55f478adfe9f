"""What happened, or would happen, to one target, in GraphQL."""

from typing import Self

import strawberry

from app.campaigns.definition import MAX_SEGMENTS
from app.graphql.context import Info
from app.graphql.fields import MAX_SIZE
from app.ledger import models
from app.ledger.api import OutcomeReason, RecipientStatus
from app.segments.api import Segment
from app.sending import explaining

EXPLAIN_WEIGHT = 1_000  # up to 25 segments are asked, and a message is rendered


@strawberry.type(description="What happened, or would happen, to one target of a campaign, and why.")
class RecipientExplanation:
    """An explanation that can be read out."""

    target_id: str = strawberry.field(description="The userId or cid that was asked about.")
    in_audience: bool = strawberry.field(
        description="Whether it is a target, or was named and would have become one if the campaign had not "
        "been stopped. Planning freezes the audience."
    )
    matched_segments: list[Segment] = strawberry.field(
        description="The campaign's segments that name it now, by their definitions of the start once the "
        "campaign has started; in the order given. The first one counts.",
        metadata={MAX_SIZE: MAX_SEGMENTS},
    )
    status: RecipientStatus | None = strawberry.field(
        description="What happened to it; null until it is planned: steps say what would happen."
    )
    reason: OutcomeReason | None = strawberry.field(description="Why it was skipped or failed.")
    steps: list[str] = strawberry.field(description="The same in sentences, one after the other.")

    @classmethod
    def of(cls, found: explaining.Explanation) -> Self:
        """The GraphQL object of an explanation."""
        return cls(
            target_id=found.target_id,
            in_audience=found.in_audience,
            matched_segments=[Segment.of(segment) for segment in found.segments],
            status=None
            if found.status is None
            else RecipientStatus[models.RecipientStatus(found.status).name],
            reason=None if found.reason is None else OutcomeReason[models.OutcomeReason(found.reason).name],
            steps=list(found.steps),
        )


async def explanation_of(info: Info, campaign_no: int, target_id: str) -> RecipientExplanation | None:
    """The explanation of one target; None if the campaign was deleted meanwhile."""
    async with info.context.database.read() as session:
        found = await explaining.explain(session, campaign_no, target_id)
    return RecipientExplanation.of(found) if found else None

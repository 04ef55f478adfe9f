"""A campaign's stats in GraphQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

import strawberry
from strawberry.types.nodes import Selection

from app.campaigns.stats import Snapshot
from app.graphql.context import Info
from app.graphql.fields import MAX_SIZE
from app.graphql.nodes import encode_id
from app.ledger import models
from app.ledger.api import OutcomeReason

MAX_INT = 2**31 - 1


@strawberry.type(description="How many targets were skipped or failed for one reason.")
class ReasonCount:
    """A reason and its count."""

    reason: OutcomeReason = strawberry.field(description="The reason.")
    count: int = strawberry.field(description="How many targets.")
    sample_target_ids: list[str] = strawberry.field(description="Up to three of them.")


@strawberry.type(
    description="At every instant targets = sent + skipped + failed + pending; each is counted, none is a "
    "difference."
)
class CampaignStats:
    """Numbers that were read in one snapshot, together with the campaign's status."""

    id: strawberry.ID = strawberry.field(description="For caches; the same for all stats of a campaign.")
    as_of: datetime = strawberry.field(description="When these numbers were read, by the database's clock.")
    started_at: datetime | None = strawberry.field(description="When it first started.")
    completed_at: datetime | None = strawberry.field(
        description="When it ended; null again while a retry runs."
    )
    planned: bool = strawberry.field(
        description="False while the audience is still being resolved: targets still grows."
    )
    progress: float = strawberry.field(
        description="0 to 1: of the larger of targets and audienceEstimate until planned (0 while there is "
        "no estimate), then of targets. 1 exactly when planned and pending is 0."
    )
    targets: int = strawberry.field(description="Targets planned so far.")
    pending: int = strawberry.field(description="Targets without an outcome yet.")
    sent: int = strawberry.field(description="Targets that got their message.")
    skipped: int = strawberry.field(description="Targets that were left out, for the reasons below.")
    failed: int = strawberry.field(description="Targets whose message could not be made.")
    messages_sent: int = strawberry.field(description="Messages written.")
    channels_created: int = strawberry.field(description="Channels created.")
    users_sent: int = strawberry.field(
        description="Receivers: sent targets of a user audience, members other than the sender for channels."
    )
    users_read: int = strawberry.field(
        description="Those of them who have read up to the message (markChannelRead)."
    )
    reasons: list[ReasonCount] = strawberry.field(
        description="Skipped and failed by reason.", metadata={MAX_SIZE: len(models.OutcomeReason)}
    )
    messages_per_second: float = strawberry.field(
        description="Measured over the last 10 s; 0 when not in progress."
    )
    estimated_completion_at: datetime | None = strawberry.field(
        description="When it ends if it goes on like that; null where nobody can tell."
    )

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """The GraphQL object of a snapshot."""
        stats, sums = snapshot.stats, snapshot.stats.sums
        return cls(
            id=encode_id("CampaignStats", snapshot.campaign.campaign_no),
            as_of=stats.as_of,
            started_at=stats.started_at,
            completed_at=stats.completed_at,
            planned=sums.planned,
            progress=stats.progress,
            targets=shown(sums.targets),
            pending=shown(sums.pending),
            sent=shown(sums.sent),
            skipped=shown(sums.skipped),
            failed=shown(sums.failed),
            messages_sent=shown(sums.messages_sent),
            channels_created=shown(sums.channels_created),
            users_sent=shown(sums.users_sent),
            users_read=shown(sums.users_read),
            reasons=[
                ReasonCount(
                    reason=OutcomeReason[models.OutcomeReason(reason.reason).name],
                    count=shown(reason.count),
                    sample_target_ids=list(reason.samples),
                )
                for reason in sums.reasons
            ],
            messages_per_second=stats.messages_per_second,
            estimated_completion_at=stats.estimated_completion_at,
        )


def shown(count: int) -> int:
    """A count as GraphQL's Int can hold it."""
    return min(count, MAX_INT)


def asked_for(info: Info) -> bool:
    """Whether `stats` stand anywhere in this field's selection: then rows are read together with them."""
    return _any_stats(info.selected_fields)


def _any_stats(selections: Sequence[Selection]) -> bool:
    return any(
        getattr(selection, "name", None) == "stats" or _any_stats(selection.selections)
        for selection in selections
    )

"""A campaign in GraphQL."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app import keyset
from app.campaigns import models, queries, stats
from app.campaigns.api.campaign_stats import CampaignStats, asked_for, shown
from app.campaigns.api.enums import CampaignAction, CampaignStatus, SenderMode, SenderVisibility, StatusReason
from app.campaigns.api.explanations import EXPLAIN_WEIGHT, RecipientExplanation, explanation_of
from app.campaigns.api.previews import PREVIEW_WEIGHT, MessagePreview, previews_of
from app.campaigns.api.templates import ChannelTemplate, MessageTemplate
from app.campaigns.definition import MAX_SEGMENTS
from app.campaigns.states import Status, allowed_actions
from app.campaigns.stats import Snapshot
from app.graphql.connections import (
    Family,
    Listing,
    connection,
    nested_listing,
    select_family,
    select_listing,
)
from app.graphql.context import Info
from app.graphql.fields import field
from app.graphql.keyed import reference
from app.graphql.loaders import Loader
from app.graphql.nodes import Node, number_key
from app.keys.roles import Role
from app.keyset import Bounds, By, Key
from app.ledger.api import Recipient, RecipientFilter, recipient_listing
from app.segments.api import Segment, Target
from app.sending.previewing import MAX_RECEIVERS

if TYPE_CHECKING:
    from app.users.api import User

MAX_TARGETS_PAGE = 1_000
MAX_RECIPIENTS_PAGE = 10_000

campaigns = Loader(queries.by_nos)
snapshots = Loader(stats.snapshots)
segments_named = Loader(queries.segments_of)
target_counts = Loader(queries.target_counts)

TARGETS = select_family(queries.targets, [By(col(models.CampaignTarget.target_id))])


@strawberry.type(description="One message template, sent once to one audience for one sender.")
class Campaign(Node):
    """A campaign; with the stats of the same snapshot, where these were asked for."""

    campaign_id: str = strawberry.field(description="The id that it was given.")
    name: str | None = strawberry.field(description="What people call it.")
    description: str | None = strawberry.field(description="What it is for.")
    status: CampaignStatus = strawberry.field(description="Where it stands.")
    status_reason: StatusReason | None = strawberry.field(
        description="Why it is as it is, where the server did it."
    )
    status_message: str | None = strawberry.field(description="The same, for people.")
    status_changed_at: datetime = strawberry.field(description="Since when it has this status.")
    sender_id: str = strawberry.field(description="Who it speaks for.")
    sender_mode: SenderMode | None = strawberry.field(
        description="In which channels the sender becomes a member; null: in created ones."
    )
    sender_visibility: SenderVisibility | None = strawberry.field(
        description="How the sender sees created channels."
    )
    message_template: MessageTemplate = strawberry.field(description="What is said.")
    channel_template: ChannelTemplate | None = strawberry.field(
        description="Which channels are written to; null: the receiver's channel with the sender, of any"
        " type."
    )
    create_channels: bool = strawberry.field(description="Whether absent channels are created.")
    show_channels: bool = strawberry.field(
        description="Whether channels that receivers have hidden reappear."
    )
    skip_push: bool = strawberry.field(description="Whether no push notifications go out.")
    skip_webhook: bool = strawberry.field(
        description="Whether no events of single messages and channels go out."
    )
    max_messages_per_second: int | None = strawberry.field(
        description="Ceiling for this campaign, changeable while it runs; null: only the server's own."
    )
    scheduled_for: datetime | None = strawberry.field(description="When it starts by itself.")
    stop_at: datetime | None = strawberry.field(description="When it stops by itself.")
    created_at: datetime = strawberry.field(description="When it was created.")
    updated_at: datetime = strawberry.field(description="When it was last changed.")
    row: strawberry.Private[models.Campaign]
    snapshot: strawberry.Private[Snapshot | None]

    @classmethod
    def of(cls, row: models.Campaign, snapshot: Snapshot | None = None) -> "Campaign":
        """The GraphQL object of a row, and of the snapshot that the row is from."""
        template = row.channel_template
        return cls(
            id=cls.global_id(row.campaign_no),
            campaign_id=row.campaign_id,
            name=row.name,
            description=row.description,
            status=CampaignStatus[row.status],
            status_reason=StatusReason[row.status_reason] if row.status_reason else None,
            status_message=row.status_message,
            status_changed_at=row.status_changed_at,
            sender_id=row.sender_id,
            sender_mode=SenderMode[row.sender_mode] if row.sender_mode else None,
            sender_visibility=SenderVisibility[row.sender_visibility] if row.sender_visibility else None,
            message_template=MessageTemplate.of(row.message_template),
            channel_template=None if template is None else ChannelTemplate.of(template),
            create_channels=row.create_channels,
            show_channels=row.show_channels,
            skip_push=row.skip_push,
            skip_webhook=row.skip_webhook,
            max_messages_per_second=row.max_messages_per_second,
            scheduled_for=row.scheduled_for,
            stop_at=row.stop_at,
            created_at=row.created_at,
            updated_at=row.updated_at,
            row=row,
            snapshot=snapshot,
        )

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> "Campaign":
        """The GraphQL object of a snapshot."""
        return cls.of(snapshot.campaign, snapshot)

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Campaign | None"]:
        """Campaigns by number, unless deleted; with their stats, where these were asked for."""
        numbers = [number_key(key) for key in keys]
        if asked_for(info):
            found = await snapshots.load_many(info, numbers)
            return [cls.of_snapshot(snapshot) if snapshot else None for snapshot in found]
        rows = await campaigns.load_many(info, numbers)
        return [cls.of(row) if row else None for row in rows]

    @field(description="What this status and this key allow now.")
    def allowed_actions(self, info: Info) -> list[CampaignAction]:
        """The actions that would change something; none for a viewer."""
        if info.context.viewer.role is not Role.ADMIN:
            return []
        return [CampaignAction[action] for action in allowed_actions(Status(self.row.status))]

    @reference(
        Annotated["User", strawberry.lazy("app.users.api")],
        description="Who it speaks for; null if deleted since.",
    )
    def sender(self) -> str:
        """The sender's id."""
        return self.sender_id

    @field(
        description="The segments that are its audience, in the order given; deleted ones too.",
        max_size=MAX_SEGMENTS,
    )
    async def segments(self, info: Info) -> list[Segment]:
        """Loaded once for all campaigns of a page."""
        return [Segment.of(row) for row in await segments_named.load(info, self.row.campaign_no) or ()]

    @connection(
        Target,
        max_size=MAX_TARGETS_PAGE,
        description="The ids named by userIds, existing users or not, by id.",
    )
    async def targets(self, info: Info) -> Any:
        """The ids named by userIds."""
        number = self.row.campaign_no
        return nested_listing(info, TARGETS, number, partial(Target.of_campaign, number))

    @field(
        description="Sum of the segments' sizes, an upper bound before duplicates go; null while one is "
        "uncounted. The number of ids, where userIds names them."
    )
    async def audience_estimate(self, info: Info) -> int | None:
        """Reading it may have old sizes counted anew, as reading a segment's size does."""
        segments = await self.segments(info)
        if not segments:
            return await target_counts.load(info, self.row.campaign_no) or 0
        sizes = await asyncio.gather(*(segment.size(info) for segment in segments))
        return None if None in sizes else shown(sum(sizes))

    @connection(
        Recipient,
        max_size=MAX_RECIPIENTS_PAGE,
        description="One row for every planned target: what happened to it and why. By target id.",
    )
    async def recipients(
        self,
        info: Info,
        filter: Annotated[
            RecipientFilter | None, strawberry.argument(description="Only these.")
        ] = strawberry.UNSET,
    ) -> Any:
        """Settled and pending targets."""
        return recipient_listing(info, self.row.campaign_no, filter, self)

    @field(
        description="What happened, or would happen, to one target, and why; targets that are not in the "
        "audience too. Null if the campaign is deleted meanwhile.",
        weight=EXPLAIN_WEIGHT,
    )
    async def explain(
        self, info: Info, target_id: Annotated[str, strawberry.argument(description="A userId or cid.")]
    ) -> RecipientExplanation | None:
        """One target's story."""
        return await explanation_of(info, self.row.campaign_no, target_id)

    @field(
        description="The message as these receivers would get it; nothing is sent.",
        max_size=MAX_RECEIVERS,
        weight=PREVIEW_WEIGHT,
    )
    async def preview(
        self,
        info: Info,
        receiver_ids: Annotated[
            list[str] | None,
            strawberry.argument(
                description="At most 20 userIds, or cids where the audience is channels. Default: the first "
                "of the audience."
            ),
        ] = strawberry.UNSET,
        count: Annotated[
            int, strawberry.argument(description="How many of the audience's first, at most 20.")
        ] = 3,
    ) -> list[MessagePreview] | None:
        """Rendered by what sends."""
        named = None if receiver_ids is strawberry.UNSET else receiver_ids
        return await previews_of(info, self.row, named, count)

    @field(description="How far it has come.")
    def stats(self) -> CampaignStats:
        """Read with the campaign itself, so that status and numbers agree."""
        assert self.snapshot is not None, "whoever made this did not look at asked_for()"
        return CampaignStats.of(self.snapshot)


def campaign_listing(info: Info, statement: Select[Any], order: Sequence[By]) -> Listing[Any]:
    """A listing of campaigns; each page with its stats from the same snapshot, where these were asked for."""
    if not asked_for(info):
        return select_listing(info, statement, order, Campaign.of)
    database = info.context.database

    async def fetch(bounds: Bounds) -> Sequence[tuple[Snapshot, Key]]:
        async with database.read() as session:
            found = await keyset.page(session, statement, order, bounds)
            numbers = await stats.of(session, [row for row, _ in found])
        return [(Snapshot(row, numbers[row.campaign_no]), key) for row, key in found]

    plain = select_listing(info, statement, order, Campaign.of)
    return Listing(fetch=fetch, kinds=plain.kinds, node=Campaign.of_snapshot, count=plain.count)


def campaigns_naming(info: Info, segment_no: int) -> Listing[Any]:
    """The campaigns that name a segment, newest first; with their stats, where these were asked for."""
    if not asked_for(info):
        return nested_listing(info, NAMING, segment_no, Campaign.of)
    return nested_listing(info, NAMING_WITH_STATS, segment_no, Campaign.of_snapshot)


async def _naming_with_stats(
    session: AsyncSession, segment_nos: Sequence[int], bounds: Bounds
) -> dict[int, list[tuple[Snapshot, Key]]]:
    found = await NAMING.pages(session, segment_nos, bounds)
    rows = {row.campaign_no: row for page in found.values() for row, _ in page}
    numbers = await stats.of(session, list(rows.values()))
    return {
        number: [(Snapshot(row, numbers[row.campaign_no]), key) for row, key in page]
        for number, page in found.items()
    }


NEWEST = [
    By(col(column), descending=True) for column in (models.Campaign.created_at, models.Campaign.campaign_no)
]
NAMING = select_family(queries.naming, NEWEST)
NAMING_WITH_STATS = Family(_naming_with_stats, NAMING.counts, NAMING.kinds)

"""A segment in GraphQL: its definition, size, targets and campaigns."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from strawberry.dataloader import DataLoader

from app.errors import InvalidInput
from app.graphql.comparisons import condition
from app.graphql.connections import Own, connection, nested_listing
from app.graphql.context import Context, Info
from app.graphql.fields import field
from app.graphql.loaders import Loader
from app.graphql.nodes import Node, number_key
from app.graphql.scalars import JSON
from app.graphql.sorting import SortDirection
from app.keyset import By
from app.queue import Job
from app.segments import kinds, models, queries, service
from app.segments.api.targets import Target, TargetFilter, TargetSort, segment_targets

if TYPE_CHECKING:
    from app.campaigns.api import Campaign

MAX_PAGE = 100
MAX_TARGETS_PAGE = 10_000

segments = Loader(queries.by_numbers)


@strawberry.enum(description="What a segment's targets are.")
class SegmentType(Enum):
    """The types of `kinds.SegmentType`, described for clients."""

    USER = strawberry.enum_value("USER", description="Users; a target id is a userId.")
    CHANNEL = strawberry.enum_value("CHANNEL", description="Channels; a target id is a cid.")


@strawberry.enum(description="Whether a segment's size is known.")
class SegmentSizeState(Enum):
    """The states of `kinds.SizeState`, described for clients."""

    COMPUTING = strawberry.enum_value("COMPUTING", description="Being counted in the background.")
    READY = strawberry.enum_value("READY", description="Counted.")
    NEVER = strawberry.enum_value("NEVER", description="Never counted: it depends on the sender.")


LOOK_WEIGHT = 20  # its filter is asked about one user or channel


@strawberry.type(description="A reusable audience of users or channels.")
class Segment(Node):
    """A segment."""

    segment_id: str = strawberry.field(description="The id that it was given.")
    type: SegmentType = strawberry.field(description="What its targets are.")
    name: str = strawberry.field(description="What people call it.")
    description: str = strawberry.field(description="What it is for.")
    filter: JSON | None = strawberry.field(description="The filter that finds its targets, if it has one.")
    all_users: bool = strawberry.field(description="Whether its targets are all users.")
    all_sender_channels: bool = strawberry.field(
        description="Whether its targets are all channels of a campaign's sender."
    )
    size_as_of: datetime | None = strawberry.field(description="When the size was counted or last changed.")
    created_at: datetime = strawberry.field(description="When it was created.")
    updated_at: datetime = strawberry.field(description="When it, or its list, was last changed.")
    deleted_at: datetime | None = strawberry.field(
        description="Deleted segments are seen only through the campaigns that named them."
    )
    row: strawberry.Private[models.Segment]

    @classmethod
    def of(cls, row: models.Segment) -> "Segment":
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.segment_no),
            segment_id=row.segment_id,
            type=SegmentType[row.type],
            name=row.name,
            description=row.description,
            filter=None if row.filter is None else JSON(row.filter),
            all_users=row.kind == kinds.SegmentKind.ALL_USERS,
            all_sender_channels=row.kind == kinds.SegmentKind.ALL_SENDER_CHANNELS,
            size_as_of=row.size_as_of,
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted_at=row.deleted_at,
            row=row,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Segment | None"]:
        """Segments by number, unless deleted."""
        rows = await segments.load_many(info, [number_key(key) for key in keys])
        return [cls.of(row) if row and row.deleted_at is None else None for row in rows]

    @field(description="How many targets it has; null while never counted yet.")
    async def size(self, info: Info) -> int | None:
        """Reading the size may ask for a new count; the last one stays until that is done."""
        await _recounting(info, self.row)
        return self.row.size

    @field(description="COMPUTING: counted in the background (filter, allUsers); NEVER: allSenderChannels.")
    async def size_state(self, info: Info) -> SegmentSizeState:
        """Reading the state may ask for a new count."""
        if await _recounting(info, self.row):
            return SegmentSizeState.COMPUTING
        return SegmentSizeState[self.row.size_state]

    @connection(Target, max_size=MAX_TARGETS_PAGE, description="Who is in it now, by target id.")
    async def targets(
        self,
        info: Info,
        sender_id: Annotated[
            str | None, strawberry.argument(description="For allSenderChannels, where it is required.")
        ] = strawberry.UNSET,
        filter: Annotated[
            TargetFilter | None, strawberry.argument(description="Only these.")
        ] = strawberry.UNSET,
        sort: Annotated[
            list[TargetSort] | None, strawberry.argument(description="Which way; ascending by default.")
        ] = strawberry.UNSET,
    ) -> Any:
        """Its targets."""
        dialect, sender = info.context.database.dialect, _sender(self.row, sender_id)
        target, statement = queries.targets_of(dialect, self.row, sender)
        chosen = statement.where(condition(filter, {"target_id": target}, dialect))
        descending = sort[0].direction is SortDirection.DESC if sort else False
        own = Own((self.row.segment_no, sender), chosen, [By(target, descending=descending)])
        of, shape = Target.of_segment(self.row, sender), Target.shape(self.row, sender)
        return nested_listing(info, own.family(), own, of, shape=shape)

    @field(description="Whether it has this target now.", weight=LOOK_WEIGHT)
    async def target_exists(
        self,
        info: Info,
        target_id: Annotated[str, strawberry.argument(description="A userId or cid.")],
        sender_id: Annotated[
            str | None, strawberry.argument(description="For allSenderChannels, where it is required.")
        ] = strawberry.UNSET,
    ) -> bool:
        """One look, whatever the size."""
        key = (self.row.segment_no, target_id, _sender(self.row, sender_id))
        return await segment_targets.load(info, key) is not None

    @connection(
        Annotated["Campaign", strawberry.lazy("app.campaigns.api")],
        max_size=MAX_PAGE,
        description="Campaigns that name this segment, newest first.",
    )
    async def campaigns(self, info: Info) -> Any:
        """The campaigns that name it."""
        from app.campaigns.api import campaigns_naming

        return campaigns_naming(info, self.row.segment_no)


def _sender(segment: models.Segment, sender_id: str | None) -> str | None:
    """The sender, where that decides who is in the segment."""
    if segment.kind != kinds.SegmentKind.ALL_SENDER_CHANNELS:
        return None
    if not sender_id:
        raise InvalidInput("senderId is required: this segment has all channels of a sender")
    return sender_id


async def _recounting(info: Info, segment: models.Segment) -> bool:
    """Whether a count was asked for because the last one is old. All segments of a page ask at once."""
    counted = segment.kind in queries.COUNTED and segment.size_state == kinds.SizeState.READY
    if not counted or segment.size_as_of is None or segment.deleted_at is not None:
        return False
    if datetime.now(UTC) - segment.size_as_of < service.COUNT_AGE:
        return False
    loaders = info.context.loaders
    if _recount not in loaders:
        loaders[_recount] = DataLoader(partial(_recount, info.context))
    asked: bool = await loaders[_recount].load(segment.segment_no)
    return asked


async def _recount(context: Context, segment_nos: list[int]) -> list[bool]:
    async with context.database.transaction() as session:
        asked = await service.recount_stale(session, segment_nos)
        if asked:
            context.doorbell.ring_after_commit(session, Job.COUNT_SEGMENTS)
    return [asked] * len(segment_nos)

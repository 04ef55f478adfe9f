"""Segments in GraphQL: finding and changing them."""

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries as campaigns
from app.graphql.comparisons import BooleanFilter, DateTimeFilter, StringFilter, condition
from app.graphql.connections import connection, select_listing
from app.graphql.context import Info
from app.graphql.deleting import DeletePayload
from app.graphql.errors import MutationPayload
from app.graphql.fields import mutation, query
from app.graphql.scalars import JSON
from app.graphql.sorting import SortDirection
from app.keyset import By
from app.queue import Job
from app.segments import models, queries, service
from app.segments.api.previews import (
    PREVIEW_WEIGHT,
    SegmentPreviewInput,
    SegmentPreviewPayload,
    previewed,
)
from app.segments.api.segment import MAX_PAGE, Segment, SegmentSizeState, SegmentType, segments
from app.segments.api.targets import Target, TargetFilter
from app.segments.kinds import SegmentKind, SizeState

__all__ = [
    "Mutation",
    "Query",
    "Segment",
    "SegmentSizeState",
    "SegmentType",
    "Target",
    "TargetFilter",
    "segments",
]


@strawberry.input(description="Chooses by a segment's type.")
class SegmentTypeFilter:
    """Comparisons of a type."""

    eq: SegmentType | None = strawberry.field(default=strawberry.UNSET, description="This type.")
    in_: list[SegmentType] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="One of these types."
    )


@strawberry.input(description="Chooses segments: everything that is given holds.")
class SegmentFilter:
    """Comparisons of a segment."""

    and_: list["SegmentFilter"] | None = strawberry.field(
        name="and", default=strawberry.UNSET, description="All of these hold."
    )
    or_: list["SegmentFilter"] | None = strawberry.field(
        name="or", default=strawberry.UNSET, description="One of these holds."
    )
    segment_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By name.")
    type: SegmentTypeFilter | None = strawberry.field(default=strawberry.UNSET, description="By type.")
    all_users: BooleanFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By whether the targets are all users."
    )
    created_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By when they were created."
    )
    updated_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By when they were changed."
    )


FILTERED = {
    "segment_id": col(models.Segment.segment_id),
    "name": col(models.Segment.name),
    "type": col(models.Segment.type),
    "all_users": col(models.Segment.kind) == SegmentKind.ALL_USERS.value,
    "created_at": col(models.Segment.created_at),
    "updated_at": col(models.Segment.updated_at),
}


@strawberry.enum(description="What segments can be sorted by.")
class SegmentSortField(Enum):
    """A column to sort by."""

    CREATED_AT = strawberry.enum_value("CREATED_AT", description="When they were created.")
    UPDATED_AT = strawberry.enum_value("UPDATED_AT", description="When they were changed.")
    NAME = strawberry.enum_value("NAME", description="Their names.")
    SIZE = strawberry.enum_value("SIZE", description="Their sizes.")


COLUMNS: dict[SegmentSortField, tuple[Any, bool]] = {
    SegmentSortField.CREATED_AT: (col(models.Segment.created_at), False),
    SegmentSortField.UPDATED_AT: (col(models.Segment.updated_at), False),
    SegmentSortField.NAME: (col(models.Segment.name), False),
    SegmentSortField.SIZE: (col(models.Segment.size), True),
}


@strawberry.input(description="One level of a sort.")
class SegmentSort:
    """A column and a direction."""

    field: SegmentSortField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.ASC, description="Which way.")


NEWEST_FIRST = (SegmentSort(field=SegmentSortField.CREATED_AT, direction=SortDirection.DESC),)


def _order(sort: Sequence[SegmentSort]) -> list[By]:
    """The order asked for, each column once, made unique by the number."""
    order: dict[SegmentSortField, By] = {}
    descending = False
    for level in sort:
        column, nullable = COLUMNS[level.field]
        descending = level.direction is SortDirection.DESC
        order.setdefault(level.field, By(column, descending=descending, nullable=nullable))
    return [*order.values(), By(col(models.Segment.segment_no), descending=descending)]


@strawberry.type
class Query:
    """Queries about segments."""

    @query(description="The segment with this id; null if there is none, or if deleted.")
    async def segment(
        self, info: Info, segment_id: Annotated[str, strawberry.argument(description="The segment's id.")]
    ) -> Segment | None:
        """One segment."""
        async with info.context.database.read() as session:
            row = await queries.by_id(session, segment_id)
        return Segment.of(row) if row else None

    @connection(Segment, max_size=MAX_PAGE, description="All segments, newest first.")
    async def segments(
        self,
        info: Info,
        filter: Annotated[
            SegmentFilter | None, strawberry.argument(description="Only these.")
        ] = strawberry.UNSET,
        sort: Annotated[
            list[SegmentSort] | None,
            strawberry.argument(description="By what; the first level counts most."),
        ] = strawberry.UNSET,
    ) -> Any:
        """Segments that match."""
        chosen = queries.living().where(condition(filter, FILTERED, info.context.database.dialect))
        return select_listing(info, chosen, _order(sort or NEWEST_FIRST), Segment.of)

    @query(
        description="How many targets a segment with this definition would have now; nothing is stored.",
        weight=PREVIEW_WEIGHT,
    )
    async def segment_preview(
        self,
        info: Info,
        input: Annotated[SegmentPreviewInput, strawberry.argument(description="What it would be.")],
    ) -> SegmentPreviewPayload:
        """Counted and sampled at once."""
        return await previewed(info, input)


@strawberry.input(
    description="A segment to create. filter, allUsers and allSenderChannels exclude each other; with none "
    "of them it is a list to which targets are added by hand. Its kind never changes."
)
class CreateSegmentInput:
    """A segment to create."""

    segment_id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="1 to 255 printable characters without white space. Default: a UUIDv7.",
    )
    type: SegmentType = strawberry.field(description="What its targets are.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="At most 128 characters. Default: empty."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="At most 256 characters. Default: empty."
    )
    filter: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Finds the targets, in the filter language of their collection."
    )
    all_users: bool = strawberry.field(default=False, description="All users; for type USER.")
    all_sender_channels: bool = strawberry.field(
        default=False, description="All channels of a campaign's sender; for type CHANNEL."
    )


@strawberry.input(description="What is omitted stays as it is; nothing here can be null.")
class UpdateSegmentInput:
    """Changes of a segment."""

    segment_id: str = strawberry.field(description="Which segment.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="At most 128 characters.")
    description: str | None = strawberry.field(
        default=strawberry.UNSET, description="At most 256 characters."
    )
    filter: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Another filter, for a segment that has one."
    )


@strawberry.input(description="A segment to delete.")
class DeleteSegmentInput:
    """A segment to delete."""

    segment_id: str = strawberry.field(description="Which segment.")


@strawberry.input(description="Targets to add to a list.")
class AddSegmentTargetsInput:
    """Targets to add."""

    segment_id: str = strawberry.field(description="Which segment.")
    target_ids: list[str] = strawberry.field(
        description="1 to 10,000 userIds or cids, existing or not; those it has already are no error."
    )


@strawberry.input(description="Targets to take out of a list.")
class RemoveSegmentTargetsInput:
    """Targets to remove."""

    segment_id: str = strawberry.field(description="Which segment.")
    target_ids: list[str] = strawberry.field(
        description="1 to 10,000 userIds or cids; those it does not have are no error."
    )


@strawberry.type(description="The segment as it is now, or why nothing was done.")
class SegmentPayload(MutationPayload):
    """A segment, or errors."""

    segment: Segment | None = strawberry.field(default=None, description="The segment.")


@strawberry.type
class Mutation:
    """Changes of segments."""

    @mutation(description="Creates a segment.")
    async def create_segment(self, info: Info, input: CreateSegmentInput) -> SegmentPayload | None:
        """Creates a segment and has it counted."""
        given = {**_given(input), "type": input.type.name}
        async with info.context.database.transaction() as session:
            row = await service.create(session, given)
            _have_counted(info, session, row)
        return SegmentPayload(segment=Segment.of(row))

    @mutation(description="Changes a segment; another filter is counted anew.")
    async def update_segment(self, info: Info, input: UpdateSegmentInput) -> SegmentPayload | None:
        """Changes a segment."""
        changes = _given(input)
        del changes["segment_id"]
        async with info.context.database.transaction() as session:
            row = await service.update(session, input.segment_id, changes)
            _have_counted(info, session, row)
        return SegmentPayload(segment=Segment.of(row))

    @mutation(description="Deletes a segment that no draft, scheduled, running or paused campaign names.")
    async def delete_segment(self, info: Info, input: DeleteSegmentInput) -> DeletePayload | None:
        """Deletes a segment."""
        async with info.context.database.transaction() as session:
            row = await service.delete(session, input.segment_id, campaigns.naming_segment)
        return DeletePayload(deleted_ids=[Segment.global_id(row.segment_no)])

    @mutation(description="Adds targets to a manual list.")
    async def add_segment_targets(self, info: Info, input: AddSegmentTargetsInput) -> SegmentPayload | None:
        """Adds up to 10,000 targets."""
        async with info.context.database.transaction() as session:
            row = await service.add_targets(session, input.segment_id, input.target_ids)
        return SegmentPayload(segment=Segment.of(row))

    @mutation(description="Takes targets out of a manual list.")
    async def remove_segment_targets(
        self, info: Info, input: RemoveSegmentTargetsInput
    ) -> SegmentPayload | None:
        """Removes up to 10,000 targets."""
        async with info.context.database.transaction() as session:
            row = await service.remove_targets(session, input.segment_id, input.target_ids)
        return SegmentPayload(segment=Segment.of(row))


def _given(given: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(given).items() if value is not strawberry.UNSET}


def _have_counted(info: Info, session: AsyncSession, row: models.Segment) -> None:
    if row.size_state == SizeState.COMPUTING:
        info.context.doorbell.ring_after_commit(session, Job.COUNT_SEGMENTS)

"""Targets in GraphQL: ids that a segment or a campaign points at."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import strawberry

from app.campaigns import queries as campaigns
from app.errors import InvalidInput
from app.graphql.comparisons import StringFilter
from app.graphql.context import Info
from app.graphql.keyed import node_type, reference_by
from app.graphql.loaders import Loader
from app.graphql.nodes import Node, number_key
from app.graphql.shapes import NOTHING, Shape, Source
from app.graphql.sorting import SortDirection
from app.segments import kinds, models, queries

if TYPE_CHECKING:
    from app.channels.api import Channel
    from app.users.api import User

segment_targets = Loader(queries.targets_by_keys)
campaign_targets = Loader(campaigns.named_targets)


@strawberry.type(description="A manually added target, or one that the filter matches now.")
class Target(Node):
    """An id that a segment or a campaign points at, existing or not."""

    target_id: str = strawberry.field(description="A userId or cid, existing or not.")
    created_at: datetime | None = strawberry.field(description="When it was added by hand; null otherwise.")
    user_id: strawberry.Private[str | None]
    cid: strawberry.Private[str | None]

    @classmethod
    def of(cls, key: str, segment_type: str, target_id: str, since: datetime | None = None) -> "Target":
        """The target with this key, of a segment of this type or of what could be one."""
        return cls(
            id=cls.global_id(key),
            target_id=target_id,
            created_at=since,
            user_id=target_id if segment_type == kinds.SegmentType.USER else None,
            cid=target_id if segment_type == kinds.SegmentType.CHANNEL else None,
        )

    @classmethod
    def of_segment(
        cls, segment: models.Segment, sender_id: str | None
    ) -> Callable[[tuple[str, datetime | None]], "Target"]:
        """What makes targets of a segment."""
        shape = cls.shape(segment, sender_id)

        def of(row: tuple[str, datetime | None]) -> Target:
            target_id, since = row
            return cls.of(f"{shape.before}{target_id}{shape.after}", segment.type, target_id, since)

        return of

    @classmethod
    def shape(cls, segment: models.Segment, sender_id: str | None) -> Shape:
        """Where targets of a segment stand. White space parts their keys: no id has any."""
        by_sender = sender_id and segment.kind == kinds.SegmentKind.ALL_SENDER_CHANNELS
        sources: dict[str, Source] = {"target_id": "target_id", "created_at": "since"}
        for attribute, kind in (("user_id", kinds.SegmentType.USER), ("cid", kinds.SegmentType.CHANNEL)):
            sources[attribute] = "target_id" if segment.type == kind else NOTHING
        before, after = f"segment {segment.segment_no} ", f" {sender_id}" if by_sender else ""
        return Shape("Target", "target_id", sources, before, after)

    @classmethod
    def of_campaign(cls, campaign_no: int, target_id: str) -> "Target":
        """A user that a campaign names by userIds."""
        return cls.of(f"campaign {campaign_no} {target_id}", kinds.SegmentType.USER, target_id)

    @classmethod
    def of_nothing(cls, segment_type: str, target_id: str) -> "Target":
        """A user or channel that a definition finds which no segment has."""
        return cls.of(f"{segment_type.lower()} {target_id}", segment_type, target_id)

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Target | None"]:
        """Targets by the keys that they were given above."""
        return await asyncio.gather(*(cls._by_key(info, key.split(" ")) for key in keys))

    @classmethod
    async def _by_key(cls, info: Info, parts: list[str]) -> "Target | None":
        match parts:
            case ["segment", segment_no, target_id, *sender] if len(sender) <= 1:
                sender_id = sender[0] if sender else None
                found = await segment_targets.load(info, (number_key(segment_no), target_id, sender_id))
                return cls.of_segment(found[0], sender_id)((target_id, found[1])) if found else None
            case ["campaign", campaign_no, target_id]:
                key = (number_key(campaign_no), target_id)
                return cls.of_campaign(*key) if await campaign_targets.load(info, key) else None
            case ["user" | "channel" as kind, target_id]:
                pointed_at = node_type(info._raw_info.schema.type_map[kind.capitalize()])
                (exists,) = await pointed_at.by_keys(info, [target_id])
                return cls.of_nothing(kinds.SegmentType(kind.upper()), target_id) if exists else None
        raise InvalidInput("This is not an id of this API: its key should name a segment or campaign.")

    user = reference_by(
        "user_id",
        Annotated["User", strawberry.lazy("app.users.api")],
        description="The user, if it is one that exists.",
    )
    channel = reference_by(
        "cid",
        Annotated["Channel", strawberry.lazy("app.channels.api")],
        description="The channel, if it is one that exists.",
    )


@strawberry.input(description="Chooses targets.")
class TargetFilter:
    """Comparisons of a target."""

    target_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By its id.")


@strawberry.enum(description="What targets can be sorted by.")
class TargetSortField(Enum):
    """A column to sort by."""

    TARGET_ID = strawberry.enum_value("TARGET_ID", description="Their ids.")


@strawberry.input(description="One level of a sort.")
class TargetSort:
    """A column and a direction."""

    field: TargetSortField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.ASC, description="Which way.")

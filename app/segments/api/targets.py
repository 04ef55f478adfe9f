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
from app.graphql.keyed import node_type, reference
from app.graphql.loaders import Loader
from app.graphql.nodes import Node, encode_id, number_key
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
    type: strawberry.Private[str]

    @classmethod
    def of_segment(
        cls, segment: models.Segment, sender_id: str | None
    ) -> Callable[[tuple[str, datetime | None]], "Target"]:
        """What makes targets of a segment. White space parts their keys: no id has any."""
        begin, end, kind = f"segment {segment.segment_no} ", "", segment.type
        if sender_id and segment.kind == kinds.SegmentKind.ALL_SENDER_CHANNELS:
            end = f" {sender_id}"

        def of(row: tuple[str, datetime | None]) -> Target:
            target_id, since = row
            key = encode_id("Target", f"{begin}{target_id}{end}")
            return cls(id=key, target_id=target_id, created_at=since, type=kind)

        return of

    @classmethod
    def of_campaign(cls, campaign_no: int, target_id: str) -> "Target":
        """A user that a campaign names by userIds."""
        key = cls.global_id(f"campaign {campaign_no} {target_id}")
        return cls(id=key, target_id=target_id, created_at=None, type=kinds.SegmentType.USER)

    @classmethod
    def of_nothing(cls, segment_type: str, target_id: str) -> "Target":
        """A user or channel that a definition finds which no segment has."""
        key = cls.global_id(f"{segment_type.lower()} {target_id}")
        return cls(id=key, target_id=target_id, created_at=None, type=segment_type)

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

    @reference(
        Annotated["User", strawberry.lazy("app.users.api")], description="The user, if it is one that exists."
    )
    def user(self) -> str | None:
        """The target's id, if it is one of users."""
        return self.target_id if self.type == kinds.SegmentType.USER else None

    @reference(
        Annotated["Channel", strawberry.lazy("app.channels.api")],
        description="The channel, if it is one that exists.",
    )
    def channel(self) -> str | None:
        """The target's id, if it is one of channels."""
        return self.target_id if self.type == kinds.SegmentType.CHANNEL else None


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

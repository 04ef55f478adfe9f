"""Choosing and ordering campaigns."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import strawberry
from sqlalchemy import ColumnElement
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.api.enums import CampaignStatus
from app.campaigns.models import Campaign
from app.database import DialectName
from app.graphql.comparisons import DateTimeFilter, IdFilter, StringFilter, condition
from app.graphql.sorting import SortDirection
from app.keyset import By
from app.segments.api import SegmentFilter
from app.segments.models import Segment


@strawberry.input(description="Chooses by a campaign's status.")
class CampaignStatusFilter:
    """Comparisons of a status."""

    eq: CampaignStatus | None = strawberry.field(default=strawberry.UNSET, description="This status.")
    in_: list[CampaignStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="One of these."
    )


@strawberry.input(description="Chooses campaigns: everything that is given holds.")
class CampaignFilter:
    """Comparisons of a campaign."""

    and_: list["CampaignFilter"] | None = strawberry.field(
        name="and", default=strawberry.UNSET, description="All of these hold."
    )
    or_: list["CampaignFilter"] | None = strawberry.field(
        name="or", default=strawberry.UNSET, description="One of these holds."
    )
    campaign_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By name.")
    sender_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By sender.")
    status: CampaignStatusFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By where they stand."
    )
    segment_id: IdFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By the segments that they name, deleted ones too."
    )
    scheduled_for: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By when they start by themselves."
    )
    created_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By when they were created."
    )
    updated_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By when they were changed."
    )


@strawberry.enum(description="What campaigns can be sorted by.")
class CampaignSortField(Enum):
    """A column to sort by."""

    CREATED_AT = strawberry.enum_value("CREATED_AT", description="When they were created.")
    UPDATED_AT = strawberry.enum_value("UPDATED_AT", description="When they were changed.")
    NAME = strawberry.enum_value("NAME", description="Their names.")
    SCHEDULED_FOR = strawberry.enum_value("SCHEDULED_FOR", description="When they start by themselves.")


COLUMNS: dict[CampaignSortField, tuple[Any, bool]] = {
    CampaignSortField.CREATED_AT: (col(Campaign.created_at), False),
    CampaignSortField.UPDATED_AT: (col(Campaign.updated_at), False),
    CampaignSortField.NAME: (col(Campaign.name), True),
    CampaignSortField.SCHEDULED_FOR: (col(Campaign.scheduled_for), True),
}


@strawberry.input(description="One level of a sort.")
class CampaignSort:
    """A column and a direction."""

    field: CampaignSortField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.ASC, description="Which way.")


NEWEST_FIRST = (CampaignSort(field=CampaignSortField.CREATED_AT, direction=SortDirection.DESC),)


def chosen(given: CampaignFilter | None, dialect: DialectName) -> ColumnElement[bool]:
    """The condition that a filter stands for."""

    def names_segment(by_id: IdFilter) -> ColumnElement[bool]:
        same = StringFilter(eq=by_id.eq, in_=by_id.in_)
        matches = condition(SegmentFilter(segment_id=same), {"segment_id": col(Segment.segment_id)}, dialect)
        return queries.names_segment(matches)

    return condition(given, {**_COLUMNS, "segment_id": names_segment}, dialect)


_COLUMNS: Mapping[str, Any] = {
    "campaign_id": col(Campaign.campaign_id),
    "name": col(Campaign.name),
    "sender_id": col(Campaign.sender_id),
    "status": col(Campaign.status),
    "scheduled_for": col(Campaign.scheduled_for),
    "created_at": col(Campaign.created_at),
    "updated_at": col(Campaign.updated_at),
}


def order(sort: Sequence[CampaignSort]) -> list[By]:
    """The order asked for, each column once, made unique by the number."""
    levels: dict[CampaignSortField, By] = {}
    descending = False
    for level in sort:
        column, nullable = COLUMNS[level.field]
        descending = level.direction is SortDirection.DESC
        levels.setdefault(level.field, By(column, descending=descending, nullable=nullable))
    return [*levels.values(), By(col(Campaign.campaign_no), descending=descending)]

"""Campaigns: what is said, to whom, for whom, and how far it has come."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime
from app.segments.kinds import SegmentType


class Campaign(SQLModel, table=True):
    """One message template, sent once to one audience for one sender.

    `audience` says what its targets are, by its segments: a `SegmentType`, USER with userIds.
    Batches never write this row: every change of status locks it first and then asks other tables.
    `final_stats` holds the sums since it stopped or completed; until then they are summed. `faults` counts
    the pauses for a fault since something was last settled; the server resumes such a one at `resume_at`.
    """

    __tablename__ = "campaigns"
    __table_args__ = (
        Index(
            "ix_campaigns_live_id",
            "campaign_id",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_campaigns_created", "created_at", "campaign_no"),
        Index("ix_campaigns_updated", "updated_at", "campaign_no"),
        Index(
            "ix_campaigns_active",
            "campaign_no",
            sqlite_where=text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
            postgresql_where=text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
        ),
    )

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    campaign_id: str = Field(sa_type=TextType)
    name: str | None = Field(default=None, sa_type=TextType)
    description: str | None = Field(default=None, sa_type=TextType)
    status: str = Field(default="DRAFT", sa_type=TextType)
    status_reason: str | None = Field(default=None, sa_type=TextType)
    status_message: str | None = Field(default=None, sa_type=TextType)
    status_changed_at: datetime = Field(sa_type=UtcDateTime)
    audience: str = Field(
        default=SegmentType.USER, sa_type=TextType, sa_column_kwargs={"server_default": SegmentType.USER}
    )
    sender_id: str = Field(sa_type=TextType)
    sender_mode: str | None = Field(default=None, sa_type=TextType)
    sender_visibility: str | None = Field(default=None, sa_type=TextType)
    message_template: dict[str, Any] = Field(sa_type=JsonType)
    channel_template: dict[str, Any] | None = Field(default=None, sa_type=JsonType)
    create_channels: bool = Field(default=False)
    show_channels: bool = Field(default=False)
    skip_push: bool = Field(default=False)
    skip_webhook: bool = Field(default=False)
    max_messages_per_second: int | None = Field(default=None)
    scheduled_for: datetime | None = Field(default=None, sa_type=UtcDateTime)
    stop_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    completed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    faults: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    resume_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    final_stats: dict[str, Any] | None = Field(default=None, sa_type=JsonType)
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class CampaignSegment(SQLModel, table=True):
    """A segment that a campaign names, in the order given. `definition` is its copy at start:
    `{"type", "kind", "filter"}`; planning reads only that."""

    __tablename__ = "campaign_segments"
    __table_args__ = (Index("ix_campaign_segments_segment", "segment_no", "campaign_no"),)

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    position: int
    definition: dict[str, Any] | None = Field(default=None, sa_type=JsonType)


class CampaignTarget(SQLModel, table=True):
    """A user id named by a campaign's `userIds`, existing or not."""

    __tablename__ = "campaign_targets"
    __table_args__ = {"sqlite_with_rowid": False}

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    target_id: str = Field(primary_key=True, sa_type=TextType)

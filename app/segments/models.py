"""Segments: reusable audiences."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime


class Segment(SQLModel, table=True):
    """An audience of users or channels; `kind` says how its targets are found and never changes.

    `size` of a manual list is kept exact in place; of a filter or of all users it is counted in the
    background (`size_state` COMPUTING until then), of all channels of a sender never.
    """

    __tablename__ = "segments"
    __table_args__ = (
        Index(
            "ix_segments_live_id",
            "segment_id",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_segments_created", "created_at", "segment_no"),
        Index(
            "ix_segments_computing",
            "segment_no",
            sqlite_where=text("size_state = 'COMPUTING'"),
            postgresql_where=text("size_state = 'COMPUTING'"),
        ),
    )

    segment_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    segment_id: str = Field(sa_type=TextType)
    type: str = Field(sa_type=TextType)
    kind: str = Field(sa_type=TextType)
    name: str = Field(default="", sa_type=TextType)
    description: str = Field(default="", sa_type=TextType)
    filter: dict[str, Any] | None = Field(default=None, sa_type=JsonType)
    size: int | None = Field(default=None, sa_type=BigInteger)
    size_as_of: datetime | None = Field(default=None, sa_type=UtcDateTime)
    size_state: str = Field(sa_type=TextType)
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SegmentTarget(SQLModel, table=True):
    """A target that was added to a manual list."""

    __tablename__ = "segment_targets"
    __table_args__ = {"sqlite_with_rowid": False}

    segment_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    target_id: str = Field(primary_key=True, sa_type=TextType)
    created_at: datetime = Field(sa_type=UtcDateTime)

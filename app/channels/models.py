"""Channels and their members: where messages are read."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from app.channels.distinct import DISTINCT_PREFIX
from app.database import JsonType, TextType, UtcDateTime

# Which channels are distinct ones. An index that has only them serves a query that says so in the same words.
IS_DISTINCT_ON_SQLITE = f"substr(channel_id, 1, {len(DISTINCT_PREFIX)}) = '{DISTINCT_PREFIX}'"
IS_DISTINCT_ON_POSTGRESQL = f"starts_with(channel_id, '{DISTINCT_PREFIX}')"


class Channel(SQLModel, table=True):
    """A conversation. Whoever writes into it locks its row first and raises `last_seq`.

    `members_key` names exactly the present members (`distinct.members_key`, up to 1,002 of them).
    A distinct channel's `channel_id` derives from the members it was created for and never changes.
    Up to `erased_seq` messages may be missing, because they were erased; after it none is.

    On SQLite the rows lie in the order in which they were made, not in that of cids: there each campaign to
    the same users, into channels of its own, dirtied every page of all campaigns before (a tenth one took
    half as long again). PostgreSQL leaves half of each page free, for the next version of each row: so that
    no index learns of a message.
    """

    __tablename__ = "channels"
    __table_args__ = (
        Index(
            "ix_channels_distinct",
            "members_key",
            sqlite_where=text(f"members_key IS NOT NULL AND {IS_DISTINCT_ON_SQLITE}"),
            postgresql_where=text(f"members_key IS NOT NULL AND {IS_DISTINCT_ON_POSTGRESQL}"),
        ),
        {"postgresql_with": {"fillfactor": 50}},
    )

    cid: str = Field(primary_key=True, sa_type=TextType)
    type: str = Field(sa_type=TextType)
    channel_id: str = Field(sa_type=TextType)
    name: str | None = Field(default=None, sa_type=TextType)
    team: str | None = Field(default=None, sa_type=TextType)
    custom: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    created_by_id: str | None = Field(default=None, sa_type=TextType)
    frozen: bool = Field(default=False)
    member_count: int = Field(default=0)
    members_key: str | None = Field(default=None, sa_type=TextType)
    last_seq: int = Field(default=0, sa_type=BigInteger)
    erased_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    last_message_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Member(SQLModel, table=True):
    """A user in a channel. Unread are the messages after `read_seq` that others wrote."""

    __tablename__ = "members"
    __table_args__ = (Index("ix_members_user", "user_id", "cid"), {"sqlite_with_rowid": False})

    cid: str = Field(primary_key=True, sa_type=TextType)
    user_id: str = Field(primary_key=True, sa_type=TextType)
    channel_role: str = Field(default="channel_member", sa_type=TextType)
    custom: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    hidden: bool = Field(default=False)
    archived: bool = Field(default=False)
    muted: bool = Field(default=False)
    read_seq: int = Field(default=0, sa_type=BigInteger)
    last_read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)

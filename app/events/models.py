"""Events: what happened, written in the transaction that made it true."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime

EVERY_TYPE = "*"  # what a listener wants who wants every type, those of later versions too


class Event(SQLModel, table=True):
    """One thing that happened, or `size` of a kind that happened together: the messages of a batch's slice
    are one row. `data` says what, in the form that `service` documents for each type.

    `dispatched_at` is when it was handed to whoever wants it; until then it waits, whenever it committed.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_created", "created_at", "id"),
        Index(
            "ix_events_undispatched",
            "created_at",
            "id",
            sqlite_where=text("dispatched_at IS NULL"),
            postgresql_where=text("dispatched_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True, sa_type=TextType)
    type: str = Field(sa_type=TextType)
    campaign_no: int | None = Field(default=None, sa_type=BigInteger)
    size: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    created_at: datetime = Field(sa_type=UtcDateTime)
    dispatched_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Listener(SQLModel, table=True):
    """Somebody who wants events of a type (`EVERY_TYPE`: of all). What nobody wants, and would be many rows,
    is not written at all."""

    __tablename__ = "event_listeners"
    __table_args__ = {"sqlite_with_rowid": False}

    event_type: str = Field(primary_key=True, sa_type=TextType)
    listener_id: str = Field(primary_key=True, sa_type=TextType)

"""Webhooks: where events are posted, what waits to be posted there, and what became of each post."""

from datetime import datetime
from enum import IntEnum
from typing import Any

from sqlalchemy import BigInteger, Index, SmallInteger, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime

BATCH = "batch"  # the type of a delivery whose body holds a list of events


class DeliveryStatus(IntEnum):
    """What became of a delivery. The numbers are stored."""

    PENDING = 0
    DELIVERED = 1
    FAILED = 2


class Endpoint(SQLModel, table=True):
    """Where events are posted. No `event_types` mean all; `app.events.models.Listener` has them once more.

    The first line of columns is what clients set. `previous_secret` signs beside `secret` until then.
    `last_seq` numbers the deliveries. What delivering knows: `failures` in a row, the first of them
    `failing_since`; nothing is posted before `rests_until`; `leased_by` one deliverer `leased_until` then.
    """

    __tablename__ = "webhook_endpoints"

    endpoint_id: str = Field(primary_key=True, sa_type=TextType)
    url: str = Field(sa_type=TextType)
    event_types: list[str] = Field(default_factory=list, sa_type=JsonType, nullable=False)
    batch_size: int = Field(default=1)
    enabled: bool = Field(default=True)
    disabled_reason: str | None = Field(default=None, sa_type=TextType)
    secret: str = Field(sa_type=TextType, repr=False)
    previous_secret: str | None = Field(default=None, sa_type=TextType, repr=False)
    previous_secret_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_seq: int = Field(default=0, sa_type=BigInteger)
    failures: int = Field(default=0)
    failing_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    rests_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    leased_by: str | None = Field(default=None, sa_type=TextType)
    leased_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Queued(SQLModel, table=True):
    """An event that an endpoint is still to be told of: a row however many messages it stands for, so that a
    dead endpoint's backlog stays small. Of those up to `size`, the first `taken` are in deliveries already.

    Positions are ascending in the order of creation. After `gives_up_at` it becomes FAILED deliveries.
    """

    __tablename__ = "webhook_queue"
    __table_args__ = (Index("ix_webhook_queue_event", "event_id"), {"sqlite_with_rowid": False})

    endpoint_id: str = Field(primary_key=True, sa_type=TextType)
    position: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    event_id: str = Field(sa_type=TextType)
    taken: int = Field(default=0)
    size: int
    gives_up_at: datetime = Field(sa_type=UtcDateTime)


class Delivery(SQLModel, table=True):
    """One post to an endpoint: at least one attempt, each with the same `id` in its webhook-id header.

    `seq` counts the endpoint's deliveries in the order in which they are first attempted; but what is split
    off one whose body would be too large comes next, with later numbers. `holds` is what its body is rebuilt
    from, the same each time: a list of [event_id, first, count], so many of what a row of `events` stands
    for, from the `first`, counted from 0; `size` is the sum of the counts. `event_type` is the body's type:
    that of its one event, or `BATCH`. Failed attempts come again until `gives_up_at`.

    Whoever locks rows of an endpoint and of its deliveries locks the endpoint first.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_seq", "endpoint_id", "seq"),
        Index("ix_webhook_deliveries_status", "endpoint_id", "status", "seq"),
        Index("ix_webhook_deliveries_type", "endpoint_id", "event_type", "seq"),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_attempt_at",
            "seq",
            sqlite_where=text("status = 0"),
            postgresql_where=text("status = 0"),
        ),
        {"sqlite_with_rowid": False},
    )

    id: str = Field(primary_key=True, sa_type=TextType)
    endpoint_id: str = Field(sa_type=TextType)
    seq: int = Field(sa_type=BigInteger)
    event_type: str = Field(sa_type=TextType)
    holds: list[Any] = Field(sa_type=JsonType)
    size: int
    status: int = Field(default=DeliveryStatus.PENDING, sa_type=SmallInteger)
    attempts: int = Field(default=0)
    status_code: int | None = Field(default=None)
    error: str | None = Field(default=None, sa_type=TextType)
    created_at: datetime = Field(sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    gives_up_at: datetime = Field(sa_type=UtcDateTime)

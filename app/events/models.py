"""Events: what happened, written in the transaction that made it true."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime


class Event(SQLModel, table=True):
    """One thing that happened. A row with `batch_no` stands for all messages of that batch."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_created", "created_at", "id"),)

    id: str = Field(primary_key=True, sa_type=TextType)
    type: str = Field(sa_type=TextType)
    campaign_no: int | None = Field(default=None, sa_type=BigInteger)
    batch_no: int | None = Field(default=None)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    created_at: datetime = Field(sa_type=UtcDateTime)

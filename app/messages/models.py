"""Messages, in the order in which their channel took them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime


class Message(SQLModel, table=True):
    """A message in a channel. `seq` counts from 1 in its channel; `campaign_no` names its sender campaign;
    with `target_id`, the ledger row that this message is for.

    Ids are UUIDv7, so that the table and its indexes append.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_channel", "cid", "seq", unique=True),
        Index(
            "ix_messages_campaign",
            "campaign_no",
            sqlite_where=text("campaign_no IS NOT NULL"),
            postgresql_where=text("campaign_no IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    id: str = Field(primary_key=True, sa_type=TextType)
    cid: str = Field(sa_type=TextType)
    seq: int = Field(sa_type=BigInteger)
    sender_id: str = Field(sa_type=TextType)
    type: str = Field(default="regular", sa_type=TextType)
    text: str = Field(sa_type=TextType)
    attachments: list[Any] = Field(default_factory=list, sa_type=JsonType, nullable=False)
    custom: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    poll_id: str | None = Field(default=None, sa_type=TextType)
    campaign_no: int | None = Field(default=None, sa_type=BigInteger)
    target_id: str | None = Field(default=None, sa_type=TextType)
    created_at: datetime = Field(sa_type=UtcDateTime)

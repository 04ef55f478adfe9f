"""Keys under which clients repeat a request."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlmodel import Field, SQLModel

from app.database import TextType, UtcDateTime


class IdempotencyKey(SQLModel, table=True):
    """One request that may be repeated, and what came of it.

    `name` and `request_hash` are digests (see `sealing`). `claim` names the attempt that executes it, alone
    until `leased_until`. `outcomes` has a sealed line for each commit of that attempt and of those before it;
    `response` is the sealed answer, once there is one.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created", "created_at"),)

    name: str = Field(primary_key=True, sa_type=TextType)
    request_hash: str = Field(sa_type=TextType)
    claim: str = Field(sa_type=TextType)
    leased_until: datetime = Field(sa_type=UtcDateTime)
    outcomes: str = Field(default="", sa_type=TextType)
    response: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=UtcDateTime)

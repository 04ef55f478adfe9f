"""Users: the people that campaigns speak to and for."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime


class User(SQLModel, table=True):
    """A person. A deleted user stays as a tombstone: its id and `deleted_at`, everything else erased."""

    __tablename__ = "users"
    __table_args__ = (Index("ix_users_created", "created_at", "id"), {"sqlite_with_rowid": False})

    id: str = Field(primary_key=True, sa_type=TextType)
    name: str | None = Field(default=None, sa_type=TextType)
    role: str = Field(default="user", sa_type=TextType)
    language: str | None = Field(default=None, sa_type=TextType)
    image_url: str | None = Field(default=None, sa_type=TextType)
    teams: list[str] = Field(default_factory=list, sa_type=JsonType, nullable=False)
    custom: dict[str, Any] = Field(default_factory=dict, sa_type=JsonType, nullable=False)
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    last_active_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deactivated_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Erasure(SQLModel, table=True):
    """A deleted user whose memberships (and, if `messages`, messages) are still being cleared away.

    What the user did after `deleted_at`, having come back, is not touched.
    """

    __tablename__ = "user_erasures"

    user_id: str = Field(primary_key=True, sa_type=TextType)
    deleted_at: datetime = Field(sa_type=UtcDateTime)
    messages: bool = Field(default=False)

"""API keys."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from app.database import TextType, UtcDateTime


class ApiKey(SQLModel, table=True):
    """A key and its role, ADMIN or VIEWER. Of the secret (256 random bits) only the SHA-256 is kept."""

    __tablename__ = "api_keys"

    key_id: str = Field(primary_key=True, sa_type=TextType)
    name: str = Field(sa_type=TextType)
    role: str = Field(sa_type=TextType)
    secret_hash: str = Field(sa_type=TextType, unique=True)
    created_at: datetime = Field(sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

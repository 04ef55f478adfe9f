"""Usage: how much of a month's message capacity is taken."""

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from app.database import TextType


class Usage(SQLModel, table=True):
    """A calendar month (UTC, `YYYY-MM`). Starting and planning reserve in it; the unsent is given back.

    Deleting campaigns frees nothing.
    """

    __tablename__ = "usage"

    period: str = Field(primary_key=True, sa_type=TextType)
    messages: int = Field(default=0, sa_type=BigInteger)

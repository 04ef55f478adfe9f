"""Which `BatchWriter` a session has, and what it needs to be told of a campaign."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import dialect_of
from app.sending.blueprint import Blueprint
from app.sending.postgres import PostgresWriter
from app.sending.sqlite import SqliteWriter
from app.sending.writing import BatchWriter


async def writer_of(session: AsyncSession) -> BatchWriter:
    """How this session's database writes a batch."""
    if dialect_of(session) == "sqlite":
        return await SqliteWriter.of(session)
    return await PostgresWriter.of(session)


async def as_of_now(writer: BatchWriter, blueprint: Blueprint) -> Blueprint:
    """The blueprint without the members of its channel template who were deleted: they join nothing."""
    if not blueprint.creates or not blueprint.template_members:
        return blueprint
    deleted = await writer.deleted([member.user_id for member in blueprint.template_members])
    return blueprint.without(frozenset(deleted))

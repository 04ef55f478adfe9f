"""Counting sizes of segments in the background."""

from typing import Any

import structlog

from app.database import Database
from app.segments import queries, service

log = structlog.get_logger(__name__)


async def count_segments(ctx: dict[str, Any]) -> None:
    """Job: a segment's size is asked for."""
    await count_due(ctx["database"])


async def count_due(database: Database) -> None:
    """Counts every segment that waits for it, one after the other."""
    async with database.read() as session:
        waiting = await queries.computing(session)
    for segment_no in waiting:
        await service.count_size(database, segment_no)

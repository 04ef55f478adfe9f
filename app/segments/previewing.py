"""What a segment of some definition would have now, though none is stored."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.database import Database
from app.segments import queries
from app.segments.inputs import checked_new
from app.segments.kinds import SegmentKind, SegmentType
from app.segments.service import COUNT_WIDTH

SAMPLE = 10
SECONDS_TO_COUNT = 10.0  # some ten million users; whoever has more stores the segment and has it counted


@dataclass(frozen=True, slots=True)
class Preview:
    """How many targets there are, None if nobody can tell in time, and the first of them by id."""

    type: SegmentType
    size: int | None
    target_ids: tuple[str, ...]


async def preview(database: Database, given: Mapping[str, Any]) -> Preview:
    """The targets of a segment of this `type`, `filter` and `all_users`: none without the last two. Raises
    every problem of the definition at once."""
    fields = checked_new(given)
    definition = {"type": fields["type"], "kind": fields["kind"], "filter": fields["filter"]}
    if fields["kind"] is SegmentKind.MANUAL:
        return Preview(fields["type"], 0, ())
    first = queries.members_select(database.dialect, definition, sender_id="", limit=SAMPLE)
    async with database.read() as session:
        sample = tuple((await session.execute(first)).scalars())
    return Preview(fields["type"], await _size(database, definition), sample)


async def _size(database: Database, definition: Mapping[str, Any]) -> int | None:
    """Counts in short reads, one after the other, until it takes too long."""
    size, after, more = 0, None, True
    until = time.monotonic() + SECONDS_TO_COUNT
    while more:
        if time.monotonic() > until:
            return None
        async with database.read() as session:
            found, after = await queries.count_range(session, [definition], after, COUNT_WIDTH)
        size += found
        more = after is not None
    return size

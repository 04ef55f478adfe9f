"""Dispatching: each event, once it is committed, goes into the queue of every endpoint that wants it.

There is no cursor over ids or times that an event could slip behind: what has no `dispatched_at` waits,
however late it was committed.
"""

from app.database import Database, now
from app.webhooks import queries

AT_ONCE = 500


async def dispatch(database: Database) -> int:
    """Dispatches up to 500 events in the order of creation; how many they were. 0: none waits, or somebody
    else is at it."""
    async with database.read() as session:
        if not await queries.any_undispatched(session):
            return 0
    async with database.transaction() as session:
        if not await queries.alone_to_dispatch(session):
            return 0
        event_ids = await queries.undispatched(session, AT_ONCE)
        if event_ids:
            at = await now(session)
            await queries.enqueue(session, event_ids, at)
            await queries.mark_dispatched(session, event_ids, at)
    return len(event_ids)

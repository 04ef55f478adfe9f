"""The pace of a campaign and of the server: what is sent is reserved first, a slice at a time.

A rate row says when the next message of its scope may go out. Once that has come, a worker moves it on by
a slice, in a short transaction of its own, by the database's clock, and sends at once; before, it waits and
holds nothing, so that no slices pile up in waiting hands. A lock held inside the batch would make the
workers queue. A crash forfeits its slice.

Over any ten seconds no more goes out than a limit allows for 10.4: a slice is sent at its beginning (0.2 s),
and whoever comes late gets what was missed in the last 0.2 s too, so that a worker that is busy with other
campaigns keeps the pace.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database, dialect_of, now
from app.ledger.models import Rate

SLICE_SECONDS = 0.2
LATEST_SECONDS = 0.2  # what was missed longer ago is forfeited
# A row that is further ahead was written before the clock was set back: a slice is a message or 0.4 s at
# most, and no limit is below one a second.
MOST_AHEAD = timedelta(seconds=2)
SERVER = 0  # the scope of CARILLON_MESSAGES_PER_SECOND


Limits = tuple[tuple[int, int], ...]  # (scope, messages a second)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Leave to send `messages` now (none: it is too early), and in how many seconds each scope has more."""

    messages: int
    limits: Limits
    waits: tuple[float, ...]


def limits_of(campaign_no: int, campaign_limit: int | None, server_limit: int | None) -> Limits:
    """The limits that hold for a campaign."""
    return tuple(
        (scope, limit)
        for scope, limit in ((SERVER, server_limit), (campaign_no, campaign_limit))
        if limit is not None
    )


async def reserve(database: Database, limits: Limits) -> Reservation:
    """Reserves the next slice if its time has come: 0.2 s of the slowest limit, but one message at least."""
    async with database.transaction() as session:
        at = await now(session)
        starts = [await _next_start(session, scope, at) for scope, _ in limits]
        messages = 0
        if (start := max(starts)) <= at:
            seconds = SLICE_SECONDS + (at - start).total_seconds()
            messages = max(1, int(min(limit for _, limit in limits) * seconds))
            for number, (scope, limit) in enumerate(limits):
                starts[number] += timedelta(seconds=messages / limit)
                await _set(session, scope, starts[number])
    return Reservation(messages, limits, tuple((start - at).total_seconds() for start in starts))


async def _next_start(session: AsyncSession, scope: int, at: datetime) -> datetime:
    """When the next message of the scope may go out, its row locked."""
    make = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    await session.execute(make(Rate).values(scope=scope, next_at=at).on_conflict_do_nothing())
    held = await session.execute(select(col(Rate.next_at)).where(col(Rate.scope) == scope).with_for_update())
    next_at = held.scalar_one()
    return at if next_at > at + MOST_AHEAD else max(at - timedelta(seconds=LATEST_SECONDS), next_at)


async def give_back(database: Database, reservation: Reservation, unused: int) -> None:
    """Returns what a slice reserved for targets that turned out to be skipped."""
    if unused <= 0:
        return
    async with database.transaction() as session:
        for scope, limit in reservation.limits:
            held = await session.execute(
                select(col(Rate.next_at)).where(col(Rate.scope) == scope).with_for_update()
            )
            next_at = held.scalar_one_or_none()
            if next_at is not None:
                await _set(session, scope, next_at - timedelta(seconds=unused / limit))


async def _set(session: AsyncSession, scope: int, next_at: datetime) -> None:
    await session.execute(
        update(Rate)
        .where(col(Rate.scope) == scope)
        .values(next_at=next_at)
        .execution_options(synchronize_session=False)
    )

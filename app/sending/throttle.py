"""The pace of a campaign and of the server: slices are reserved before they are sent.

A rate row says when the next message of its scope may go out. A worker moves it on by a slice in a short
transaction of its own, by the database's clock, and waits holding nothing; a lock held inside the batch
would make the workers queue. A crash forfeits its slice.
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
MOST_WORKERS = 64
CLOCK_SLACK = timedelta(seconds=1)
SERVER = 0  # the scope of CARILLON_MESSAGES_PER_SECOND


@dataclass(frozen=True, slots=True)
class Reservation:
    """Leave to send `messages`, in `wait` seconds from now."""

    messages: int
    wait: float
    limits: tuple[tuple[int, int], ...]  # (scope, messages a second)


def limits_of(
    campaign_no: int, campaign_limit: int | None, server_limit: int | None
) -> tuple[tuple[int, int], ...]:
    """The limits that hold for a campaign: (scope, messages a second)."""
    return tuple(
        (scope, limit)
        for scope, limit in ((SERVER, server_limit), (campaign_no, campaign_limit))
        if limit is not None
    )


async def reserve(
    database: Database, campaign_no: int, campaign_limit: int | None, server_limit: int | None
) -> Reservation | None:
    """Reserves the next slice: 0.2 s of the slower limit, but one message at least. None: no limit."""
    limits = limits_of(campaign_no, campaign_limit, server_limit)
    if not limits:
        return None
    messages = max(1, int(min(limit for _, limit in limits) * SLICE_SECONDS))
    async with database.transaction() as session:
        at = await now(session)
        starts = [await _advance(session, scope, limit, messages, at) for scope, limit in limits]
    return Reservation(messages, max(0.0, (max(starts) - at).total_seconds()), limits)


async def _advance(session: AsyncSession, scope: int, limit: int, messages: int, at: datetime) -> datetime:
    """Moves the scope's row on by `messages`; returns when the first of them may go out."""
    make = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    await session.execute(make(Rate).values(scope=scope, next_at=at).on_conflict_do_nothing())
    held = await session.execute(select(col(Rate.next_at)).where(col(Rate.scope) == scope).with_for_update())
    length = timedelta(seconds=messages / limit)
    next_at = held.scalar_one()
    # Further ahead than all workers together can have reserved: the clock was set back.
    start = at if next_at > at + MOST_WORKERS * length + CLOCK_SLACK else max(at, next_at)
    await _set(session, scope, start + length)
    return start


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

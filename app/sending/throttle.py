"""The pace of a campaign and of the server: slices are reserved before they are sent.

A rate row says when the next message of its scope may go out. A worker moves it on by a slice in a short
transaction of its own, by the database's clock, and waits holding nothing; a lock held inside the batch
would make the workers queue. A crash forfeits its slice.

Over any ten seconds no more goes out than a scope's limit allows for 10.4: a slice is sent at its beginning
(0.2 s), and 0.2 s late at most. Who comes late to reserve gets what was missed in those 0.2 s too, so that a
worker that is busy with other campaigns keeps the pace.
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
LATEST_SECONDS = 0.2  # that what was reserved may still be sent
# Further ahead than all slices in all hands together: a row that says so was written before the clock was set
# back. (64 workers have reserved 64 s of one message a second.)
MOST_AHEAD = timedelta(seconds=90)
SERVER = 0  # the scope of CARILLON_MESSAGES_PER_SECOND


@dataclass(frozen=True, slots=True)
class Reservation:
    """Leave to send `messages`, in `wait` seconds from now; below zero: it should have been before."""

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
    database: Database,
    campaign_no: int,
    campaign_limit: int | None,
    server_limit: int | None,
    sharing: int = 1,
) -> Reservation | None:
    """Reserves the next slice: 0.2 s of the campaign's limit, or its part of 0.2 s of the server's where so
    many campaigns are `sharing` that; one message at least. None: no limit."""
    limits = limits_of(campaign_no, campaign_limit, server_limit)
    if not limits:
        return None
    async with database.transaction() as session:
        at = await now(session)
        starts = [await _next_start(session, scope, at) for scope, _ in limits]
        wait = (max(starts) - at).total_seconds()
        seconds = SLICE_SECONDS + max(0.0, -wait)
        shares = [limit / sharing if scope == SERVER else limit for scope, limit in limits]
        messages = max(1, int(min(shares) * seconds))
        for (scope, limit), start in zip(limits, starts, strict=True):
            await _set(session, scope, start + timedelta(seconds=messages / limit))
    return Reservation(messages, wait, limits)


async def _next_start(session: AsyncSession, scope: int, at: datetime) -> datetime:
    """When the next message of the scope may go out, its row locked; what was missed before the last 0.2 s is
    forfeited."""
    make = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    await session.execute(make(Rate).values(scope=scope, next_at=at).on_conflict_do_nothing())
    held = await session.execute(select(col(Rate.next_at)).where(col(Rate.scope) == scope).with_for_update())
    next_at = held.scalar_one()
    return at if next_at > at + MOST_AHEAD else max(at - timedelta(seconds=LATEST_SECONDS), next_at)


async def give_back(database: Database, reservation: Reservation, unused: int) -> None:
    """Returns what was reserved and not sent: targets were skipped, or the slice came too late."""
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

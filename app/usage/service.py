"""Reserving and giving back message capacity. The row of the month is locked before the campaign's."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import changed, dialect_of
from app.errors import QuotaExceeded
from app.usage.models import Usage


@dataclass(frozen=True, slots=True)
class Purpose:
    """What messages are needed for, as a refusal tells it: who needs them, what helps, the field to mend."""

    needs: str
    advice: str
    path: str = "campaignId"


START = Purpose("This needs", "Make the audience smaller, wait, or raise CARILLON_MONTHLY_MESSAGES.")
GOING_ON = Purpose(
    "Beyond what it holds already this campaign needs",
    "Raise CARILLON_MONTHLY_MESSAGES or wait, then resume it.",
)
REMAINDER = Purpose("This needs", "Wait, or raise CARILLON_MONTHLY_MESSAGES.")
TEST = Purpose("This needs", "Name fewer users, wait, or raise CARILLON_MONTHLY_MESSAGES.", "userIds")


def period_of(instant: datetime) -> str:
    """The calendar month (UTC) that messages of this instant count in."""
    return instant.astimezone(UTC).strftime("%Y-%m")


def period_bounds(instant: datetime) -> tuple[datetime, datetime]:
    """Beginning and end (exclusive) of that month."""
    start = instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


async def reserve(
    session: AsyncSession, period: str, messages: int, capacity: int | None, purpose: Purpose = START
) -> None:
    """Takes `messages` of the month `period`. Raises `QuotaExceeded`, and takes nothing, if they do not fit
    into `capacity`; it is worded for the `purpose`.

    Two callers cannot both take the last of it: the month's row is locked until they commit.
    """
    insert = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    await session.execute(insert(Usage).values(period=period, messages=0).on_conflict_do_nothing())
    taking = update(Usage).where(col(Usage.period) == period).values(messages=col(Usage.messages) + messages)
    if capacity is None or messages <= 0:
        await changed(session, taking)
    elif not await changed(session, taking.where(col(Usage.messages) + messages <= capacity)):
        raise _too_many(period, messages, await _taken(session, period), capacity, purpose)


async def check_room(session: AsyncSession, period: str, messages: int, capacity: int | None) -> None:
    """Raises `QuotaExceeded` if the month `period` has no room for `messages` as it stands; takes nothing."""
    taken = await _taken(session, period)
    if capacity is not None and messages > 0 and taken + messages > capacity:
        raise _too_many(period, messages, taken, capacity, START)


def _too_many(period: str, messages: int, taken: int, capacity: int, purpose: Purpose) -> QuotaExceeded:
    left = max(0, capacity - taken)
    resets_at = period_bounds(datetime.fromisoformat(f"{period}-01T00:00:00+00:00"))[1]
    return QuotaExceeded(
        f"{purpose.needs} {messages:,} messages, {left:,} of {capacity:,} are left until"
        f" {resets_at:%Y-%m-%d}. {purpose.advice}",
        path=[purpose.path],
        details={"needed": messages, "left": left, "resetsAt": resets_at.isoformat()},
    )


async def release(session: AsyncSession, period: str, messages: int) -> None:
    """Gives back what was reserved and not sent."""
    if messages:
        await changed(
            session,
            update(Usage).where(col(Usage.period) == period).values(messages=col(Usage.messages) - messages),
        )


async def used(session: AsyncSession, at: datetime) -> int:
    """How many messages of the month of `at` are sent or reserved."""
    return await _taken(session, period_of(at))


async def _taken(session: AsyncSession, period: str) -> int:
    found = await session.execute(select(col(Usage.messages)).where(col(Usage.period) == period))
    return found.scalar_one_or_none() or 0

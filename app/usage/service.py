"""Reserving and giving back message capacity. The row of the month is locked before the campaign's."""

from datetime import UTC, datetime

from sqlalchemy import literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import changed, dialect_of
from app.errors import QuotaExceeded
from app.usage.models import Usage


def period_of(instant: datetime) -> str:
    """The calendar month (UTC) that messages of this instant count in."""
    return instant.astimezone(UTC).strftime("%Y-%m")


def period_bounds(instant: datetime) -> tuple[datetime, datetime]:
    """Beginning and end (exclusive) of that month."""
    start = instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


async def reserve(session: AsyncSession, period: str, messages: int, capacity: int | None) -> None:
    """Takes `messages` of the month `period`. Raises `QuotaExceeded` if they do not fit into `capacity`.

    Two callers cannot both take the last of it: the month's row is locked until they commit.
    """
    insert = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    row = insert(Usage).values(period=period, messages=messages)
    taken = await session.execute(
        row.on_conflict_do_update(
            index_elements=["period"], set_={"messages": col(Usage.messages) + literal(messages)}
        ).returning(col(Usage.messages))
    )
    used = taken.scalar_one()
    if capacity is not None and used > capacity and messages > 0:
        left = max(0, capacity - (used - messages))
        resets_at = period_bounds(datetime.fromisoformat(f"{period}-01T00:00:00+00:00"))[1]
        raise QuotaExceeded(
            f"The audience needs {messages:,} messages, {left:,} of {capacity:,} are left until "
            f"{resets_at:%Y-%m-%d}. Make the audience smaller, wait, or raise CARILLON_MONTHLY_MESSAGES.",
            path=["campaignId"],
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
    found = await session.execute(select(col(Usage.messages)).where(col(Usage.period) == period_of(at)))
    return found.scalar_one_or_none() or 0

"""Every statement about idempotency keys."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import changed, dialect_of
from app.idempotency.models import IdempotencyKey


async def insert(session: AsyncSession, row: IdempotencyKey) -> bool:
    """Whether this row is new: of two that are inserted at the same time one is."""
    insertion = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    statement = insertion(IdempotencyKey).values(**row.model_dump()).on_conflict_do_nothing()
    return (await session.execute(statement.returning(col(IdempotencyKey.name)))).first() is not None


async def locked(session: AsyncSession, name: str) -> IdempotencyKey | None:
    """The key with this name, for a change."""
    found = await session.execute(
        select(IdempotencyKey).where(col(IdempotencyKey.name) == name).with_for_update()
    )
    return found.scalar_one_or_none()


async def busy(session: AsyncSession, name: str, at: datetime) -> bool:
    """Whether an attempt holds the key and has not answered yet."""
    found = await session.execute(
        select(col(IdempotencyKey.name)).where(
            col(IdempotencyKey.name) == name,
            col(IdempotencyKey.response).is_(None),
            col(IdempotencyKey.leased_until) > at,
        )
    )
    return found.first() is not None


async def append_outcomes(session: AsyncSession, name: str, claim: str, lines: str) -> bool:
    """Appends to the outcomes, if the claim still holds; says whether it does."""
    outcomes = col(IdempotencyKey.outcomes)
    return await _held(session, name, claim, outcomes=outcomes.concat(lines))


async def extend(session: AsyncSession, name: str, claim: str, until: datetime) -> bool:
    """Sets the end of the lease, if the claim still holds; says whether it does."""
    return await _held(session, name, claim, leased_until=until)


async def answer(session: AsyncSession, name: str, claim: str, response: bytes, at: datetime) -> bool:
    """Stores the answer and ends the lease, if the claim still holds; says whether it does."""
    return await _held(session, name, claim, response=response, leased_until=at)


async def _held(session: AsyncSession, name: str, claim: str, **values: object) -> bool:
    return await changed(session, update(IdempotencyKey).where(*_claimed(name, claim)).values(**values)) > 0


async def remove(session: AsyncSession, name: str, claim: str) -> bool:
    """Removes the key, if the claim still holds; says whether it does."""
    return await changed(session, delete(IdempotencyKey).where(*_claimed(name, claim))) > 0


def _claimed(name: str, claim: str) -> tuple[ColumnElement[bool], ...]:
    return col(IdempotencyKey.name) == name, col(IdempotencyKey.claim) == claim


async def delete_created_before(session: AsyncSession, before: datetime, at: datetime, most: int) -> int:
    """Deletes some keys that are older and that nobody holds; says how many."""
    # The condition stands outside as well: PostgreSQL asks only that again of a row that it had to wait for.
    old = (
        col(IdempotencyKey.created_at) <= before,
        or_(col(IdempotencyKey.response).is_not(None), col(IdempotencyKey.leased_until) <= at),
    )
    names = select(col(IdempotencyKey.name)).where(*old).order_by(col(IdempotencyKey.created_at)).limit(most)
    return await changed(session, delete(IdempotencyKey).where(col(IdempotencyKey.name).in_(names), *old))

"""Every statement about users."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, delete, false, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import changed, dialect_of
from app.rows import columns_by_keys
from app.users.models import Erasure, User

TABLE = User.__table__  # type: ignore[attr-defined]
CHANGED = tuple(column.name for column in TABLE.columns if column.name != "id")
AT_ONCE = 5_000  # ids of one statement; SQLite takes at most 32,766 bound values


def living(where: ColumnElement[bool] | None = None) -> Select[Any]:
    """Users that are not deleted, those that `where` is true for; unordered."""
    statement = select(User).where(col(User.deleted_at).is_(None))
    return statement if where is None else statement.where(where)


async def by_id(session: AsyncSession, user_id: str) -> User | None:
    """The user of this id, unless deleted."""
    return (await by_ids(session, [user_id])).get(user_id)


async def by_ids(session: AsyncSession, user_ids: Sequence[str]) -> Mapping[str, User]:
    """The users of these ids that are not deleted."""
    found = await session.execute(living(col(User.id).in_(user_ids)))
    return {user.id: user for user in found.scalars()}


async def columns_by_ids(
    session: AsyncSession, user_ids: Sequence[str], columns: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """The values of these columns, the id among them, of the users of these ids that are not deleted."""
    return await columns_by_keys(session, User, "id", user_ids, columns, col(User.deleted_at).is_(None))


async def count(session: AsyncSession) -> int:
    """How many users there are that are not deleted."""
    living_users = select(func.count()).select_from(User).where(col(User.deleted_at).is_(None))
    return int((await session.execute(living_users)).scalar_one())


async def locked(session: AsyncSession, user_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of these ids, tombstones too, locked in the order of their ids."""
    rows: dict[str, dict[str, Any]] = {}
    wanted = sorted(user_ids)
    for start in range(0, len(wanted), AT_ONCE):
        found = await session.execute(
            select(TABLE)
            .where(TABLE.c.id.in_(wanted[start : start + AT_ONCE]))
            .order_by(TABLE.c.id)
            .with_for_update()
        )
        rows |= {row.id: dict(row._mapping) for row in found}
    return rows


async def shared(session: AsyncSession, user_ids: Iterable[str]) -> dict[str, bool]:
    """Whether the users of these ids live, or are deleted; ids that nobody ever had are left out. The rows
    are locked in the order of their ids against being deleted or coming back; the lock can be shared."""
    found: dict[str, bool] = {}
    wanted = sorted(set(user_ids))
    for start in range(0, len(wanted), AT_ONCE):
        rows = await session.execute(
            select(TABLE.c.id, TABLE.c.deleted_at)
            .where(TABLE.c.id.in_(wanted[start : start + AT_ONCE]))
            .order_by(TABLE.c.id)
            .with_for_update(read=True, key_share=True)
        )
        found |= {user_id: deleted_at is None for user_id, deleted_at in rows}
    return found


async def all_exist(session: AsyncSession, user_ids: Sequence[str]) -> bool:
    """Whether each of these distinct ids has a row, be it a tombstone; then it stays so."""
    for start in range(0, len(user_ids), AT_ONCE):
        part = user_ids[start : start + AT_ONCE]
        found = await session.execute(select(func.count()).select_from(TABLE).where(TABLE.c.id.in_(part)))
        if found.scalar_one() < len(part):
            return False
    return True


async def create_or_lock(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Goes once through these rows, in the order given: creates the user, or locks and leaves the one of
    this id. Says whether all were created."""
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    inserted = dialect.insert(TABLE)
    # The update that never happens is what locks; naming the key makes that the lock of `locked`.
    statement = inserted.on_conflict_do_update(
        index_elements=[TABLE.c.id], set_={"id": inserted.excluded.id}, where=false()
    ).execution_options(preserve_rowcount=True)
    result: Any = await (await session.connection()).execute(statement, list(rows))
    return bool(result.rowcount == len(rows))


async def overwrite(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes these whole rows, if any, over the ones of the same ids."""
    if not rows:
        return
    statement = update(TABLE).where(TABLE.c.id == bindparam("key"))
    connection = await session.connection()
    await connection.execute(
        statement.values({name: bindparam(name) for name in CHANGED}),
        [{"key": row["id"], **{name: row[name] for name in CHANGED}} for row in rows],
    )


async def ask_erasure(session: AsyncSession, user_ids: Sequence[str], at: datetime, messages: bool) -> None:
    """Notes that what these users, deleted at `at`, were members of is to be cleared away; and that the
    messages sent to them are, if that is asked now or was when they were deleted before."""
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    asked = dialect.insert(Erasure)
    statement = asked.on_conflict_do_update(
        index_elements=["user_id"],
        set_={
            "deleted_at": asked.excluded.deleted_at,
            "messages": or_(col(Erasure.messages), asked.excluded.messages),
        },
    )
    rows = [{"user_id": each, "deleted_at": at, "messages": messages} for each in sorted(user_ids)]
    await (await session.connection()).execute(statement, rows)


# The users who are still being cleared away.
ERASING = select(col(Erasure.user_id))


async def erasing(session: AsyncSession, after: str, limit: int) -> list[str]:
    """The users behind `after` who are still being cleared away, up to `limit`, by id."""
    behind = ERASING.where(col(Erasure.user_id) > after).order_by(col(Erasure.user_id)).limit(limit)
    return list((await session.execute(behind)).scalars())


async def erasing_messages(session: AsyncSession, user_ids: Sequence[str]) -> list[str]:
    """Those of these users whose messages are to be cleared away as well, by id."""
    found = await session.execute(
        select(col(Erasure.user_id))
        .where(col(Erasure.user_id).in_(user_ids), col(Erasure.messages))
        .order_by(col(Erasure.user_id))
    )
    return list(found.scalars())


async def locked_erasures(session: AsyncSession, user_ids: Sequence[str]) -> list[str]:
    """Those of these users that are to be cleared away, unless somebody else does it now."""
    found = await session.execute(
        select(col(Erasure.user_id))
        .where(col(Erasure.user_id).in_(user_ids))
        .order_by(col(Erasure.user_id))
        .with_for_update(skip_locked=True)
    )
    return list(found.scalars())


async def finish_erasures(session: AsyncSession, user_ids: Sequence[str], deleted_before: datetime) -> None:
    """Forgets that these users, if deleted before then, are to be cleared away."""
    await changed(
        session,
        delete(Erasure).where(col(Erasure.user_id).in_(user_ids), col(Erasure.deleted_at) < deleted_before),
    )

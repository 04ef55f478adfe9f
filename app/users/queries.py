"""Every statement about users."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import dialect_of
from app.users.models import User

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


async def insert_missing(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Inserts these rows in the order given, but for ids that exist by now; says whether all were new."""
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    statement = dialect.insert(TABLE).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    result: Any = await (await session.connection()).execute(statement, list(rows))
    return bool(result.rowcount == len(rows))


async def overwrite(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes these whole rows over the ones of the same ids."""
    statement = update(TABLE).where(TABLE.c.id == bindparam("key"))
    connection = await session.connection()
    await connection.execute(
        statement.values({name: bindparam(name) for name in CHANGED}),
        [{"key": row["id"], **{name: row[name] for name in CHANGED}} for row in rows],
    )

"""Pages by keyset: a page begins after the last row of the one before, wherever that row is now.

No offset is ever counted, so that page 10,000 costs what page 1 does and rows that come or go meanwhile
neither repeat nor hide others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, false, or_, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import UtcDateTime

KeyPart: TypeAlias = str | int | float | bool | datetime | None
Key: TypeAlias = tuple[KeyPart, ...]


@dataclass(frozen=True)
class By:
    """One column of an order. Nulls sort last, ascending and descending."""

    column: Any
    descending: bool = False
    nullable: bool = False

    @property
    def kind(self) -> type:
        """The Python type of the column's values."""
        if isinstance(self.column.type, UtcDateTime):
            return datetime
        kind: type = self.column.type.python_type
        return kind


@dataclass(frozen=True)
class Bounds:
    """Which page: the first `limit` rows after and before these keys; backward, the last."""

    after: Key | None
    before: Key | None
    limit: int
    backward: bool


async def page(
    session: AsyncSession, statement: Select[Any], order: Sequence[By], bounds: Bounds
) -> list[tuple[Any, Key]]:
    """The page of `statement` (unordered, unlimited) with each row's key, in the direction walked: backward,
    the last row comes first. `order` has to end in a unique column. A row is what `statement` selects: the
    entity or value itself, a tuple where there are several.
    """
    if bounds.after is not None:
        statement = statement.where(_beyond(order, bounds.after, backward=False))
    if bounds.before is not None:
        statement = statement.where(_beyond(order, bounds.before, backward=True))
    wanted = len(statement.column_descriptions)
    ordered = (
        statement.add_columns(*(by.column for by in order))
        .order_by(None)
        .order_by(*(_ordering(by, bounds.backward) for by in order))
        .limit(bounds.limit)
    )
    rows = (await session.execute(ordered)).all()
    return [(row[0] if wanted == 1 else tuple(row[:wanted]), tuple(row[wanted:])) for row in rows]


def kinds(order: Sequence[By]) -> tuple[type, ...]:
    """The types of a key's parts."""
    return tuple(by.kind for by in order)


def _ordering(by: By, backward: bool) -> ColumnElement[Any]:
    column = by.column.desc() if by.descending is not backward else by.column.asc()
    if not by.nullable:
        return column  # type: ignore[no-any-return]
    return column.nulls_first() if backward else column.nulls_last()  # type: ignore[no-any-return]


def _beyond(order: Sequence[By], key: Key, *, backward: bool) -> ColumnElement[bool]:
    """Rows strictly after `key` in the order (before it, when backward)."""
    rising = [by.descending is backward for by in order]
    if not any(by.nullable for by in order) and len(set(rising)) == 1:
        columns = tuple_(*(by.column for by in order))
        values = tuple_(*key, types=[by.column.type for by in order])
        return columns > values if rising[0] else columns < values
    alternatives = []
    for position, by in enumerate(order):
        same = [_same(earlier, part) for earlier, part in zip(order, key[:position], strict=False)]
        alternatives.append(and_(*same, _past(by, key[position], rising[position], backward)))
    return or_(*alternatives)


def _same(by: By, part: KeyPart) -> ColumnElement[bool]:
    same: ColumnElement[bool] = by.column.is_(None) if part is None else by.column == part
    return same


def _past(by: By, part: KeyPart, rising: bool, backward: bool) -> ColumnElement[bool]:
    if part is None:  # nulls are last: nothing lies after them, everything else before
        earlier: ColumnElement[bool] = by.column.is_not(None) if backward else false()
        return earlier
    past: ColumnElement[bool] = by.column > part if rising else by.column < part
    return or_(past, by.column.is_(None)) if by.nullable and not backward else past

"""Rows as the driver gave them. A column becomes Python's values when somebody asks for it, all at once.

A row object and its conversions for each of 10,000 rows cost as much as reading them did.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Dialect, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine
from sqlmodel import SQLModel

from app.database import UtcDateTime, ask
from app.given import among

Values: TypeAlias = list[Any]
Convert: TypeAlias = Callable[[Any], Any]


class Rows(Sequence[Any]):
    """Rows with named columns. As a sequence it has named tuples, with Python's values."""

    def __init__(
        self, raw: Sequence[tuple[Any, ...]], names: Sequence[str], converts: Sequence[Convert | None]
    ) -> None:
        self.names = tuple(names)
        self._raw = raw
        self._converts = converts
        self._columns: dict[int, Values] = {}

    @classmethod
    def of(cls, values: Sequence[tuple[Any, ...]], names: Sequence[str]) -> "Rows":
        """Rows that have Python's values already."""
        return cls(values, names, [None] * len(names))

    def column(self, name: str) -> Values:
        """The values of a column."""
        return self.column_at(self.names.index(name))

    def column_at(self, place: int) -> Values:
        """The values of the column at this place."""
        if place not in self._columns:
            values, convert = list(map(itemgetter(place), self._raw)), self._converts[place]
            self._columns[place] = values if convert is None else list(map(convert, values))
        return self._columns[place]

    def tuples(self) -> Sequence[tuple[Any, ...]]:
        """The rows with Python's values."""
        if not any(self._converts):
            return self._raw
        return list(zip(*map(self.column_at, range(len(self.names))), strict=True)) if self._raw else []

    def chosen(self, rows: slice) -> "Rows":
        """Some of the rows."""
        return Rows(self._raw[rows], self.names, self._converts)

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, place: Any) -> Any:
        return self._named[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._named)

    @cached_property
    def _named(self) -> list[Any]:
        row: Any = namedtuple("Row", self.names, rename=True)  # type: ignore[misc]
        return list(map(row._make, self.tuples()))


async def read_rows(session: AsyncSession, statement: Select[Any]) -> Rows:
    """What a statement selects, with the names of its columns."""
    columns = list(statement.selected_columns)
    result = await ask(session, statement)
    assert result.cursor is not None
    raw = list(result.cursor.fetchall())
    result.close()
    converts = [_convert(column.type, result.dialect) for column in columns]
    return Rows(raw, [str(column.key) for column in columns], converts)


async def columns_by_keys(
    session: AsyncSession,
    model: type[SQLModel],
    key: str,
    keys: Sequence[str],
    columns: Sequence[str],
    *where: ColumnElement[bool],
) -> dict[str, Sequence[Any]]:
    """The values of these columns, `key` among them, by key, of the rows that have one of these keys, however
    many there are, and for which `where` is true."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    chosen = select(*(table.c[name] for name in columns))
    found = await read_rows(session, chosen.where(among(session, table.c[key], keys), *where))
    return dict(zip(found.column(key), found.tuples(), strict=True))


def _convert(kind: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    convert = kind.dialect_impl(dialect).result_processor(dialect, None)
    return _Once(convert).__getitem__ if convert is not None and isinstance(kind, UtcDateTime) else convert


class _Once(dict[Any, Any]):
    """Converts each value once: what was written together has one instant."""

    def __init__(self, convert: Convert) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, value: Any) -> Any:
        converted = self[value] = self._convert(value)
        return converted

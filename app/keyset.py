"""Pages by keyset: a page begins after the last row of the one before, wherever that row is now.

No offset is ever counted, so that page 10,000 costs what page 1 does and rows that come or go meanwhile
neither repeat nor hide others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Label,
    Select,
    Subquery,
    Text,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.database import UtcDateTime, dialect_of
from app.given import given
from app.rows import Rows, Values, read_rows

KeyPart: TypeAlias = str | int | float | bool | datetime | None
Key: TypeAlias = tuple[KeyPart, ...]
Page: TypeAlias = Sequence[tuple[Any, Key]]
P = TypeVar("P", str, int)  # a parent's key
Q = TypeVar("Q")

ARMS = 400  # lists of one statement; SQLite unites at most 500


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


class Plain(Sequence[tuple[Any, Key]]):
    """A page whose rows are columns; with each row the key of its place."""

    def __init__(self, rows: Rows, key: Sequence[int]) -> None:
        self.rows = rows
        self._key = key

    def keys(self) -> list[Values]:
        """The columns of the rows' keys."""
        return [self.rows.column_at(place) for place in self._key]

    def chosen(self, rows: slice) -> "Plain":
        """Some of the rows."""
        return Plain(self.rows.chosen(rows), self._key)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]

    def __iter__(self) -> Iterator[tuple[Any, Key]]:
        return zip(self.rows, zip(*self.keys(), strict=True), strict=True)


async def page(
    session: AsyncSession,
    statement: Select[Any],
    order: Sequence[By],
    bounds: Bounds,
    *,
    plain: bool = False,
) -> Page:
    """The page of `statement` (unordered, unlimited) with each row's key, in the direction walked: backward,
    the last row comes first. `order` has to end in a unique column. A row is what `statement` selects: the
    entity or value itself, a tuple where there are several. If `plain`, the page is `Plain`, and a row of it
    has the entity's columns.
    """
    if plain:
        return await _plain(session, statement, order, bounds)
    wanted = len(statement.column_descriptions)
    bounded = _bounded(statement, order, bounds).add_columns(*(by.column for by in order))
    found = map(tuple, await session.execute(bounded))
    if wanted == 1:
        return [(row[0], row[1:]) for row in found]
    return [(row[:wanted], row[wanted:]) for row in found]


async def _plain(session: AsyncSession, statement: Select[Any], order: Sequence[By], bounds: Bounds) -> Plain:
    """A key's column that is selected anyway is not selected twice."""
    selected = {_unlabelled(column): place for place, column in enumerate(statement.selected_columns)}
    more = [by.column for by in order if _unlabelled(by.column) not in selected]
    for column in more:
        selected[_unlabelled(column)] = len(selected)
    found = await read_rows(session, _bounded(statement, order, bounds).add_columns(*more))
    return Plain(found, [selected[_unlabelled(by.column)] for by in order])


def _unlabelled(column: Any) -> Any:
    """The column itself, which is the same wherever it stands."""
    element = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    return element.element if isinstance(element, Label) else element


async def pages(
    session: AsyncSession,
    of: Callable[[Any], Select[Any]],
    parents: Sequence[P],
    order: Sequence[By],
    bounds: Bounds,
    *,
    plain: bool = False,
) -> dict[P, Page]:
    """The page of `of(parent)` for each of these parents, with one statement and without walking further
    than each page goes. `of` takes a value or a column of values. That of a single parent is `Plain`, if
    wanted."""
    if len(parents) == 1:
        return {parents[0]: await page(session, of(parents[0]), order, bounds, plain=plain)}
    listed = _listed(session, parents)
    beside = _by_lateral if dialect_of(session) == "postgresql" else _by_unique
    statement = beside(listed, of, order, bounds)
    found: dict[P, list[tuple[Any, Key]]] = {parent: [] for parent in parents}
    wanted = len(of(parents[0]).column_descriptions)
    for parent, *row in await session.execute(statement):
        found[parent].append(_entry(tuple(row), wanted))
    return dict(found)


async def counts(
    session: AsyncSession, of: Callable[[Any], Select[Any]], parents: Sequence[P]
) -> dict[P, int]:
    """How many rows `of(parent)` has for each of these parents, with one statement."""
    if len(parents) == 1:
        total = await session.execute(
            of(parents[0]).with_only_columns(func.count(), maintain_column_froms=True)
        )
        return {parents[0]: int(total.scalar_one())}
    listed = _listed(session, parents)
    counted = of(listed.c.parent).with_only_columns(func.count(), maintain_column_froms=True)
    rows = await session.execute(select(listed.c.parent, counted.correlate(listed).scalar_subquery()))
    return {parent: int(count) for parent, count in rows}


async def pages_of_each(
    session: AsyncSession, lists: Mapping[Q, tuple[Select[Any], Sequence[By]]], bounds: Bounds
) -> dict[Q, Page]:
    """The page of each of these statements, all of which select the same columns (no entities) by orders of
    the same kinds and directions; 400 of them with one statement. That of a single one is `Plain`."""
    if len(lists) == 1:
        return {name: await page(session, *each, bounds, plain=True) for name, each in lists.items()}
    found: dict[Q, list[tuple[Any, Key]]] = {}
    names = list(lists)
    for start in range(0, len(names), ARMS):
        chunk = names[start : start + ARMS]
        found |= {name: [] for name in chunk}
        wanted = len(lists[chunk[0]][0].column_descriptions)
        for place, *row in await session.execute(_united([lists[name] for name in chunk], bounds)):
            found[chunk[place]].append(_entry(tuple(row), wanted))
    return dict(found)


async def counts_of_each(session: AsyncSession, statements: Mapping[Q, Select[Any]]) -> dict[Q, int]:
    """How many rows each of these statements has; 400 of them with one statement."""
    found: dict[Q, int] = {}
    names = list(statements)
    for start in range(0, len(names), ARMS):
        chunk = names[start : start + ARMS]
        arms = [
            select(literal(place), func.count()).select_from(statements[name].subquery())
            for place, name in enumerate(chunk)
        ]
        found |= {chunk[place]: int(count) for place, count in await session.execute(union_all(*arms))}
    return found


async def rows_of_each(
    session: AsyncSession, statements: Mapping[Q, Select[Any]]
) -> dict[Q, list[tuple[Any, ...]]]:
    """All rows of each of these statements, all of which select the same columns; 400 of them with one
    statement."""
    found: dict[Q, list[tuple[Any, ...]]] = {name: [] for name in statements}
    names = list(statements)
    for start in range(0, len(names), ARMS):
        chunk = names[start : start + ARMS]
        arms = [
            select(literal(place), statements[name].subquery().alias()) for place, name in enumerate(chunk)
        ]
        for place, *row in await session.execute(union_all(*arms)):
            found[chunk[place]].append(tuple(row))
    return found


def kinds(order: Sequence[By]) -> tuple[type, ...]:
    """The types of a key's parts."""
    return tuple(by.kind for by in order)


def _entry(row: tuple[Any, ...], wanted: int) -> tuple[Any, Key]:
    """What was selected, and the key behind it."""
    return (row[0] if wanted == 1 else row[:wanted]), row[wanted:]


def _bounded(statement: Select[Any], order: Sequence[By], bounds: Bounds) -> Select[Any]:
    """The rows of a page, in the direction walked."""
    if bounds.after is not None:
        statement = statement.where(_beyond(order, bounds.after, backward=False))
    if bounds.before is not None:
        statement = statement.where(_beyond(order, bounds.before, backward=True))
    return statement.order_by(None).order_by(*_orderings(order, bounds)).limit(bounds.limit)


def _listed(session: AsyncSession, parents: Sequence[P]) -> Subquery:
    kind = Text if isinstance(parents[0], str) else BigInteger
    return given(session, ((parent,) for parent in parents), parent=kind)


def _by_lateral(
    listed: Subquery, of: Callable[[Any], Select[Any]], order: Sequence[By], bounds: Bounds
) -> Select[Any]:
    """PostgreSQL walks each parent's list as far as its page goes."""
    statement = of(listed.c.parent)
    page = _keyed(_bounded(statement, order, bounds), order).lateral("page")
    chosen = [
        aliased(each["expr"], page) if isinstance(each["expr"], type) else page.c[each["name"]]
        for each in statement.column_descriptions
    ]
    keys = _keys(page, order)
    return (
        select(listed.c.parent, *chosen, *(by.column for by in keys))
        .select_from(listed.join(page, true()))
        .order_by(*_orderings(keys, bounds))
    )


def _by_unique(
    listed: Subquery, of: Callable[[Any], Select[Any]], order: Sequence[By], bounds: Bounds
) -> Select[Any]:
    """SQLite has no LATERAL, but functions that give tables see what stands before them: one lists the unique
    column of each parent's page, whose rows are looked up then. Materialized, so that it is never turned
    round."""
    unique = order[-1].column
    within = _bounded(of(listed.c.parent), order, bounds)
    walked = within.with_only_columns(unique.label("found"), maintain_column_froms=True)
    found = select(func.json_group_array(walked.correlate(listed).subquery().c.found)).scalar_subquery()
    each = func.json_each(found).table_valued("value")
    chosen = select(listed.c.parent, each.c.value).select_from(listed.join(each, true()))
    page = chosen.cte("page").prefix_with("MATERIALIZED")
    statement = of(page.c.parent)
    columns = [described["expr"] for described in statement.column_descriptions]
    return (
        statement.with_only_columns(
            page.c.parent, *columns, *(by.column for by in order), maintain_column_froms=True
        )
        .where(unique == page.c.value)
        .order_by(*_orderings(order, bounds))
    )


def _united(lists: Sequence[tuple[Select[Any], Sequence[By]]], bounds: Bounds) -> Select[Any]:
    """The pages of these statements one after the other, each row with its statement's place."""
    arms = [
        select(
            literal(place).label("place"),
            _keyed(_bounded(statement, order, bounds), order).subquery(),
        )
        for place, (statement, order) in enumerate(lists)
    ]
    united = union_all(*arms).subquery()
    return select(united).order_by(united.c.place, *_orderings(_keys(united, lists[0][1]), bounds))


def _keyed(statement: Select[Any], order: Sequence[By]) -> Select[Any]:
    return statement.add_columns(*(by.column.label(f"key_{place}") for place, by in enumerate(order)))


def _keys(table: Any, order: Sequence[By]) -> list[By]:
    """The order of a table that was made `_keyed`."""
    return [replace(by, column=table.c[f"key_{place}"]) for place, by in enumerate(order)]


def _orderings(order: Sequence[By], bounds: Bounds) -> list[ColumnElement[Any]]:
    return [_ordering(by, bounds.backward) for by in order]


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
        values = tuple_(*(_value(by, part) for by, part in zip(order, key, strict=True)))
        return columns > values if rising[0] else columns < values
    alternatives = []
    for position, by in enumerate(order):
        same = [_same(earlier, part) for earlier, part in zip(order, key[:position], strict=False)]
        alternatives.append(and_(*same, _past(by, key[position], rising[position], backward)))
    return or_(*alternatives)


def _value(by: By, part: KeyPart) -> ColumnElement[Any]:
    """A part of a key, to compare with its column. A forged cursor may have any integer of 64 bits, which
    PostgreSQL does not take for one of 32."""
    kind = by.column.type
    return literal(part, BigInteger() if isinstance(kind, Integer) else kind)


def _same(by: By, part: KeyPart) -> ColumnElement[bool]:
    same: ColumnElement[bool] = by.column.is_(None) if part is None else by.column == _value(by, part)
    return same


def _past(by: By, part: KeyPart, rising: bool, backward: bool) -> ColumnElement[bool]:
    if part is None:  # nulls are last: nothing lies after them, everything else before
        earlier: ColumnElement[bool] = by.column.is_not(None) if backward else false()
        return earlier
    value = _value(by, part)
    past: ColumnElement[bool] = by.column > value if rising else by.column < value
    return or_(past, by.column.is_(None)) if by.nullable and not backward else past

"""Filters on SQLite: JSON functions, typed by `json_type`."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    SQLColumnExpression,
    Text,
    and_,
    bindparam,
    case,
    cast,
    distinct,
    false,
    func,
    literal,
    or_,
    select,
    type_coerce,
)

from app.database import microseconds
from app.filters.dialects import Condition, Json, Scalar
from app.filters.fields import Kind
from app.filters.ordering import ORDERINGS
from app.filters.words import glob_patterns

NUMBERS = ("integer", "real")
PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In a JSON path a key stands as it is written in the JSON text, and these are written escaped.
ESCAPED = re.compile(r'["\\\x00-\x1f]')


class Sqlite:
    """The `Dialect` of SQLite."""

    def json(self, column: SQLColumnExpression[Any], keys: Sequence[str]) -> Json:
        """See `Dialect`."""
        if len(keys) == 1 and PLAIN_KEY.fullmatch(keys[0]):
            # A literal key, so that an index on `custom ->> 'key'` is used.
            key = bindparam(None, keys[0], Text, literal_execute=True, unique=True)
            return SqliteJson(
                func.json_type(column, f"$.{keys[0]}"), type_coerce(column, Text).op("->>")(key)
            )
        if not any(ESCAPED.search(key) for key in keys):
            path = "$" + "".join(f'."{key}"' for key in keys)
            return SqliteJson(func.json_type(column, path), type_coerce(column, Text).op("->>")(path))
        return _walked(column, keys)

    def is_one_of(self, kind: Kind, column: SQLColumnExpression[Any], values: Sequence[Any]) -> Condition:
        """See `Dialect`."""
        stored = [microseconds(value) if isinstance(value, datetime) else value for value in values]
        return column.in_(_listed(stored))

    def number(self, value: int | float) -> ColumnElement[Any]:
        """See `Dialect`. A float goes as text, so that it is read as the stored JSON text is."""
        return cast(literal(repr(value), Text), Float) if isinstance(value, float) else literal(value)

    def searched(self, column: SQLColumnExpression[Any], search: str) -> Condition:
        """See `Dialect`."""
        return or_(*(column.op("GLOB", is_comparison=True)(pattern) for pattern in glob_patterns(search)))


class SqliteJson:
    """The `Json` of SQLite: `kind` is its `json_type`, `value` what `->>` gives, lists as JSON text."""

    def __init__(self, kind: ColumnElement[Any], value: ColumnElement[Any]) -> None:
        self._kind = kind
        self._value = value

    def exists(self) -> Condition:
        """See `Json`."""
        return self._kind != "null"

    def equals(self, scalar: Scalar) -> Condition:
        """See `Json`."""
        return _equals(self._kind, self._value, scalar)

    def is_one_of(self, scalars: Sequence[Scalar]) -> Condition:
        """See `Json`."""
        return _is_one_of(self._kind, self._value, scalars)

    def compares(self, operator: str, scalar: Scalar) -> Condition:
        """See `Json`."""
        return and_(_typed(self._kind, scalar), ORDERINGS[operator](self._value, _literal(scalar)))

    def searched(self, search: str) -> Condition:
        """See `Json`."""
        return and_(self._kind == "text", Sqlite().searched(self._value, search))

    def contains(self, scalar: Scalar) -> Condition:
        """See `Json`."""
        items = self._items()
        return select(items.c.key).where(_equals(items.c.type, items.c.value, scalar)).exists()

    def contains_any(self, texts: Sequence[str]) -> Condition:
        """See `Json`."""
        items = self._items()
        return select(items.c.key).where(_is_one_of(items.c.type, items.c.value, texts)).exists()

    def is_exactly(self, texts: Sequence[str]) -> Condition:
        """See `Json`."""
        items, wanted = self._items(), set(texts)
        found = select(func.count(distinct(items.c.value))).where(
            _is_one_of(items.c.type, items.c.value, sorted(wanted))
        )
        return and_(
            self._kind == "array",
            func.json_array_length(case((self._kind == "array", self._value))) == len(wanted),
            found.scalar_subquery() == len(wanted),
        )

    def _items(self) -> Any:
        # The guard: json_each fails on a text that is no JSON, and goes into objects too.
        return _each(case((self._kind == "array", self._value)))


def _each(source: SQLColumnExpression[Any]) -> Any:
    columns = func.json_each(source).table_valued("key", "value", "type", joins_implicitly=True)
    return columns.alias()


def _walked(column: SQLColumnExpression[Any], keys: Sequence[str]) -> SqliteJson:
    levels: list[Any] = []
    for _ in keys:
        inside = levels[-1].c if levels else None
        levels.append(_each(column if inside is None else case((inside.type == "object", inside.value))))
    here = [level.c.key == key for level, key in zip(levels, keys, strict=True)]
    last = levels[-1].c
    return SqliteJson(
        select(last.type).where(*here).scalar_subquery(), select(last.value).where(*here).scalar_subquery()
    )


def _listed(values: Sequence[Any]) -> Select[Any]:
    return select(_each(literal(orjson.dumps(values).decode(), Text)).c.value)


def _literal(scalar: Scalar) -> ColumnElement[Any]:
    return literal(scalar, Text) if isinstance(scalar, str) else Sqlite().number(scalar)


def _typed(kind: ColumnElement[Any], scalar: Scalar) -> Condition:
    if isinstance(scalar, bool):
        return kind == ("true" if scalar else "false")
    return kind == "text" if isinstance(scalar, str) else kind.in_(NUMBERS)


def _equals(kind: ColumnElement[Any], value: ColumnElement[Any], scalar: Scalar) -> Condition:
    typed = _typed(kind, scalar)
    return typed if isinstance(scalar, bool) else and_(typed, value == _literal(scalar))


def _is_one_of(kind: ColumnElement[Any], value: ColumnElement[Any], scalars: Sequence[Scalar]) -> Condition:
    texts = [scalar for scalar in scalars if isinstance(scalar, str)]
    booleans = sorted({scalar for scalar in scalars if isinstance(scalar, bool)})
    numbers = [scalar for scalar in scalars if not isinstance(scalar, str | bool)]
    choices = [_typed(kind, boolean) for boolean in booleans]
    if texts:
        choices.append(and_(kind == "text", value.in_(_listed(texts))))
    if numbers:
        choices.append(and_(kind.in_(NUMBERS), value.in_(_listed(numbers))))
    return or_(false(), *choices)

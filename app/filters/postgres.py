"""Filters on PostgreSQL: jsonb, whose own comparison is typed and never fails."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Numeric,
    SQLColumnExpression,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from app.filters.dialects import Condition, Json, Scalar
from app.filters.fields import Kind
from app.filters.ordering import ORDERINGS
from app.filters.words import regular_expression

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Postgres:
    """The `Dialect` of PostgreSQL."""

    def json(self, column: SQLColumnExpression[Any], keys: Sequence[str]) -> Json:
        """See `Dialect`. `->` with a text never reaches into lists, unlike `#>`."""
        value: ColumnElement[Any] = type_coerce(column, JSONB)
        for key in keys[:-1]:
            value = value.op("->", return_type=JSONB())(_key(key))
        if not keys:
            return PostgresJson(value, type_coerce(value, Text))
        last = _key(keys[-1])
        return PostgresJson(
            value.op("->", return_type=JSONB())(last), value.op("->>", return_type=Text())(last)
        )

    def is_one_of(self, kind: Kind, column: SQLColumnExpression[Any], values: Sequence[Any]) -> Condition:
        """See `Dialect`."""
        if kind is Kind.TIME:
            return column == any_(literal(list(values), ARRAY(TIMESTAMP(timezone=True))))
        if kind is Kind.NUMBER:
            return column == any_(literal([_decimal(value) for value in values], ARRAY(Numeric)))
        return column == any_(literal(list(values), ARRAY(Text)))

    def number(self, value: int | float) -> ColumnElement[Any]:
        """See `Dialect`."""
        return literal(_decimal(value), Numeric)

    def searched(self, column: SQLColumnExpression[Any], search: str) -> Condition:
        """See `Dialect`."""
        return column.op("~", is_comparison=True)(literal(regular_expression(search), Text))


class PostgresJson:
    """The `Json` of PostgreSQL: the value as jsonb, and as text."""

    def __init__(self, value: ColumnElement[Any], as_text: ColumnElement[Any]) -> None:
        self._value = value
        self._text = as_text
        self._kind: ColumnElement[str] = func.jsonb_typeof(value)

    def exists(self) -> Condition:
        """See `Json`."""
        return self._kind != "null"

    def equals(self, scalar: Scalar) -> Condition:
        """See `Json`. Strings by `->>`, so that an index on it is used."""
        if isinstance(scalar, str):
            return and_(self._text == literal(scalar, Text), self._kind == "string")
        return self._value == _jsonb(scalar)

    def is_one_of(self, scalars: Sequence[Scalar]) -> Condition:
        """See `Json`."""
        texts = [scalar for scalar in scalars if isinstance(scalar, str)]
        others = [scalar for scalar in scalars if not isinstance(scalar, str)]
        choices: list[Condition] = []
        if texts:
            choices.append(and_(self._text == any_(literal(texts, ARRAY(Text))), self._kind == "string"))
        if others:
            choices.append(self._value.in_(select(func.jsonb_array_elements(_jsonb(others)))))
        return or_(false(), *choices)

    def compares(self, operator: str, scalar: Scalar) -> Condition:
        """See `Json`. jsonb orders numbers as numeric, but strings by the database's own collation."""
        if isinstance(scalar, str):
            ordered = ORDERINGS[operator](self._text.collate("C"), literal(scalar, Text))
            return and_(self._kind == "string", ordered)
        return and_(self._kind == "number", ORDERINGS[operator](self._value, _jsonb(scalar)))

    def searched(self, search: str) -> Condition:
        """See `Json`."""
        return and_(self._kind == "string", Postgres().searched(self._text, search))

    def contains(self, scalar: Scalar) -> Condition:
        """See `Json`."""
        return and_(self._kind == "array", self._value.op("@>", is_comparison=True)(_jsonb([scalar])))

    def contains_any(self, texts: Sequence[str]) -> Condition:
        """See `Json`."""
        any_of = self._value.op("?|", is_comparison=True)(literal(list(texts), ARRAY(Text)))
        return and_(self._kind == "array", any_of)

    def is_exactly(self, texts: Sequence[str]) -> Condition:
        """See `Json`."""
        wanted = _jsonb(sorted(set(texts)))
        return and_(
            self._kind == "array",
            self._value.op("@>", is_comparison=True)(wanted),
            self._value.op("<@", is_comparison=True)(wanted),
        )


def _key(key: str) -> ColumnElement[str]:
    # A literal where that is plainly safe, so that an index on `custom ->> 'key'` is used.
    return bindparam(None, key, Text, literal_execute=bool(PLAIN_KEY.fullmatch(key)), unique=True)


def _jsonb(value: Any) -> ColumnElement[Any]:
    return cast(literal(orjson.dumps(value).decode(), Text), JSONB)


def _decimal(value: int | float) -> Decimal:
    return Decimal(repr(value))

"""What the two databases must each be told in their own way, to give the same answer."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, SQLColumnExpression

from app.filters.fields import Kind

Scalar = str | int | float | bool
Condition = ColumnElement[bool]


class Json(Protocol):
    """A value inside a JSON column. Every condition is NULL or false where the value is absent or of
    another type, and none can fail."""

    def exists(self) -> Condition:
        """There is a value, and it is not null."""
        ...

    def equals(self, scalar: Scalar) -> Condition:
        """The value has the type of `scalar` and equals it."""
        ...

    def is_one_of(self, scalars: Sequence[Scalar]) -> Condition:
        """The value equals one of them."""
        ...

    def compares(self, operator: str, scalar: Scalar) -> Condition:
        """The value has the type of `scalar` and stands so to it."""
        ...

    def searched(self, search: str) -> Condition:
        """The value is a string with a word that begins so."""
        ...

    def contains(self, scalar: Scalar) -> Condition:
        """The value is a list and holds `scalar`."""
        ...

    def contains_any(self, texts: Sequence[str]) -> Condition:
        """The value is a list and holds one of these strings."""
        ...

    def is_exactly(self, texts: Sequence[str]) -> Condition:
        """The value is a list of exactly these distinct strings, in any order."""
        ...


class Dialect(Protocol):
    """How one database compares columns and reaches into JSON."""

    def json(self, column: SQLColumnExpression[Any], keys: Sequence[str]) -> Json:
        """The value that `keys` lead to through nested objects."""
        ...

    def is_one_of(self, kind: Kind, column: SQLColumnExpression[Any], values: Sequence[Any]) -> Condition:
        """The column equals one of `values`, sent as one parameter: databases limit their number."""
        ...

    def number(self, value: int | float) -> ColumnElement[Any]:
        """A number, compared digit by digit."""
        ...

    def searched(self, column: SQLColumnExpression[Any], search: str) -> Condition:
        """The column has a word that begins so."""
        ...

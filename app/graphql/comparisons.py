"""Typed filters of lists: the shared comparisons, and the condition that an input of them stands for.

An input's fields are comparisons, or lists of the same input under `and` and `or`; all of them hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from enum import Enum
from typing import Any, TypeAlias

import strawberry
from sqlalchemy import ColumnElement, and_, or_, true

from app import validation
from app.database import DialectName
from app.errors import InvalidInput
from app.filters.expressions import DIALECTS
from app.filters.ordering import ORDERINGS
from app.filters.parser import MAX_CONDITIONS, MAX_SEARCH, MAX_VALUES

Condition: TypeAlias = ColumnElement[bool]
Column: TypeAlias = Any
Special: TypeAlias = Callable[[Any], Condition]

EQ = "Equal to this."
IN = "Equal to one of these, at most 1,000."
GT, GTE, LT, LTE = "Greater than this.", "This or greater.", "Less than this.", "This or less."
EXISTS = "Whether there is a value at all."


@strawberry.input(description="Chooses by an id.")
class IdFilter:
    """Comparisons of an id."""

    eq: str | None = strawberry.field(default=strawberry.UNSET, description=EQ)
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET, description=IN)


@strawberry.input(description="Chooses by a text, which is compared by code points.")
class StringFilter:
    """Comparisons of a text."""

    eq: str | None = strawberry.field(default=strawberry.UNSET, description=EQ)
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET, description=IN)
    gt: str | None = strawberry.field(default=strawberry.UNSET, description=GT)
    gte: str | None = strawberry.field(default=strawberry.UNSET, description=GTE)
    lt: str | None = strawberry.field(default=strawberry.UNSET, description=LT)
    lte: str | None = strawberry.field(default=strawberry.UNSET, description=LTE)
    autocomplete: str | None = strawberry.field(
        default=strawberry.UNSET, description="The beginning of any word, ignoring case."
    )
    exists: bool | None = strawberry.field(default=strawberry.UNSET, description=EXISTS)


@strawberry.input(description="Chooses by a time.")
class DateTimeFilter:
    """Comparisons of a time."""

    eq: datetime | None = strawberry.field(default=strawberry.UNSET, description=EQ)
    in_: list[datetime] | None = strawberry.field(name="in", default=strawberry.UNSET, description=IN)
    gt: datetime | None = strawberry.field(default=strawberry.UNSET, description=GT)
    gte: datetime | None = strawberry.field(default=strawberry.UNSET, description=GTE)
    lt: datetime | None = strawberry.field(default=strawberry.UNSET, description=LT)
    lte: datetime | None = strawberry.field(default=strawberry.UNSET, description=LTE)
    exists: bool | None = strawberry.field(default=strawberry.UNSET, description=EXISTS)


@strawberry.input(description="Chooses by yes or no.")
class BooleanFilter:
    """Comparison of a boolean."""

    eq: bool | None = strawberry.field(default=strawberry.UNSET, description=EQ)


def condition(given: Any, columns: Mapping[str, Column | Special], dialect: DialectName) -> Condition:
    """The condition that a filter input stands for; without one, every row.

    `columns` has for each field of the input (by its Python name) the column that it compares, or a function
    that makes the condition of the whole comparison. Null is refused wherever it stands.
    """
    return true() if not given else _Conditions(columns, dialect).all_of(given)


class _Conditions:
    def __init__(self, columns: Mapping[str, Column | Special], dialect: DialectName) -> None:
        self._columns = columns
        self._dialect = dialect
        self._count = 0

    def all_of(self, given: Any) -> Condition:
        """Every field of an input holds."""
        return and_(true(), *(self._field(name, value) for name, value in _given(given)))

    def _field(self, name: str, value: Any) -> Condition:
        if isinstance(value, list):
            if not value:
                raise InvalidInput(f"{_shown(name)} takes a list of at least one filter")
            parts = [self.all_of(each) for each in value]
            return and_(*parts) if name == "and_" else or_(*parts)
        column = self._columns[name]
        if isinstance(column, Callable):  # type: ignore[arg-type]
            self._counted()
            made: Condition = column(value)
            return made
        return and_(true(), *(self._compared(column, *each) for each in _given(value)))

    def _counted(self) -> None:
        self._count += 1
        if self._count > (most := MAX_CONDITIONS):
            validation.beyond(f"at most {most} conditions are allowed", limit=most, given=self._count)

    def _compared(self, column: Column, name: str, value: Any) -> Condition:
        self._counted()
        match name:
            case "eq":
                compared = column == stored(value)
            case "in_":
                compared = column.in_(several(value))
            case "exists":
                compared = column.is_not(None) if value else column.is_(None)
            case "autocomplete":
                search = validation.text(value, least=1, most=MAX_SEARCH)
                compared = DIALECTS[self._dialect].searched(column, search)
            case _:
                compared = ORDERINGS[f"${name}"](column, stored(value))
        condition: Condition = compared
        return condition


def several(values: list[Any]) -> list[Any]:
    """The values of `in`, as columns hold them: at most 1,000."""
    if len(values) > MAX_VALUES:
        validation.beyond(f"at most {MAX_VALUES:,} values are allowed", limit=MAX_VALUES, given=len(values))
    return [stored(value) for value in values]


def stored(value: Any) -> Any:
    """A value as columns hold it: enums by their names."""
    return value.name if isinstance(value, Enum) else value


def _given(given: Any) -> list[tuple[str, Any]]:
    """The fields that an input has."""
    found = [(each.name, getattr(given, each.name)) for each in fields(given)]
    for name, value in found:
        if value is None:
            raise InvalidInput(f"{_shown(name)} cannot be null; leave it out, or ask with exists: false")
    return [(name, value) for name, value in found if value is not strawberry.UNSET]


def _shown(name: str) -> str:
    return name.rstrip("_")

"""From the checked tree to a condition of SQL.

NULL counts as false, and and/or keep it so; whatever negates says `IS NOT TRUE`, and so holds for rows that
lack the field.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, assert_never

from sqlalchemy import Select, SQLColumnExpression, and_, false, func, or_, true

from app.database import DialectName
from app.filters.dialects import Condition, Dialect, Json
from app.filters.fields import CustomField, Field, Kind
from app.filters.ordering import ORDERINGS
from app.filters.postgres import Postgres
from app.filters.sqlite import Sqlite
from app.filters.syntax import Group, Node

DIALECTS: Mapping[DialectName, Dialect] = {"sqlite": Sqlite(), "postgresql": Postgres()}
NEGATIONS = {"$ne": "$eq", "$nin": "$in"}


def condition(node: Node, dialect: Dialect) -> Condition:
    """True for the rows that the tree describes; NULL or false for all others."""
    if isinstance(node, Group):
        return _group(node, dialect)
    if (positive := NEGATIONS.get(node.operator)) is not None:
        return _not(_comparison(node.field, positive, node.operand, dialect))
    return _comparison(node.field, node.operator, node.operand, dialect)


def _group(group: Group, dialect: Dialect) -> Condition:
    parts = [condition(part, dialect) for part in group.parts]
    match group.logic:
        case "$and":
            return and_(true(), *parts)
        case "$or":
            return or_(false(), *parts)
        case "$nor":
            return _not(or_(false(), *parts))
        case other:
            assert_never(other)


def _not(positive: Condition) -> Condition:
    return positive.self_group().is_not(true())


def _comparison(field: Field | CustomField, operator: str, operand: Any, dialect: Dialect) -> Condition:
    if isinstance(field, CustomField):
        return _json(dialect.json(field.column, field.keys), operator, operand)
    if field.kind is Kind.LABELS:
        return _labels(dialect.json(field.column, ()), operator, operand)
    if field.kind is Kind.MEMBERS:
        return _members(field, operator, operand, dialect)
    if field.kind is Kind.BOOLEAN:
        return _boolean(field.column, operator, operand)
    return _column(field, operator, operand, dialect)


def _json(value: Json, operator: str, operand: Any) -> Condition:
    if operator in ORDERINGS:
        return value.compares(operator, operand)
    match operator:
        case "$exists":
            return value.exists() if operand else _not(value.exists())
        case "$contains":
            return value.contains(operand)
        case "$autocomplete":
            return value.searched(operand)
        case "$in":
            return _any(operand, value.is_one_of, _not(value.exists()))
        case _:
            return _not(value.exists()) if operand is None else value.equals(operand)


def _column(field: Field, operator: str, operand: Any, dialect: Dialect) -> Condition:
    column = field.column
    if operator in ORDERINGS:
        return _ordered(field, operator, operand, dialect)
    match operator:
        case "$exists":
            return column.is_not(None) if operand else column.is_(None)
        case "$autocomplete":
            return dialect.searched(column, operand)
        case "$in":
            return _any(operand, partial(dialect.is_one_of, field.kind, column), column.is_(None))
        case _:
            return column.is_(None) if operand is None else column == _operand(field, operand, dialect)


def _ordered(field: Field, operator: str, operand: Any, dialect: Dialect) -> Condition:
    ordered: Condition = ORDERINGS[operator](field.column, _operand(field, operand, dialect))
    return ordered


def _operand(field: Field, operand: Any, dialect: Dialect) -> Any:
    return dialect.number(operand) if field.kind is Kind.NUMBER else operand


def _any(operand: list[Any], is_one_of: Callable[[Sequence[Any]], Condition], absent: Condition) -> Condition:
    values = [value for value in operand if value is not None]
    choices = [is_one_of(values)] if values else []
    if len(values) < len(operand):
        choices.append(absent)
    return or_(false(), *choices)


def _boolean(column: SQLColumnExpression[Any], operator: str, operand: Any) -> Condition:
    if operator == "$exists":
        return column.is_not(None) if operand else column.is_(None)
    wanted = operand if operator == "$in" else [operand]
    return or_(false(), *(column.is_(value) for value in sorted(set(wanted), key=repr)))


def _labels(labels: Json, operator: str, operand: Any) -> Condition:
    match operator:
        case "$contains":
            return labels.contains(operand)
        case "$in":
            return labels.contains_any(operand) if operand else false()
        case _:
            return labels.is_exactly(operand)


def _members(field: Field, operator: str, operand: list[str], dialect: Dialect) -> Condition:
    rows, members = _rows(field), sorted(set(operand))
    key, member = rows.selected_columns
    named = rows.with_only_columns(key).where(dialect.is_one_of(Kind.TEXT, member, members))
    if operator == "$in":
        return field.column.in_(named)
    in_all = rows.with_only_columns(func.count()).where(key == field.column).scalar_subquery()
    if not members:
        return in_all == 0
    all_named = named.group_by(key).having(func.count() == len(members))
    return and_(field.column.in_(all_named), in_all == len(members))


def _rows(field: Field) -> Select[str, str]:
    if field.rows is None:
        raise TypeError(f"{field.name} has no rows to find its members in")
    return field.rows

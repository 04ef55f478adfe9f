"""From a JSON object to a checked tree; what is wrong is said with its place and what may stand there."""

from collections.abc import Callable
from typing import Any, cast

from app import validation
from app.errors import InvalidInput
from app.filters.fields import OPERATORS, ORDER, Collection, CustomField, Field, Kind
from app.filters.syntax import Condition, Group, Logic, Node
from app.validation import Problems

MAX_CONDITIONS = 100
MAX_DEPTH = 5
MAX_VALUES = 1_000
MAX_SEARCH = 255
MAX_TEXT = 32_768

LOGIC = ("$and", "$or", "$nor")


def tree(collection: Collection, given: Any) -> Node:
    """The checked tree of `given`. Raises every problem of it at once, each with its path.

    The limits: 100 conditions, 5 levels of `$and`, `$or` and `$nor`, 1,000 values in a list.
    """
    if given == {}:
        return Group("$and", ())
    return _Parser(collection).filter(given, depth=0)


class _Parser:
    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._conditions = 0

    def filter(self, given: Any, *, depth: int) -> Node:
        """One filter object: all of its entries hold."""
        if not isinstance(given, dict):
            raise InvalidInput(f"a filter is an object, not {validation.named(given)}")
        if not given:
            raise InvalidInput("an empty filter is allowed only as the whole")
        parts, problems = list[Node](), Problems()
        for key, value in given.items():
            with problems.at(key):
                parts.extend(self._entry(key, value, depth))
        problems.check()
        return parts[0] if len(parts) == 1 else Group("$and", parts)

    def _entry(self, key: str, value: Any, depth: int) -> list[Node]:
        if key in LOGIC:
            return [self._logic(cast(Logic, key), value, depth + 1)]
        if key.startswith("$"):
            raise InvalidInput(
                f"unknown operator; {', '.join(LOGIC)} or the name of a field may stand here",
                details={"allowed": list(LOGIC)},
            )
        field = self._field(key)
        if not isinstance(value, dict):
            return [self._condition(field, _implied(field, value), value)]
        if not value:
            raise InvalidInput(
                "needs at least one operator", details={"allowed": list(OPERATORS[field.kind])}
            )
        parts, problems = list[Node](), Problems()
        for operator, operand in value.items():
            with problems.at(operator):
                parts.append(self._condition(field, operator, operand))
        problems.check()
        return parts

    def _logic(self, logic: Logic, value: Any, depth: int) -> Group:
        if depth > MAX_DEPTH:
            validation.beyond(f"at most {MAX_DEPTH} levels are allowed", limit=MAX_DEPTH, given=depth)
        if not isinstance(value, list) or not value:
            raise InvalidInput(f"{logic} takes a list of at least one filter")
        parts, problems = list[Node](), Problems()
        for position, each in enumerate(value):
            with problems.at(position):
                parts.append(self.filter(each, depth=depth))
        problems.check()
        return Group(logic, parts)

    def _field(self, key: str) -> Field | CustomField:
        if (field := self._collection.fields.get(key)) is not None:
            return field
        keys = tuple(key.split("."))
        if not all(keys):
            raise InvalidInput("a field needs a name, and names between its dots")
        for part in keys:
            validation.text(part, most=validation.MAX_ID)
        if keys[0] in self._collection.fields:
            raise InvalidInput(f"{keys[0]} is a built-in field and has no fields of its own")
        if len(keys) > (most := validation.MAX_CUSTOM_DEPTH):
            validation.beyond(f"at most {most} levels are allowed", limit=most, given=len(keys))
        return CustomField(key, keys, self._collection.custom)

    def _condition(self, field: Field | CustomField, operator: str, operand: Any) -> Condition:
        self._conditions += 1
        if self._conditions > (most := MAX_CONDITIONS):
            validation.beyond(f"at most {most} conditions are allowed", limit=most, given=self._conditions)
        return Condition(field, operator, _operand(field, operator, operand))


def _implied(field: Field | CustomField, value: Any) -> str:
    return "$contains" if field.kind is Kind.LABELS and not isinstance(value, list) else "$eq"


def _operand(field: Field | CustomField, operator: str, operand: Any) -> Any:
    allowed = OPERATORS[field.kind]
    if operator not in allowed:
        hint = "" if operator.startswith("$") else f" (to reach into an object write {field.name}.{operator})"
        raise InvalidInput(
            f"unknown operator for {field.name}{hint}; allowed are {', '.join(allowed)}",
            details={"allowed": list(allowed)},
        )
    if operator == "$exists":
        return _boolean(operand)
    if operator == "$autocomplete":
        return validation.text(operand, least=1, most=MAX_SEARCH)
    if operator == "$contains":
        return _SCALARS[Kind.TEXT if field.kind is Kind.LABELS else Kind.CUSTOM](operand)
    if field.kind in (Kind.LABELS, Kind.MEMBERS) or operator in ("$in", "$nin"):
        return _values(field, operator, operand)
    if operator in ORDER and field.kind is Kind.CUSTOM and isinstance(operand, bool):
        raise InvalidInput(f"{operator} takes a string or a number")
    if operand is None and operator not in ORDER:
        return None
    return _SCALARS[field.kind](operand)


def _values(field: Field | CustomField, operator: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise InvalidInput(f"{operator} takes a list here, not {validation.named(operand)}")
    if len(operand) > MAX_VALUES:
        validation.beyond(f"at most {MAX_VALUES:,} values are allowed", limit=MAX_VALUES, given=len(operand))
    nullable = field.kind not in (Kind.LABELS, Kind.MEMBERS)
    check, problems, values = _SCALARS[field.kind], Problems(), list[Any]()
    for position, value in enumerate(operand):
        with problems.at(position):
            values.append(None if value is None and nullable else check(value))
    problems.check()
    return values


def _text(value: Any) -> str:
    return validation.text(value, most=MAX_TEXT)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"must be true or false, not {validation.named(value)}")
    return value


def _scalar(value: Any) -> str | int | float | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return validation.number(value)
    raise InvalidInput(
        f"must be a string, a number or a boolean, not {validation.named(value)}"
        + ("; for any of several write $in" if isinstance(value, list) else "")
    )


_SCALARS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.SEARCHED_TEXT: _text,
    Kind.TIME: validation.instant,
    Kind.NUMBER: validation.number,
    Kind.BOOLEAN: _boolean,
    Kind.LABELS: _text,
    Kind.MEMBERS: _text,
    Kind.CUSTOM: _scalar,
}

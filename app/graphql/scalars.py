"""The scalars of the contract: DateTime (always UTC, six digits and Z) and JSON (an object)."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NewType, cast

import orjson
import strawberry
from graphql import (
    GraphQLError,
    ListValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    value_from_ast_untyped,
)
from graphql.pyutils import Undefined
from strawberry.types.scalar import ScalarDefinition

NO_OBJECT = "A JSON object is required here."
LENGTH = len("2026-11-30T12:00:00.000000Z")

JSON = NewType("JSON", dict[str, Any])

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC, always with six digits and Z, so that text and time sort alike."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def format_instants(instants: Sequence[datetime | None]) -> list[str | None]:
    """`format_instant` of each, None of None; many at once for a tenth of the time, one object only once."""
    distinct = {id(instant): instant for instant in instants}
    formatted = dict(zip(distinct, _formatted(list(distinct.values())), strict=True))
    return [formatted[id(instant)] for instant in instants]


def _formatted(instants: Sequence[datetime | None]) -> list[str | None]:
    formatted: list[str | None] = orjson.loads(orjson.dumps(instants, option=orjson.OPT_UTC_Z))
    for place, text in enumerate(formatted):
        if text is not None and not (len(text) == LENGTH and text[-1] == "Z"):  # whole seconds, other zones
            instant = instants[place]
            formatted[place] = None if instant is None else format_instant(instant)
    return formatted


def parse_instant(value: object) -> datetime:
    """The instant that RFC 3339 text names; an offset is required. Finer than microseconds is cut."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise GraphQLError("Write a time as RFC 3339 with an offset: 2026-11-30T12:00:00Z.")
    try:
        return datetime.fromisoformat(_microseconds_at_most(value.upper())).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise GraphQLError(f"There is no such time as {value}.") from error


def _microseconds_at_most(value: str) -> str:
    return re.sub(r"(\.\d{6})\d+", r"\1", value)


def parse_object(value: object) -> dict[str, Any]:
    """A JSON object, as given."""
    if not isinstance(value, dict):
        raise GraphQLError(NO_OBJECT)
    return value


def instant_literal(node: ValueNode, _: object = None) -> datetime:
    """`parse_instant` of a literal; what is wrong with it is wrong at its place."""
    try:
        return parse_instant(node.value if isinstance(node, StringValueNode) else None)
    except GraphQLError as error:
        raise GraphQLError(error.message, node) from None


def object_literal(node: ValueNode, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`parse_object` of a literal. A variable that is not given is left out, in a list it is null: as in
    the fields of an input."""
    if not isinstance(node, ObjectValueNode):
        raise GraphQLError(NO_OBJECT, node)
    return cast(dict[str, Any], _untyped(node, variables or {}))


def _untyped(node: ValueNode, variables: Mapping[str, Any]) -> Any:
    if isinstance(node, ObjectValueNode):
        pairs = ((field.name.value, _untyped(field.value, variables)) for field in node.fields)
        return {name: value for name, value in pairs if value is not Undefined}
    if isinstance(node, ListValueNode):
        values = (_untyped(item, variables) for item in node.values)
        return [None if value is Undefined else value for value in values]
    if isinstance(node, VariableNode):
        return _as_sent(variables.get(node.name.value, Undefined))
    return value_from_ast_untyped(node)


def _as_sent(value: Any) -> Any:
    """A variable's value as JSON again: the place that it stands in now has no type."""
    if isinstance(value, dict):
        return {name: _as_sent(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_sent(each) for each in value]
    if isinstance(value, datetime):
        return format_instant(value)
    return value.name if isinstance(value, Enum) else value


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant in RFC 3339: UTC with six digits and Z in answers, any offset in input.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
        serialize=format_instant,
        parse_value=parse_instant,
        parse_literal=instant_literal,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="A JSON object. Keys that begin with `$` have to travel in variables.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc8259",
        serialize=lambda value: value,
        parse_value=parse_object,
        parse_literal=object_literal,
    ),
}

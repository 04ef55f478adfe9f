"""What came of a mutation as JSON, and the payload built of it again.

An object with a global id is stored as that id and read anew; everything else is stored as it is. An object
that is gone since is null, and missing in lists.
"""

from collections.abc import Sequence
from dataclasses import is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from strawberry.types.base import (
    StrawberryContainer,
    StrawberryList,
    StrawberryObjectDefinition,
    get_object_definition,
)
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.lazy_type import LazyType

from app.graphql.context import Info
from app.graphql.nodes import Node, decode_id
from app.graphql.scalars import format_instant, parse_instant


def stored(value: Any) -> Any:
    """A payload, or anything in one, as JSON."""
    if isinstance(value, Node):
        return value.id
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, list):
        return [stored(item) for item in value]
    definition = get_object_definition(value) if is_dataclass(value) else None
    if definition is None:
        return value
    return {name: stored(getattr(value, name)) for name in _plain(definition)}


async def restored(info: Info, kind: Any, value: Any) -> Any:
    """The payload, or anything in one, of the GraphQL type `kind`."""
    if value is None:
        return None
    if isinstance(kind, StrawberryList):
        return await _restored_list(info, _bare(kind.of_type), value)
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Node):
        return (await _nodes(info, kind, [value]))[0]
    if isinstance(kind, StrawberryEnumDefinition):
        return kind.wrapped_cls[value]
    if kind is datetime:
        return parse_instant(value)
    definition = get_object_definition(kind) if isinstance(kind, type) else None
    if definition is None:
        return value
    types = _plain(definition)
    return kind(**{name: await restored(info, types[name], item) for name, item in value.items()})


async def _restored_list(info: Info, kind: Any, values: Sequence[Any]) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, Node):
        return [node for node in await _nodes(info, kind, values) if node is not None]
    return [await restored(info, kind, value) for value in values]


async def _nodes(info: Info, kind: type[Node], ids: Sequence[str]) -> Sequence[Node | None]:
    return await kind.by_keys(info, [decode_id(given)[1] for given in ids])


def _plain(definition: StrawberryObjectDefinition) -> dict[str, Any]:
    """The fields that hold a value, with their types; those with a resolver find theirs themselves."""
    return {field.python_name: field.type for field in definition.fields if field.base_resolver is None}


def _bare(kind: Any) -> Any:
    """The type without being optional or named by its module."""
    while isinstance(kind, StrawberryContainer | LazyType) and not isinstance(kind, StrawberryList):
        kind = kind.resolve_type() if isinstance(kind, LazyType) else kind.of_type
    return kind

"""Fields that are loaded by a key which their object has: `@reference` another node, `@loaded` anything else.

What the decorated method returns is the key. Declared so, a field of a whole page is loaded at once; that of
one object by the same way.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import strawberry
from graphql import GraphQLType, get_named_type

from app.graphql.context import Info
from app.graphql.fields import Decorator
from app.graphql.limits import DEFINITION
from app.graphql.loaders import Loader
from app.graphql.nodes import Node

KEYED = "keyed"

KeyOf = Callable[[Any], Hashable]
LoadMany = Callable[[Info, Sequence[Any]], Awaitable[Sequence[Any]]]


@dataclass(frozen=True)
class Keyed:
    """What a field's metadata tell of it: the key of an object, and how the values of many keys are loaded.
    `absent` is the value where there is no key; a `reference` gives nodes; `attribute` is that of the key,
    where it has one."""

    key_of: KeyOf
    load_many: LoadMany
    absent: Any = None
    reference: bool = False
    attribute: str | None = None


def reference(kind: Any, *, description: str) -> Decorator:
    """A field that is another node, or null where the key is None or of nothing that exists. `kind` is the
    type, `Annotated` with `strawberry.lazy` if it is another domain's."""
    return _declared(kind | None, description, lambda key_of: Keyed(key_of, _nodes, reference=True))


def reference_by(attribute: str, kind: Any, *, description: str) -> Any:
    """A field as `reference` makes them, whose key is an attribute of the object."""
    keyed = Keyed(attrgetter(attribute), _nodes, reference=True, attribute=attribute)
    return _field(kind | None, description, keyed)


def loaded(loader: Loader[Any, Any], kind: Any, *, absent: Any, description: str) -> Decorator:
    """A field of the GraphQL type `kind`: what `loader` has for the key, or `absent`."""

    async def load_many(info: Info, keys: Sequence[Any]) -> Sequence[Any]:
        found = await loader.load_many(info, keys)
        return [absent if value is None else value for value in found]

    return _declared(kind, description, lambda key_of: Keyed(key_of, load_many, absent))


async def _nodes(info: Info, keys: Sequence[Any]) -> Sequence[Any]:
    return await node_type(info._raw_info.return_type).by_keys(info, keys)


def _declared(kind: Any, description: str, of: Callable[[KeyOf], Keyed]) -> Decorator:
    def declare(key_of: Callable[..., Any]) -> Any:
        field = _field(kind, description, of(key_of))
        field.base_resolver.wrapped_func.__name__ = key_of.__name__
        return field

    return declare


def _field(kind: Any, description: str, keyed: Keyed) -> Any:
    async def resolve(self: Any, info: Info) -> Any:
        key = keyed.key_of(self)
        return keyed.absent if key is None else (await keyed.load_many(info, [key]))[0]

    field: Any = strawberry.field(description=description, graphql_type=kind, metadata={KEYED: keyed})
    return field(resolve)


def node_type(kind: GraphQLType) -> type[Node]:
    """The class of a GraphQL type that is a node's."""
    origin: type[Node] = get_named_type(kind).extensions[DEFINITION].origin
    return origin

"""`node` and `nodes`: any object by its global id, as clients with a cache ask for it."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

import strawberry
from strawberry.types.base import StrawberryObjectDefinition

from app.errors import LimitExceeded
from app.graphql.context import Info
from app.graphql.fields import query
from app.graphql.nodes import Node, decode_id, malformed

MAX_NODES = 100


@strawberry.type
class Query:
    """Queries for any type."""

    @query(description="The object with this global id; null if there is none (any more).")
    async def node(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="A global id.")]
    ) -> Node | None:
        """One object."""
        return (await _found(info, [id]))[0]

    @query(
        description="The objects with these global ids, in their order; null where there is none.",
        max_size=MAX_NODES,
    )
    async def nodes(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID], strawberry.argument(description="At most 100 global ids.")],
    ) -> list[Node | None]:
        """Up to 100 objects, a statement for each type."""
        if len(ids) > MAX_NODES:
            raise LimitExceeded(
                f"At most {MAX_NODES} ids are allowed; {len(ids):,} were given.",
                details={"limit": MAX_NODES, "given": len(ids)},
            )
        return await _found(info, ids)


async def _found(info: Info, ids: Sequence[strawberry.ID]) -> list[Node | None]:
    """The objects in the order of `ids`. Raises InvalidInput for an id that this API never gave out."""
    places: defaultdict[type[Node], list[tuple[int, str]]] = defaultdict(list)
    for place, given in enumerate(ids):
        kind, key = _type_and_key(info, given)
        places[kind].append((place, key))
    groups = await asyncio.gather(
        *(kind.by_keys(info, [key for _, key in group]) for kind, group in places.items())
    )
    found: list[Node | None] = [None] * len(ids)
    for group, nodes in zip(places.values(), groups, strict=True):
        for (place, _), node in zip(group, nodes, strict=True):
            found[place] = node
    return found


def _type_and_key(info: Info, given: str) -> tuple[type[Node], str]:
    type_name, key = decode_id(given)
    definition = info.schema.get_type_by_name(type_name)
    kind = definition.origin if isinstance(definition, StrawberryObjectDefinition) else None
    if kind is None or kind is Node or not issubclass(kind, Node):
        raise malformed(given)
    return kind, key

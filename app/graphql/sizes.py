"""How much the variables of a request may hold: judged along their declared types before they are coerced,
which takes up to 150 µs an object (13 s for 90,000 conditions) and lets nobody else do anything meanwhile.

Services know the exact limit of each list and name its place; this only bounds what it costs to ask them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    VariableDefinitionNode,
    get_named_type,
    type_from_ast,
)

from app.graphql.failures import beyond

MAX_ITEMS = 10_000  # of one list: targets of a call
MAX_ITEMS_IN_ALL = 150_000  # a thousand users in a hundred teams each, with some room
MAX_OBJECTS = 2_500  # a thousand users or channels in one call, two such calls in a document
MAX_FILTERS = 500  # filters within filters: a hundred conditions, with their groups


def check(
    schema: GraphQLSchema, definitions: Sequence[VariableDefinitionNode], variables: Mapping[str, Any]
) -> None:
    """Refuses variables that hold too much. Whether they have their types is found out later."""
    walk = _Walk()
    for definition in definitions:
        name = definition.variable.name.value
        if name in variables:
            walk.value(variables[name], type_from_ast(schema, definition.type), f"${name}")


class _Walk:
    def __init__(self) -> None:
        self._items = self._objects = self._filters = 0

    def value(self, value: Any, kind: Any, name: str) -> None:
        """Counts what a value of this type holds, no further than it may. JSON is one value."""
        if isinstance(kind, GraphQLNonNull):
            kind = kind.of_type
        if isinstance(kind, GraphQLList) and isinstance(value, list):
            self._list(value, kind.of_type, name)
        elif isinstance(kind, GraphQLList):
            self.value(value, kind.of_type, name)
        elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
            self._object(value, kind)

    def _list(self, values: list[Any], kind: Any, name: str) -> None:
        if len(values) > MAX_ITEMS:
            raise beyond(f"Items of the list {name}", MAX_ITEMS, len(values))
        self._items += len(values)
        if self._items > MAX_ITEMS_IN_ALL:
            raise beyond("Items of all lists in the variables", MAX_ITEMS_IN_ALL, self._items)
        of = get_named_type(kind)
        if not isinstance(of, GraphQLInputObjectType):
            return
        self._objects += len(values)
        if self._objects > MAX_OBJECTS:
            raise beyond("Input objects in lists of the variables", MAX_OBJECTS, self._objects)
        if _holds_itself(of):
            self._filters += len(values)
            if self._filters > MAX_FILTERS:
                raise beyond("Filters within filters", MAX_FILTERS, self._filters)
        for value in values:
            self.value(value, kind, name)

    def _object(self, value: dict[str, Any], kind: GraphQLInputObjectType) -> None:
        for name, field in kind.fields.items():
            if name in value:
                self.value(value[name], field.type, name)


def _holds_itself(kind: GraphQLInputObjectType) -> bool:
    return any(get_named_type(field.type) is kind for field in kind.fields.values())

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
from app.settings import Settings


def check(
    schema: GraphQLSchema,
    definitions: Sequence[VariableDefinitionNode],
    variables: Mapping[str, Any],
    settings: Settings,
) -> None:
    """Refuses variables that hold too much. Whether they have their types is found out later."""
    walk = _Walk(settings)
    for definition in definitions:
        name = definition.variable.name.value
        if name in variables:
            walk.value(variables[name], type_from_ast(schema, definition.type), f"${name}")


class _Walk:
    def __init__(self, settings: Settings) -> None:
        self._most = settings
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
        most, items = self._most, len(values)
        _check(f"Items of the list {name}", most.max_list_items, items)
        self._items += items
        _check("Items of all lists in the variables", most.max_variable_items, self._items)
        of = get_named_type(kind)
        if not isinstance(of, GraphQLInputObjectType):
            return
        self._objects += items
        _check("Input objects in lists of the variables", most.max_input_objects, self._objects)
        if _holds_itself(of):
            self._filters += items
            _check("Filters within filters", most.max_nested_filters, self._filters)
        for value in values:
            self.value(value, kind, name)

    def _object(self, value: dict[str, Any], kind: GraphQLInputObjectType) -> None:
        for name, field in kind.fields.items():
            if name in value:
                self.value(value[name], field.type, name)


def _check(what: str, most: int, given: int) -> None:
    if given > most:
        raise beyond(what, most, given)


def _holds_itself(kind: GraphQLInputObjectType) -> bool:
    return any(get_named_type(field.type) is kind for field in kind.fields.values())

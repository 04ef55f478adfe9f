"""Why the variables of a request do not have their declared types, in the words and the JSON of its sender.

graphql-core finds that out as well, but shows values as Python has them, and of any length.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    VariableDefinitionNode,
    is_required_input_field,
    type_from_ast,
)
from graphql.pyutils import did_you_mean, inspect, print_path_list, suggestion_list

MAX_MISTAKES = 20
MAX_SHOWN = 100

Path: TypeAlias = tuple[str | int, ...]


class Mistake(NamedTuple):
    """Where in a value something is wrong, and what."""

    path: Path
    sentence: str


def shown(value: Any) -> str:
    """A JSON value as JSON text, cut after 100 characters; halves of surrogate pairs stay escapes."""
    text = ""
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += piece
        if len(text) > MAX_SHOWN:
            text = f"{text[:MAX_SHOWN]}…"
            break
    return text.encode(errors="backslashreplace").decode()


def errors_of(
    schema: GraphQLSchema,
    definitions: Sequence[VariableDefinitionNode],
    variables: Mapping[str, Any],
    *,
    suggest: bool,
) -> list[GraphQLError]:
    """The first 20 mistakes in the variables of an operation, each at the variable's definition. `suggest`:
    whether names of the schema may be told that were not asked for."""
    found = (
        GraphQLError(f"Variable '${name}' has invalid value{print_path_list(path)}: {sentence}", definition)
        for definition in definitions
        if (name := definition.variable.name.value) in variables or definition.default_value is None
        for path, sentence in _Mistakes(suggest).in_variable(
            variables, name, type_from_ast(schema, definition.type)
        )
    )
    return list(islice(found, MAX_MISTAKES))


class _Mistakes:
    def __init__(self, suggest: bool) -> None:
        self._suggest = suggest

    def in_variable(self, variables: Mapping[str, Any], name: str, kind: Any) -> Iterator[Mistake]:
        if name in variables:
            yield from self._in(variables[name], kind, ())
        elif isinstance(kind, GraphQLNonNull):
            yield Mistake((), f"Expected a value of non-null type '{kind}' to be provided.")

    def _in(self, value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
        if isinstance(kind, GraphQLNonNull):
            if value is None:
                yield Mistake(path, f"Expected value of non-null type '{kind}' not to be null.")
            kind = kind.of_type
        if value is None:
            return
        if isinstance(kind, GraphQLList):
            yield from self._in_list(value, kind, path)
        elif not isinstance(kind, GraphQLInputObjectType):
            yield from self._in_leaf(value, kind, path)
        elif isinstance(value, dict):
            yield from self._in_object(value, kind, path)
        else:
            yield Mistake(path, f"Expected value of type '{kind}' to be an object, found: {shown(value)}.")

    def _in_list(self, value: Any, kind: GraphQLList[Any], path: Path) -> Iterator[Mistake]:
        if not isinstance(value, list):  # GraphQL takes it for a list of one
            yield from self._in(value, kind.of_type, path)
            return
        for position, item in enumerate(value):
            yield from self._in(item, kind.of_type, (*path, position))

    def _in_object(
        self, value: dict[str, Any], kind: GraphQLInputObjectType, path: Path
    ) -> Iterator[Mistake]:
        for name, field in kind.fields.items():
            if name in value:
                yield from self._in(value[name], field.type, (*path, name))
            elif is_required_input_field(field):
                sentence = f"Expected value of type '{kind}' to include required field '{name}'"
                yield Mistake(path, f"{sentence}, found: {shown(value)}.")
        for name in value:
            if name not in kind.fields:
                yield Mistake(path, self._unknown(name, kind))
        if kind.is_one_of and (len(value) != 1 or None in value.values()):
            yield Mistake(
                path, f"Expected value of type '{kind}' to have exactly one field that is not null."
            )

    def _unknown(self, name: str, kind: GraphQLInputObjectType) -> str:
        return f"Type '{kind}' has no field {shown(name)}.{self._near(name, kind.fields)}"

    def _in_leaf(self, value: Any, kind: Any, path: Path) -> Iterator[Mistake]:
        if isinstance(kind, GraphQLEnumType):
            if not isinstance(value, str) or value not in kind.values:
                near = self._near(value, kind.values) if isinstance(value, str) else ""
                yield Mistake(path, f"Enum '{kind}' has no value {shown(value)}.{near}")
            return
        try:
            kind.coerce_input_value(value)
        except GraphQLError as error:
            yield Mistake(path, error.message.replace(inspect(value), shown(value), 1))

    def _near(self, name: str, known: Mapping[str, Any]) -> str:
        return did_you_mean(suggestion_list(name, list(known))) if self._suggest else ""

"""Every list of the schema, found by introspection, and the selections that ask for all there is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from app.schema import schema

GRAPHQL = schema._schema
# What a field needs to be told before it shows anything.
GIVEN = {
    "Segment.targets": 'senderId: "u00"',
    "Segment.targetExists": 'targetId: "u01", senderId: "u00"',
}
# Fields that do work of their own for each object, and how they are asked: their weight says what they cost.
AT_WORK = {
    "Campaign.preview": "preview { text missingVariables error }",
    "Campaign.explain": 'explain(targetId: "u01") { status steps matchedSegments { segmentId } }',
}


@dataclass(frozen=True)
class List:
    """A connection: a field of an object, or of Query."""

    parent: str
    field: str
    node: str
    sorts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.parent}.{self.field}"

    def within(self, selection: str, *arguments: str) -> str:
        """This list in the selection of its parents."""
        given = [argument for argument in (*arguments, GIVEN.get(self.name)) if argument]
        told = f"({', '.join(given)})" if given else ""
        return f"{self.field}{told} {{ {selection} }}"

    def asked(self, selection: str, *arguments: str, parent_id: str | None = None) -> str:
        """A query of this list, of one parent unless it is a root's."""
        inner = self.within(selection, *arguments)
        if self.parent == "Query":
            return f"{{ {inner} }}"
        return f'{{ node(id: "{parent_id}") {{ ... on {self.parent} {{ {inner} }} }} }}'

    def found(self, data: dict[str, Any]) -> Any:
        """The connection in the answer to `asked`."""
        return (data if self.parent == "Query" else data["node"])[self.field]


def lists() -> list[List]:
    """Every connection of the schema."""
    objects = (kind for kind in GRAPHQL.type_map.values() if isinstance(kind, GraphQLObjectType))
    return [
        List(kind.name, name, _node(field), _sorts(field))
        for kind in objects
        for name, field in kind.fields.items()
        if is_connection(field)
    ]


def is_connection(field: GraphQLField) -> bool:
    return get_named_type(field.type).name.endswith("Connection")


def _node(field: GraphQLField) -> str:
    nodes: GraphQLField = get_named_type(field.type).fields["nodes"]
    return str(get_named_type(nodes.type).name)


def _sorts(field: GraphQLField) -> tuple[str, ...]:
    sort = field.args.get("sort")
    return tuple(get_named_type(get_named_type(sort.type).fields["field"].type).values) if sort else ()


def everything(kind: str, nested: int) -> str:
    """All fields of a node that are simple, the simple ones of the nodes that it leads to, and the first
    `nested` of each list in it, with their simple fields and those of the nodes that these lead to."""
    return " ".join(_fields(GRAPHQL.type_map[kind], nested, nodes=True))


def _fields(kind: Any, nested: int, *, nodes: bool) -> Iterator[str]:
    for name, field in kind.fields.items():
        known = f"{kind.name}.{name}"
        if known in AT_WORK:
            continue
        assert known in GIVEN or not any(map(is_required_argument, field.args.values())), (
            f"say how to ask {known}"
        )
        target = get_named_type(field.type)
        if is_leaf_type(target):
            yield f"{name}({GIVEN[known]})" if known in GIVEN else name
        elif is_connection(field):
            yield from [_page(kind.name, name, field, nested)] if nested else []
        elif nodes or not _is_node(target):
            yield f"{name} {{ {' '.join(_fields(target, 0, nodes=nodes and not _is_node(target)))} }}"


def _page(parent: str, name: str, field: GraphQLField, size: int) -> str:
    inner = " ".join(_fields(GRAPHQL.type_map[_node(field)], 0, nodes=True))
    given = ", ".join(each for each in (f"first: {size}", GIVEN.get(f"{parent}.{name}")) if each)
    return f"{name}({given}) {{ totalCount pageInfo {{ endCursor }} edges {{ cursor }} nodes {{ {inner} }} }}"


def _is_node(kind: Any) -> bool:
    return any(interface.name == "Node" for interface in getattr(kind, "interfaces", ()))

"""The schema as a whole: described, loadable by global id, bounded, and exported the same every time."""

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    get_named_type,
    is_specified_scalar_type,
)

from app.graphql.fields import MAX_SIZE
from app.graphql.nodes import Node
from app.schema import export, schema

TYPES = [
    kind
    for name, kind in schema._schema.type_map.items()
    if not name.startswith("__") and not is_specified_scalar_type(kind)
]


def test_everything_that_clients_see_is_described() -> None:
    missing = [kind.name for kind in TYPES if not kind.description]
    for kind in TYPES:
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in kind.fields.items():
                missing += [] if field.description else [f"{kind.name}.{name}"]
                missing += [
                    f"{kind.name}.{name}({given})"
                    for given, argument in field.args.items()
                    if not argument.description
                ]
        elif isinstance(kind, GraphQLInputObjectType):
            missing += [f"{kind.name}.{name}" for name, field in kind.fields.items() if not field.description]
        elif isinstance(kind, GraphQLEnumType):
            missing += [f"{kind.name}.{name}" for name, value in kind.values.items() if not value.description]
    assert missing == []


def test_every_node_is_loaded_by_its_key() -> None:
    for kind in TYPES:
        definition = schema.get_type_by_name(kind.name)
        origin = getattr(definition, "origin", None)
        if isinstance(origin, type) and issubclass(origin, Node) and origin is not Node:
            assert origin.by_keys.__func__ is not Node.by_keys.__func__, kind.name  # type: ignore[attr-defined]
            assert origin.__name__ == kind.name


def test_every_connection_is_paged_and_says_how_far() -> None:
    for kind in TYPES:
        if not isinstance(kind, GraphQLObjectType):
            continue
        for name, field in kind.fields.items():
            if get_named_type(field.type).name.endswith("Connection"):
                assert {"first", "after", "last", "before"} <= set(field.args), f"{kind.name}.{name}"
                assert field.extensions["strawberry-definition"].metadata[MAX_SIZE] >= 1


def test_the_export_is_sorted_and_whole() -> None:
    sdl = export()
    assert sdl == export()
    assert set(build_schema(sdl).type_map) == set(schema._schema.type_map)
    assert sdl.endswith("}\n")

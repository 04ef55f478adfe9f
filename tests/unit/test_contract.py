"""The schema against the contract: what both have is the same; what is missing yet is known by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    is_required_argument,
    is_required_input_field,
    is_specified_scalar_type,
    print_ast,
)

from app.schema import export

CONTRACT = build_schema((Path(__file__).parent.parent / "contract.graphql").read_text())
OURS = build_schema(export())

# By what they belong to. Whoever adds one of these takes it out here.
MISSING = {
    "devices and push": {
        "AddDeviceInput",
        "Device",
        "DevicePayload",
        "Mutation.addDevice",
        "Mutation.removeDevice",
        "PushProvider",
        "RemoveDeviceInput",
        "User.devices",
        "WebPushKeysInput",
    },
    "dry run": {
        "Campaign.dryRun",
        "DryRun",
        "DryRunPayload",
        "DryRunState",
        "Mutation.startDryRun",
        "StartDryRunInput",
        "VariableCount",
    },
    "timeline": {"Campaign.timeline", "TimelinePoint"},
    "User.recipients": {"User.recipients"},
}


def test_what_both_have_is_the_same() -> None:
    assert sorted(_differences(CONTRACT, OURS)) == []


def test_what_is_missing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    missing = set(_missing(CONTRACT, OURS))
    known = set().union(*MISSING.values())
    with capsys.disabled():  # seen whenever this file is run by itself
        for later, names in MISSING.items():
            print(f"\nOf the contract, missing until {later}:", *sorted(missing & names), sep="\n  ")
    assert sorted(missing - known) == [], "missing, and it belongs to nothing known"
    assert sorted(known - missing) == [], "built meanwhile: take it out of MISSING"


def _shared(contract: GraphQLSchema, ours: GraphQLSchema) -> Iterator[tuple[Any, Any]]:
    for name, kind in _types(contract).items():
        if name in ours.type_map:
            yield kind, ours.type_map[name]


def _types(schema: GraphQLSchema) -> dict[str, GraphQLNamedType]:
    return {
        name: kind
        for name, kind in schema.type_map.items()
        if not name.startswith("__") and not is_specified_scalar_type(kind)
    }


def _members(kind: Any) -> dict[str, Any]:
    """Fields of a type or input, values of an enum; nothing for a scalar."""
    if isinstance(kind, GraphQLEnumType):
        return dict(kind.values)
    return dict(getattr(kind, "fields", {}))


def _missing(contract: GraphQLSchema, ours: GraphQLSchema) -> Iterator[str]:
    """Types, members and arguments that we lack; of a type that we lack only its name."""
    yield from (name for name in _types(contract) if name not in ours.type_map)
    for wanted, found in _shared(contract, ours):
        for name, member in _members(wanted).items():
            if name not in _members(found):
                yield f"{wanted.name}.{name}"
                continue
            given = getattr(_members(found)[name], "args", {})
            yield from (
                f"{wanted.name}.{name}({argument})"
                for argument in getattr(member, "args", {})
                if argument not in given
            )


def _differences(contract: GraphQLSchema, ours: GraphQLSchema) -> Iterator[str]:
    """Where the same name stands for something else, or asks for more than the contract."""
    for wanted, found in _shared(contract, ours):
        if type(wanted) is not type(found):
            yield f"{wanted.name} is {type(found).__name__}, not {type(wanted).__name__}"
            continue
        if isinstance(wanted, GraphQLObjectType | GraphQLInterfaceType):
            implemented = {interface.name for interface in found.interfaces}
            yield from (
                f"{wanted.name} lacks the interface {interface.name}"
                for interface in wanted.interfaces
                if interface.name not in implemented
            )
        yield from _member_differences(wanted, found)


def _member_differences(wanted: Any, found: Any) -> Iterator[str]:
    shared, ours = _members(wanted), _members(found)
    for name, member in ours.items():
        place = f"{found.name}.{name}"
        if name in shared and not isinstance(wanted, GraphQLEnumType):
            yield from _slot_differences(place, shared[name], member)
            yield from _argument_differences(place, shared[name], member)
        elif isinstance(found, GraphQLInputObjectType) and is_required_input_field(member):
            yield f"{place} is required, and the contract does not know it"


def _argument_differences(place: str, wanted: Any, found: Any) -> Iterator[str]:
    known = getattr(wanted, "args", {})
    for name, argument in getattr(found, "args", {}).items():
        if name in known:
            yield from _slot_differences(f"{place}({name})", known[name], argument)
        elif is_required_argument(argument):
            yield f"{place}({name}) is required, and the contract does not know it"


def _slot_differences(place: str, wanted: Any, found: Any) -> Iterator[str]:
    """A field, argument or input field: its type with nullability, and its default."""
    if str(wanted.type) != str(found.type):
        yield f"{place} is {found.type}, not {wanted.type}"
    if _default(wanted) != _default(found):
        yield f"{place} has the default {_default(found)}, not {_default(wanted)}"


def _default(slot: Any) -> str | None:
    """The default as it is written; fields have none."""
    value = getattr(slot.ast_node, "default_value", None)
    return None if value is None else print_ast(value)


def test_differences_are_found() -> None:
    contract = build_schema(
        """interface I { id: ID! } enum E { A B } input In { x: Int! = 3 }
        type T implements I { id: ID! list: [String!] take(in: In, n: Int! = 1): E } type U { a: Int }
        type Query { t(required: Int): T }"""
    )
    ours = build_schema(
        """interface I { id: ID! } enum E { A C } input In { x: Int! = 4 must: Int! }
        type T { id: ID! list: [String] take(in: In, n: Int = 1, more: Int!): E } type Query { t: T }"""
    )
    assert sorted(_differences(contract, ours)) == [
        "In.must is required, and the contract does not know it",
        "In.x has the default 4, not 3",
        "T lacks the interface I",
        "T.list is [String], not [String!]",
        "T.take(more) is required, and the contract does not know it",
        "T.take(n) is Int, not Int!",
    ]
    assert sorted(_missing(contract, ours)) == ["E.B", "Query.t(required)", "U"]

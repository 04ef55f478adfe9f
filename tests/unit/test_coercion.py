"""Variables of the wrong type: whatever graphql-core refuses is explained, in JSON and at bounded length."""

import re
from typing import Any

import pytest
from graphql import (
    GraphQLInputObjectType,
    OperationDefinitionNode,
    build_schema,
    get_variable_values,
    is_input_type,
    parse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from app.graphql.coercion import MAX_MISTAKES, MAX_SHOWN, errors_of, shown
from app.schema import schema

GRAPHQL = schema._schema
INPUTS = sorted(name for name, kind in GRAPHQL.type_map.items() if is_input_type(kind))
FIELDS = sorted(
    {
        name
        for kind in GRAPHQL.type_map.values()
        if isinstance(kind, GraphQLInputObjectType)
        for name in kind.fields
    }
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["ASC", "NAME", "USER", "2026-11-30T12:00:00Z", "x" * 300]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
PYTHON = re.compile(r"\b(None|True|False|Undefined|UNSET|dict|object at)\b")


def explained(declared: str, variables: dict[str, Any], of: Any = GRAPHQL, **more: bool) -> list[str]:
    (operation,) = parse(f"query ({declared}) {{ viewer {{ name }} }}").definitions
    assert isinstance(operation, OperationDefinitionNode)
    definitions = operation.variable_definitions or ()
    errors = errors_of(of, definitions, variables, **{"suggest": True, **more})
    theirs = get_variable_values(of, definitions, variables)
    assert bool(errors) == isinstance(theirs, list)
    assert all(error.locations for error in errors)
    return [error.message for error in errors]


@given(st.sampled_from(INPUTS), st.sampled_from(["", "!"]), VALUES)
@settings(max_examples=400, deadline=None)
def test_what_is_refused_is_explained_and_nothing_else(kind: str, required: str, value: Any) -> None:
    for message in explained(f"$v: {kind}{required}", {"v": value}):
        said = re.sub(r'"(?:\\.|[^"\\])*"?', '""', message)  # without what the client wrote
        assert not PYTHON.search(said), message
        assert len(message) < 2 * MAX_SHOWN + 200


@pytest.mark.parametrize(
    ("declared", "value", "sentence"),
    [
        ("$v: Int", True, ": Int cannot represent non-integer value: true"),
        ("$v: Int!", None, ": Expected value of non-null type 'Int!' not to be null."),
        ("$v: [Int!]", [1, None], " at [1]: Expected value of non-null type 'Int!' not to be null."),
        ("$v: String", {"a": [None]}, ': String cannot represent a non string value: {"a": [null]}'),
        ("$v: SortDirection", "UP", ": Enum 'SortDirection' has no value \"UP\"."),
        ("$v: SortDirection", [], ": Enum 'SortDirection' has no value []."),
        ("$v: SortDirection", "DESK", ": Enum 'SortDirection' has no value \"DESK\". Did you mean 'DESC'?"),
        ("$v: [SortDirection!]", ["ASC", 5], " at [1]: Enum 'SortDirection' has no value 5."),
        ("$v: CampaignFilter", [], ": Expected value of type 'CampaignFilter' to be an object, found: []."),
        ("$v: CampaignFilter", {"or": [{"nme": {}}]},
         " at .or[0]: Type 'CampaignFilter' has no field \"nme\". Did you mean 'name'?"),
        ("$v: CampaignSort", {"a": 1}, ": Expected value of type 'CampaignSort' to include required field "
         "'field', found: {\"a\": 1}."),
        ("$v: DateTime", 5, ": Write a time as RFC 3339 with an offset: 2026-11-30T12:00:00Z."),
        ("$v: JSON", [1], ": A JSON object is required here."),
    ],
)  # fmt: skip
def test_the_place_and_the_value_are_told(declared: str, value: Any, sentence: str) -> None:
    assert explained(declared, {"v": value})[0] == f"Variable '$v' has invalid value{sentence}"


def test_what_is_missing_is_told_and_what_has_a_default_is_not_missed() -> None:
    assert explained("$a: Int!, $b: Int! = 1, $c: Int", {}) == [
        "Variable '$a' has invalid value: Expected a value of non-null type 'Int!' to be provided."
    ]


def test_names_that_were_not_asked_for_are_told_only_if_allowed() -> None:
    given: dict[str, Any] = {"v": [{"field": "NAM"}, {"field": "NAME", "directon": "ASC"}]}
    assert all("Did you mean" in each for each in explained("$v: [CampaignSort!]", given))
    assert not any("Did you mean" in each for each in explained("$v: [CampaignSort!]", given, suggest=False))


def test_of_many_mistakes_the_first_are_told() -> None:
    assert len(explained("$v: [Int]", {"v": ["x"] * 1_000})) == MAX_MISTAKES


@pytest.mark.parametrize(
    ("value", "mistaken"),
    [
        ({"a": 1}, False),
        ({}, True),
        ({"a": 1, "b": 1}, True),
        ({"a": None}, True),
        ({"a": 1, "b": None}, True),
    ],
)
def test_an_input_of_one_field_has_one(value: Any, mistaken: bool) -> None:
    one_of = build_schema("input I @oneOf { a: Int b: Int } type Query { viewer(i: I): Int }")
    assert bool(explained("$v: I", {"v": value}, one_of)) is mistaken


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_what_is_shown_is_short_and_can_be_sent(value: Any) -> None:
    assert len(shown(value)) <= MAX_SHOWN + 1
    shown(value).encode()


def test_halves_of_surrogate_pairs_stay_escapes() -> None:
    assert shown("\0\ud800") == r'"\u0000\ud800"'

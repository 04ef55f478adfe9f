"""Documents: what is refused before it costs anything, and that honest clients are not."""

import time
from typing import Any

import pytest
import strawberry
from graphql import FragmentDefinitionNode, get_introspection_query, parse
from strawberry.schema.config import StrawberryConfig

from app.graphql.connections import connection
from app.graphql.context import Info
from app.graphql.documents import Documents
from app.graphql.execution import CarillonSchema
from app.graphql.failures import Refused
from app.graphql.fields import query
from app.graphql.merging import comparisons
from app.graphql.nodes import Node
from app.graphql.scalars import JSON, SCALARS
from app.schema import schema
from app.settings import Settings
from scripts.benchmarks.hostile import REFUSED


@strawberry.type(description="A leaf.")
class Leaf(Node):
    text: str


@strawberry.type(description="A tree.")
class Tree(Node):
    text: str

    @connection(Leaf, max_size=1_000, description="Its leaves.")
    async def leaves(self, info: Info) -> Any: ...


@strawberry.type
class Query:
    @connection(Tree, max_size=100, description="All trees.")
    async def trees(self, info: Info, filter: JSON | None = None, text: str = "", number: int = 0) -> Any: ...

    @query(description="A few.", max_size=50)
    async def few(self, info: Info) -> list[Tree]: ...


# What no limit catches is refused by the parser, or by validation, which is bounded by the limits.
UNREADABLE = {"a string without an end", "digits"}
VALIDATED = {"unknown fields", "unknown arguments", "unknown values", "a long name", "unused fragments"}
VALIDATED |= {"introspection"}
LIMITED = [name for name in REFUSED if name not in VALIDATED]

SCHEMA = CarillonSchema(query=Query, config=StrawberryConfig(scalar_map=SCALARS))


def refusal(document: str, **settings: Any) -> dict[str, Any]:
    with pytest.raises(Refused) as raised:
        Documents(SCHEMA, Settings(**settings)).admit(document)
    extensions: dict[str, Any] = raised.value.errors[0].extensions or {}
    return extensions


def admit(document: str, **settings: Any) -> None:
    Documents(SCHEMA, Settings(**settings)).admit(document)


def cost(document: str) -> int:
    """What the document is reckoned to cost, found by refusing it."""
    details: dict[str, Any] = refusal(document, max_document_cost=100)["details"]
    given: int = details["given"]
    return given


@pytest.mark.parametrize("descriptions", [True, False])
def test_the_introspection_that_tools_send_is_admitted(descriptions: bool) -> None:
    admit(
        get_introspection_query(
            descriptions=descriptions,
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
        )
    )


@pytest.mark.parametrize(
    ("document", "limit", "given"),
    [
        ("{ few { id } }" + " " * 100_000, 100_000, 100_014),
        ("{ few { " + "id " * 4_000 + "} }", 4_000, 4_005),
        ("{ few { " + "".join(f"a{n}: id " for n in range(31)) + "} }", 30, 31),
        ("{ few { " + "id " * 500 + "} }", 500, 501),
        ("{ few { id" + " @skip(if: false)" * 51 + "} }", 50, 51),
        (" ".join(f"query q{n} {{ __typename }}" for n in range(21)), 20, 21),
        ("{ few { id } }" + " ".join(f"fragment f{n} on Tree {{ id }}" for n in range(201)), 200, 201),
        ("{ few { " + "id " * 64 + "} }", 2_000, 2_016),
        ("query (" + " ".join(f"$v{n}: Int" for n in range(101)) + ") { __typename }", 100, 101),
        ("{ " + "x { " * 16 + "id" + " }" * 17, 16, 17),
    ],
    ids=[
        "characters",
        "tokens",
        "aliases",
        "fields",
        "directives",
        "operations",
        "fragments",
        "comparisons",
        "variables",
        "depth",
    ],
)
def test_limits_name_the_limit_and_what_was_given(document: str, limit: int, given: int) -> None:
    extensions = refusal(document)
    assert extensions["code"] == "LIMIT_EXCEEDED"
    assert extensions["details"] == {"limit": limit, "given": given}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{ trees(first: 100) { nodes { id text } } }", 1 + 100 * 2),
        ("{ trees(first: 100) { edges { cursor node { id } } } }", 1 + 100 * 3),
        ("query ($n: Int) { trees(first: $n) { nodes { id text id text } } }", 1 + 30 * 4),
        ("query ($n: Int, $m: Int) { trees(first: $n, last: $m) { nodes { id text id text } } }", 1 + 30 * 4),
        ("query ($n: Int = null) { trees(first: $n) { nodes { id text id text } } }", 1 + 30 * 4),
        ("query ($n: Int = 90) { trees(first: $n, last: null) { nodes { id text } } }", 1 + 90 * 2),
        ("query ($n: Int = 1e9) { trees(first: $n) { nodes { id text } } }", 1 + 100 * 2),
        (
            "query A($n: Int = 1) { ...f } query B($n: Int) { ...f } query C($n: Int = 40) { ...f } "
            "fragment f on Query { trees(first: $n) { nodes { id text id text } } }",
            1 + 40 * 4,
        ),
        (
            "query A($n: Int = 1) { ...f } query B($n: Int) { ...f } "
            "fragment f on Query { trees(first: $n) { nodes { id text id text } } }",
            1 + 30 * 4,
        ),
        ("{ trees { nodes { id text leaves(last: 2) { nodes { id } } } } }", 1 + 30 * (3 + 2)),
        ("{ trees { nodes { leaves { nodes { id } } } } }", 1 + 30 * (1 + 30)),
        ("{ few { id text text } }", 1 + 50 * 3),
        (
            "{ few { ...f } } fragment f on Tree { id ... on Node { id } leaves(first: 9) { totalCount } }",
            1 + 50 * (2 + 1 + 10),
        ),
        ("{ trees(first: 99999) { nodes { id text } } }", 201),
        ("{ trees { ...f } } fragment f on TreeConnection { totalCount nodes { id } }", 1 + 10_000 + 30),
    ],
)
def test_cost_is_the_largest_possible_answer(document: str, expected: int) -> None:
    assert cost(document) == expected


def test_pages_within_pages_are_too_much() -> None:
    document = "{ trees(first: 100) { nodes { leaves(first: 1000) { nodes { id text } } } } }"
    details = refusal(document)["details"]
    assert details == {"limit": 200_000, "given": 1 + 100 * (1 + 2_000)}
    admit("{ trees(first: 100) { nodes { leaves(first: 900) { nodes { id text } } } } }")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{ ", "INVALID_INPUT"),
        ("{ nothing }", "INVALID_INPUT"),
        ("{ few }", "INVALID_INPUT"),
        ("{ few { ...f } } fragment f on Tree { ...f id }", "INVALID_INPUT"),
        ("{ few { ...nothing } }", "INVALID_INPUT"),
        ("{ few { ... on Nothing { id } } }", "INVALID_INPUT"),
        ('{ trees(text: "a\\u0000b") { totalCount } }', "INVALID_INPUT"),
        ("{ trees(number: 9223372036854775808) { totalCount } }", "INVALID_INPUT"),
        ("{ trees(number: " + "9" * 5_000 + ") { totalCount } }", "INVALID_INPUT"),
        ("{ trees(filter: {a: 18446744073709551616}) { totalCount } }", "INVALID_INPUT"),
        ('query ($x: String = "\\u0000") { trees(text: $x) { totalCount } }', "INVALID_INPUT"),
        ("{ trees(filter: {a: " + "[" * 65 + "]" * 65 + "}) { totalCount } }", "LIMIT_EXCEEDED"),
        ("{ trees(filter: {a: " + "[" * 1_900 + "]" * 1_900 + "}) { totalCount } }", "LIMIT_EXCEEDED"),
        ("{a" * 1_900 + "}" * 1_900, "LIMIT_EXCEEDED"),
        ("{ few { " + "... { " * 600 + "id" + "}" * 602, "LIMIT_EXCEEDED"),
        ("query ($x: " + "[" * 1_500 + "Int" + "]" * 1_500 + ") { __typename }", "LIMIT_EXCEEDED"),
        ("{ \ud800 }", "INVALID_INPUT"),
        (
            "{ few { ...f0 } } "
            + " ".join(f"fragment f{n} on Tree {{ ...f{n + 1} ...f{n + 1} }}" for n in range(200))
            + " fragment f200 on Tree { id }",
            "LIMIT_EXCEEDED",
        ),
        (
            "{ __schema { types { fields { type { fields { type { fields { type { name }}}}}}}}}",
            "LIMIT_EXCEEDED",
        ),
    ],
)
def test_hostile_and_wrong_documents_are_refused_fast(document: str, code: str) -> None:
    begun = time.process_time()
    assert refusal(document)["code"] == code
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("levels", range(1, 9))
def test_questions_about_the_schema_have_one_limit(levels: int) -> None:
    document = '{ __type(name: "Node") { ' + "fields { type { " * levels + "name" + " } }" * levels + " } }"
    if levels < 3:
        Documents(schema, Settings()).admit(document)
        return
    with pytest.raises(Refused) as raised:
        Documents(schema, Settings()).admit(document)
    (error,) = raised.value.errors
    assert error.extensions is not None
    assert error.extensions["code"] == "LIMIT_EXCEEDED"
    assert error.extensions["details"]["limit"] < error.extensions["details"]["given"]


def test_misspelt_fields_get_suggestions_where_the_schema_may_be_read() -> None:
    sentence = r"^Cannot query field 'fewer' on type 'Query'\."
    with pytest.raises(Refused, match=sentence + r" Did you mean 'few'\?$"):
        Documents(SCHEMA, Settings()).admit("{ fewer }")
    with pytest.raises(Refused, match=sentence + "$"):
        Documents(SCHEMA, Settings(introspection=False)).admit("{ fewer }")


def test_a_known_document_is_neither_parsed_nor_validated_again() -> None:
    documents = Documents(SCHEMA, Settings())
    assert documents.admit("{ few { id } }") is documents.admit("{ few { id } }")


PAGED = "query ($n: Int) { trees(first: $n) { nodes { leaves(first: $n) { nodes { id } } } } }"


def test_a_document_that_pages_both_ways_costs_the_way_it_is_paged() -> None:
    document = """query ($first: Int, $last: Int = 60, $after: String) {
      trees(first: $first, last: $last, after: $after) { nodes { id text } } }"""
    documents = Documents(SCHEMA, Settings(max_document_cost=1 + 50 * 2))
    documents.admit(document, {"first": 50, "last": None})
    documents.admit(document, {"first": None, "last": 50})
    documents.admit(document, {"first": None, "last": None})
    for too_much in ({"first": 51, "last": None}, {"first": None, "last": 51}, {"first": 50}):
        with pytest.raises(Refused):
            documents.admit(document, too_much)


def test_a_page_size_in_a_variable_counts_as_the_request_gives_it() -> None:
    documents = Documents(SCHEMA, Settings(max_document_cost=500))
    for n, admitted in ((5, True), (100, False), (10, True), (None, False)):
        if admitted:
            documents.admit(PAGED, {"n": n})
        else:
            with pytest.raises(Refused):
                documents.admit(PAGED, {"n": n})
    with pytest.raises(Refused):
        documents.admit(PAGED)


@pytest.mark.parametrize("name", LIMITED)
def test_what_is_past_a_limit_is_never_validated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def validate(*_: object, **__: object) -> list[Any]:
        raise AssertionError("validated")

    monkeypatch.setattr("app.graphql.documents.validate", validate)
    with pytest.raises(Refused) as raised:
        Documents(schema, Settings()).admit(REFUSED[name])
    (error,) = raised.value.errors
    assert error.extensions is not None
    if name not in UNREADABLE:
        assert error.extensions["code"] == "LIMIT_EXCEEDED"
        assert error.extensions["details"]["given"] > error.extensions["details"]["limit"]


@pytest.mark.parametrize("name", REFUSED)
def test_every_hostile_document_is_refused_with_a_few_short_errors(name: str) -> None:
    with pytest.raises(Refused) as raised:
        Documents(schema, Settings()).admit(REFUSED[name])
    assert 1 <= len(raised.value.errors) <= 21
    for error in raised.value.errors:
        assert (error.extensions or {})["code"] in ("LIMIT_EXCEEDED", "INVALID_INPUT")
        assert len(error.message) < 1_100


@pytest.mark.parametrize(
    ("document", "pairs"),
    [
        ("{ viewer { name } }", 0),
        ("{ viewer { name name } }", 1),
        ("{ viewer { name } viewer { name } }", 2),
        ("{ viewer { name } ... { viewer { name } ... { viewer { name } } } }", 6),
        ("{ viewer { name: role name } ...f ...g ...f } fragment f on Query { viewer { name } } "
         "fragment g on Query { viewer { role } }", 1 + 3 + 3 + 0),
        ("{ viewer { ...f } } fragment f on Viewer { name name }", 1 + 1),
        ("query a { viewer { name name } } query b { viewer { name name } }", 2),
    ],
)  # fmt: skip
def test_pairs_are_counted_as_they_are_compared(document: str, pairs: int) -> None:
    found = parse(document).definitions
    fragments = {node.name.value: node for node in found if isinstance(node, FragmentDefinitionNode)}
    assert sum(comparisons(node, fragments, 1_000) for node in found) == pairs


WATCHED = "subscription { campaignsChanged { campaign { %s } } }"


@pytest.mark.parametrize(
    ("selection", "admitted"),
    [
        ("status stats { sent } sender { name }", True),
        ("recipients { totalCount }", False),
        ("targets { nodes { id } }", False),
        ("preview { text }", False),
        ('explain(targetId: "a") { outcome }', False),
        ("...f } } } fragment f on Campaign { ... { ... { recipients { nodes { id } }", False),
        ("segments { targets { totalCount } }", False),
    ],
)
def test_subscriptions_select_nothing_that_is_much_to_read_each_time(selection: str, admitted: bool) -> None:
    try:
        Documents(schema, Settings()).admit(WATCHED % selection)
        assert admitted
    except Refused as refused:
        assert not admitted, refused
        assert "would be read for every event" in str(refused)


def test_a_fragment_that_a_query_may_select_a_subscription_still_may_not() -> None:
    both = """fragment f on Campaign { recipients { nodes { id } } }
      query a { campaign(campaignId: "a") { ...f } }
      subscription b { campaignsChanged { campaign { ...f } } }"""
    with pytest.raises(Refused, match="cannot select recipients"):
        Documents(schema, Settings()).admit(both)

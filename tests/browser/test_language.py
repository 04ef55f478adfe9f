"""What the explorer's editor knows of GraphQL, beside what the server's own parser knows."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from graphql import introspection_from_schema, parse, print_ast, strip_ignored_characters, validate
from hypothesis import given, settings
from hypothesis import strategies as st

from app.graphql.explorer import STATIC
from app.schema import schema
from tests.api.lists import everything, lists
from tests.browser.tools import HERE, NODE

ROOT = Path(__file__).parents[2]
GRAPHQL = schema._schema
SCHEMA = introspection_from_schema(GRAPHQL)
AROUND = [
    "query ($a: [Int!]! = [1, 2] @x, $b: JSON = {a: {b: []}}) @y(z: $a) { a(b: $b) @z(if: true) { c } }",
    'subscription S { a: b(c: """block "quoted" """, d: "\\"\\\\", e: -1.5e3, f: null) { ...F } }',
    "{ a(g: E, h: [[$i]], j: [{k: 1}, {l: [true, FALSE]}]) }",
    "fragment F on T @d { ... { a } ... on U @e { b } ...G @f on query mutation: type(on: 1) { input } }",
    "{ a } query B { b } mutation C { c }",
    'query Long($input: I!) { a(input: {b: "' + 60 * "x" + '", c: {d: [1, 2, 3], e: {}}}, f: $input) { g } }',
]
MISTAKEN = [
    "{ }",
    "{ nope }",
    "{ viewer }",
    "{ viewer { name { x } } }",
    "{ user { name } }",
    '{ user(userId: "a", nope: 1) { name } }',
    "{ user(userId: $a) { name } }",
    "{ campaigns(filter: {status: {eq: NOPE}}) { totalCount } }",
    "{ campaigns(filter: {nope: 1}) { totalCount } }",
    "query ($a: Nope) { viewer { name } }",
    "{ viewer { ...F } }",
    "{ viewer { ... on Nope { name } } }",
    "{ viewer @nope { name } }",
    "mutation { startCampaign(input: {}) { errors { code } } }",
    "query { viewer { name }",
    "nonsense",
]


def operations() -> list[str]:
    """Documents that are valid: of the README, of the clients, and one for every list of the schema."""
    readme = (ROOT / "README.md").read_text()
    written = [json.loads(f'"{found}"') for found in re.findall(r'\{"query": "((?:[^"\\]|\\.)*)"', readme)]
    listed = [
        each.asked(f"nodes {{ {everything(each.node, 3)} }}", "first: 3", parent_id="x") for each in lists()
    ]
    return [*written, *listed]


def judged(documents: list[str]) -> list[tuple[str, str, list[str]]]:
    """How the editor lays out each document, and what it finds wrong with it."""
    found: list[tuple[str, str, list[str]]] = told("judge.mjs", {"schema": SCHEMA, "documents": documents})
    return found


def told(program: str, given: Any) -> Any:
    """What a program of Node makes of a JSON value."""
    done = subprocess.run(
        [NODE, HERE / program, STATIC],
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


def test_what_is_valid_is_found_right_and_laid_out_the_same() -> None:
    documents = operations()
    assert len(documents) > 40
    for document, (once, again, problems) in zip(documents, judged(documents), strict=True):
        assert problems == [], document
        assert not validate(GRAPHQL, parse(document)), document
        assert strip_ignored_characters(once) == strip_ignored_characters(document)
        assert again == once


def test_every_form_of_the_language_keeps_its_meaning() -> None:
    for document, (once, again, _) in zip(AROUND, judged(AROUND), strict=True):
        assert print_ast(parse(once)) == print_ast(parse(document))
        assert again == once
        assert max(len(before + after) for before, after in pairwise(once.splitlines())) < 300


def test_what_the_server_would_refuse_is_found() -> None:
    for document, (_, _, problems) in zip(MISTAKEN, judged(MISTAKEN), strict=True):
        assert problems, document


@given(st.lists(st.text(alphabet='{}()[]:$!@=.,|&# \n"\\aAé1-', max_size=60), min_size=50, max_size=200))
@settings(max_examples=5, deadline=None)
def test_nothing_that_somebody_types_breaks_it(documents: list[str]) -> None:
    answers: list[Any] = judged(documents)
    assert len(answers) == len(documents)


# Each is a number in some notation; most are none that JavaScript could hold.
NUMBERS = [
    "9007199254740993",
    "-9223372036854775808",
    "1.0",
    "1e400",
    "0.10000000000000000000001",
    "-0",
    "1E-7",
]
KEYS = st.text(max_size=4) | st.sampled_from(["__proto__", "1", '"', "{", "a,b]", "\\", ":"])
LEAVES = st.sampled_from([None, True, False, *NUMBERS]) | KEYS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
HOLE = re.compile(f'"({"|".join(map(re.escape, NUMBERS))})"(?!:)')


def written(value: Any, **how: Any) -> str:
    """As JSON, with the numbers that stand in it as texts."""
    return HOLE.sub(r"\1", json.dumps(value, **how))


def paths(value: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Everything within a value, by its path."""
    yield [], value
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for step, member in members:
        yield from (([step, *rest], found) for rest, found in paths(member))


@given(st.lists(VALUES, min_size=20, max_size=60), st.booleans())
@settings(max_examples=5, deadline=None)
def test_json_is_laid_out_and_taken_apart_digit_by_digit(values: list[Any], dense: bool) -> None:
    separators = (",", ":") if dense else (" ,\n", " : ")
    asked = [(value, *each) for value in values for each in paths(value)]
    found = told("lay.mjs", [(written(value, separators=separators), path) for value, path, _ in asked])
    for (value, _, part), (whole, text) in zip(asked, found, strict=True):
        assert whole == written(value, indent=2)
        assert text == written(part, separators=separators)

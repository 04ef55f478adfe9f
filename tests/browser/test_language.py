"""What the explorer's editor knows of GraphQL, beside what the server's own parser knows."""

import json
import re
import subprocess
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
    done = subprocess.run(
        [NODE, HERE / "judge.mjs", STATIC],
        input=json.dumps({"schema": SCHEMA, "documents": documents}),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[tuple[str, str, list[str]]] = json.loads(done.stdout)
    return found


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

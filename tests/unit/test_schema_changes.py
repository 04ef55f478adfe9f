"""Changes of the schema: every kind that breaks a client is seen, and passes only where it is declared."""

from pathlib import Path

import pytest
from graphql import BreakingChangeType, DangerousChangeType, build_schema, find_schema_changes

from scripts import schema_changes
from scripts.schema_changes import ALSO_BREAKING, accept, bare, breaking_changes, check

REST = "type Query { a: Int } "

# Kind, before, after, and the sentence that declares it.
BREAKING = [
    ("TYPE_REMOVED", REST + "type T { a: Int }", REST, "T was removed."),
    ("TYPE_CHANGED_KIND", REST + "type T { a: Int }", REST + "input T { a: Int }",
     "T changed from an Object type to an Input type."),
    ("TYPE_REMOVED_FROM_UNION", REST + "type S { a: Int } type T { a: Int } union U = S | T",
     REST + "type S { a: Int } type T { a: Int } union U = S", "T was removed from union type U."),
    ("VALUE_REMOVED_FROM_ENUM", REST + "enum E { A B }", REST + "enum E { A }",
     "Enum value E.B was removed."),
    ("REQUIRED_INPUT_FIELD_ADDED", REST + "input I { a: Int }", REST + "input I { a: Int b: Int! }",
     "A required field I.b was added."),
    ("IMPLEMENTED_INTERFACE_REMOVED", REST + "interface N { a: Int } type T implements N { a: Int }",
     REST + "interface N { a: Int } type T { a: Int }", "T no longer implements interface N."),
    ("FIELD_REMOVED", "type Query { a: Int b: Int }", "type Query { a: Int }", "Field Query.b was removed."),
    ("FIELD_CHANGED_KIND", "type Query { a: Int! }", "type Query { a: Int }",
     "Field Query.a changed type from Int! to Int."),
    ("FIELD_CHANGED_KIND", REST + "input I { a: Int }", REST + "input I { a: Int! }",
     "Field I.a changed type from Int to Int!."),
    ("REQUIRED_ARG_ADDED", "type Query { a: Int }", "type Query { a(n: Int!): Int }",
     "A required argument Query.a(n:) was added."),
    ("ARG_REMOVED", "type Query { a(n: Int): Int }", "type Query { a: Int }",
     "Argument Query.a(n:) was removed."),
    ("ARG_CHANGED_KIND", "type Query { a(n: Int): Int }", "type Query { a(n: Int!): Int }",
     "Argument Query.a(n:) has changed type from Int to Int!."),
    ("DIRECTIVE_REMOVED", REST + "directive @d on FIELD", REST, "Directive @d was removed."),
    ("DIRECTIVE_ARG_REMOVED", REST + "directive @d(n: Int) on FIELD", REST + "directive @d on FIELD",
     "Argument @d(n:) was removed."),
    ("REQUIRED_DIRECTIVE_ARG_ADDED", REST + "directive @d on FIELD", REST + "directive @d(n: Int!) on FIELD",
     "A required argument @d(n:) was added."),
    ("DIRECTIVE_REPEATABLE_REMOVED", REST + "directive @d repeatable on FIELD",
     REST + "directive @d on FIELD", "Repeatable flag was removed from @d."),
    ("DIRECTIVE_LOCATION_REMOVED", REST + "directive @d on FIELD | QUERY", REST + "directive @d on FIELD",
     "QUERY was removed from @d."),
    ("VALUE_ADDED_TO_ENUM", "enum E { A } type Query { a: [E!] }", "enum E { A B } type Query { a: [E!] }",
     "Enum value E.B was added."),
    ("TYPE_ADDED_TO_UNION", REST + "type S { a: Int } type T { a: Int } union U = S",
     REST + "type S { a: Int } type T { a: Int } union U = S | T", "T was added to union type U."),
    ("IMPLEMENTED_INTERFACE_ADDED", REST + "interface N { a: Int } type T { a: Int }",
     REST + "interface N { a: Int } type T implements N { a: Int }",
     "N added to interfaces implemented by T."),
    ("ARG_DEFAULT_VALUE_CHANGE", "type Query { a(n: Int = 1): Int }", "type Query { a(n: Int = 2): Int }",
     "Query.a(n:) has changed defaultValue from 1 to 2."),
    ("ARG_DEFAULT_VALUE_CHANGE", "type Query { a(n: Int! = 1): Int }", "type Query { a(n: Int!): Int }",
     "Query.a(n:) defaultValue was removed."),
    ("INPUT_FIELD_DEFAULT_VALUE_CHANGE", REST + "input I { a: Boolean! = true }",
     REST + "input I { a: Boolean! = false }", "I.a has changed defaultValue from true to false."),
    ("INPUT_FIELD_DEFAULT_VALUE_CHANGE", REST + "input I { a: Int = 1 }", REST + "input I { a: Int }",
     "I.a defaultValue was removed."),
    ("ARG_DEFAULT_VALUE_ADDED", "type Query { a(n: Int): Int }", "type Query { a(n: Int = 1): Int }",
     "Query.a(n:) added a defaultValue 1."),
    ("ARG_DEFAULT_VALUE_ADDED", REST + "directive @d(n: Int) on FIELD",
     REST + "directive @d(n: Int = null) on FIELD", "@d(n:) added a defaultValue null."),
    ("INPUT_FIELD_DEFAULT_VALUE_ADDED", REST + "input I { a: Boolean }",
     REST + "input I { a: Boolean = true }", "I.a added a defaultValue true."),
]  # fmt: skip
HARMLESS = [
    ("type Query { a: Int }", 'type Query { "An a." a: Int }'),
    ("type Query { a: Int }", "type Query { a: Int! b: Int }"),
    ("type Query { a: Int }", "type Query { a: Int @deprecated }"),
    ("type Query { a: Int }", "type Query { a(n: Int, m: Int! = 1): Int }"),
    (REST + "input I { a: Int! }", REST + "input I { a: Int b: Int c: Int! = 1 }"),
    ("type Query { a(n: Int!): Int }", "type Query { a(n: Int! = 1): Int }"),
    (REST + "input I { a: Int! }", REST + "input I { a: Int! = 1 }"),
    (REST + "directive @d(n: Int!) on FIELD", REST + "directive @d(n: Int! = 1) on FIELD"),
    (
        "schema { query: Q } type Q { a: Int }",
        "schema { query: Q mutation: M } type Q { a: Int } type M { a: Int }",
    ),
    ("enum E { A } type Query { a(e: E): Int }", "enum E { A B } type Query { a(e: E): Int }"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository that promises one field."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / schema_changes.SCHEMA).write_text('"The root." type Query { a: Int b: Int }')
    promise(tmp_path, "type Query { a: Int b: Int }")
    changelog(tmp_path, "")
    assert check(tmp_path) == []
    return tmp_path


def promise(root: Path, schema: str) -> None:
    """As if this had been accepted."""
    text = bare(schema)
    mark = f"{schema_changes.MARK}{schema_changes._digest(text)}\n"
    (root / schema_changes.PROMISED).write_text(mark + text)


def changelog(root: Path, newest: str, older: str = "") -> None:
    """A README with this said of the newest version, and that of the one before."""
    section = f"{schema_changes.CHANGELOG}\n\n### 0.2\n\n{newest}\n\n### 0.1\n\n{older}"
    (root / "README.md").write_text(f"# R\n\n## A\n\n### 9\n\n{section}\n\n## Z\n")


@pytest.mark.parametrize(("kind", "before", "after", "sentence"), BREAKING)
def test_a_breaking_change_is_seen_and_passes_once_declared(
    root: Path, kind: str, before: str, after: str, sentence: str
) -> None:
    promise(root, before)
    (root / "schema.graphql").write_text(after)
    assert f"- {sentence}" in check(root)
    refused = (root / schema_changes.PROMISED).read_text()
    assert accept(root) == check(root)
    assert (root / schema_changes.PROMISED).read_text() == refused

    changelog(root, "\n".join(f"- Breaking: `{said}` Do that." for said in breaking(before, after)))

    assert accept(root) == []
    assert check(root) == []


def breaking(before: str, after: str) -> list[str]:
    return breaking_changes(build_schema(before), build_schema(after))


def test_every_kind_of_breaking_change_is_in_the_table() -> None:
    kinds = {kind for kind, *_ in BREAKING}
    assert {kind.name for kind in BreakingChangeType} <= kinds
    harmless = {DangerousChangeType.OPTIONAL_ARG_ADDED, DangerousChangeType.OPTIONAL_INPUT_FIELD_ADDED}
    assert {kind.name for kind in {*DangerousChangeType} - harmless} <= kinds
    assert {kind.name for kind in ALSO_BREAKING} <= kinds
    for kind, before, after, _ in BREAKING:
        changes = find_schema_changes(build_schema(before), build_schema(after))
        assert kind in {change.type.name for change in changes}


@pytest.mark.parametrize(("before", "after"), HARMLESS)
def test_what_breaks_no_client_needs_no_word(root: Path, before: str, after: str) -> None:
    promise(root, before)
    (root / "schema.graphql").write_text(after)
    assert breaking(before, after) == []
    assert accept(root) == []
    assert check(root) == []


def test_an_input_that_begins_to_take_one_of_its_fields_breaks() -> None:
    before, after = REST + "input I { a: Int b: Int }", REST + "input I @oneOf { a: Int b: Int }"
    assert breaking(before, after) == ["Input I takes exactly one field now."]


ROOTS = (
    "schema {{ query: Query {} }} type Query {{ a: Int }} type Mutation {{ a: Int }} type Other {{ a: Int }}"
)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ("", "The operation mutation was removed."),
        ("mutation: Other", "The operation mutation changed its type from Mutation to Other."),
    ],
)
def test_a_root_operation_that_goes_breaks_though_its_type_stays(now: str, sentence: str) -> None:
    assert breaking(ROOTS.format("mutation: Mutation"), ROOTS.format(now)) == [sentence]


def test_what_was_added_has_to_be_promised_and_then_cannot_go_silently(root: Path) -> None:
    (root / "schema.graphql").write_text("type Query { a: Int b: Int c: Int }")
    assert check(root) == [
        "scripts/promised.graphql lacks what changed in schema.graphql. Fix: scripts/export-schema"
    ]
    assert accept(root) == []
    (root / "schema.graphql").write_text("type Query { a: Int b: Int }")
    assert "- Field Query.c was removed." in check(root)


def test_a_declaration_of_an_older_version_does_not_count_again(root: Path) -> None:
    (root / "schema.graphql").write_text("type Query { a: Int }")
    changelog(root, newest="Nothing breaks.", older="- Field Query.b was removed.")
    assert "- Field Query.b was removed." in check(root)
    changelog(root, newest="- Field Query.b\n  was removed. Ask for `a`.")
    assert accept(root) == []


SENTENCE = "Field Query.b was removed."


@pytest.mark.parametrize(
    ("said", "declares"),
    [
        (f"- {SENTENCE}", True),
        (f"* Breaking: `{SENTENCE}` Ask for `a`.", True),
        (f"- Another.\n\n- {SENTENCE}\n- And another.", True),
        (f"- Another:\n  - {SENTENCE}", True),
        ("- Field\n  Query.b\n  was removed.", True),
        (SENTENCE, False),
        (f"Not true that {SENTENCE}", False),
        (f"- Not true that {SENTENCE}", False),
        (f"- X{SENTENCE}", False),
        (f"- {SENTENCE}.", False),
        (f"- {SENTENCE[:-1]} soon.", False),
        (f"<!-- - {SENTENCE} -->", False),
        (f"<!--\n- {SENTENCE}\n-->", False),
        (f"<!--\n- {SENTENCE}\n", False),
        ("- Field Query.b\n\nwas removed.", False),
        ("- Field Query.b\n- was removed.", False),
    ],
)
def test_only_a_list_item_declares(root: Path, said: str, declares: bool) -> None:
    (root / "schema.graphql").write_text("type Query { a: Int }")
    changelog(root, said)
    assert (accept(root) == []) is declares


@pytest.mark.parametrize("before", ["", "\n", "What changed.\n", "\nWhat changed.\n\n"])
def test_the_newest_version_is_the_first_whatever_stands_before_it(before: str) -> None:
    readme = f"# R\n{schema_changes.CHANGELOG}\n{before}### 0.2\n- new\n### 0.1\n- old\n## Z\n- other\n"
    assert schema_changes.newest_changes(readme) == ["new"]


def test_a_name_replaced_in_every_file_is_seen(root: Path) -> None:
    for file in (root / "schema.graphql", root / schema_changes.PROMISED):
        file.write_text(file.read_text().replace("b: Int", "c: Int"))
    (said,) = check(root)
    assert said.startswith("scripts/promised.graphql was edited by hand.")
    assert accept(root) == [said]

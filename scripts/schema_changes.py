"""Keeps schema.graphql from breaking its clients without saying so.

    schema_changes.py check     fails for a breaking change that the README's changelog does not declare
    schema_changes.py accept    takes schema.graphql as what is promised from now on, unless check would fail

scripts/promised.graphql is the API as it was last accepted, without descriptions. It stands in the
repository, so that any clone can tell, however shallow. Every change passes through `accept`, so that what
was added yesterday is promised today. It carries its own digest, so that renaming something in all files
does not rename it there.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphql import (
    BreakingChangeType,
    DangerousChangeType,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Node,
    OperationType,
    SafeChangeType,
    Visitor,
    build_schema,
    find_schema_changes,
    get_named_type,
    is_required_argument,
    is_required_input_field,
    parse,
    print_ast,
    visit,
)

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "schema.graphql"
PROMISED = "scripts/promised.graphql"
CHANGELOG = "## Changelog of the API"
MARK = "# Written by scripts/export-schema, never by hand. sha256 of the rest: "

# Of what graphql-core calls dangerous, or even safe. A client that leaves an argument or field out is served
# differently; a generated one fails on an answer of a type it does not know. New optional arguments and
# fields harm nobody.
ALSO_BREAKING = {
    DangerousChangeType.ARG_DEFAULT_VALUE_CHANGE,
    DangerousChangeType.INPUT_FIELD_DEFAULT_VALUE_CHANGE,
    DangerousChangeType.TYPE_ADDED_TO_UNION,
    DangerousChangeType.IMPLEMENTED_INTERFACE_ADDED,
    SafeChangeType.ARG_DEFAULT_VALUE_ADDED,
    SafeChangeType.INPUT_FIELD_DEFAULT_VALUE_ADDED,
}
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
ITEM = re.compile(r"\s*[-*+] +(?:Breaking: +)?")


def breaking_changes(before: GraphQLSchema, after: GraphQLSchema) -> list[str]:
    """A sentence for each change that can break a client which was generated from `before`."""
    found = [
        change.description
        for change in find_schema_changes(before, after)
        if isinstance(change.type, BreakingChangeType) or change.type in ALSO_BREAKING
    ]
    harmless = tuple(f"{place} added a defaultValue " for place in _required(before))
    found = [sentence for sentence in found if not sentence.startswith(harmless)]
    return sorted(
        {*found, *_lost_roots(before, after), *_new_values(before, after), *_new_choices(before, after)}
    )


def _required(schema: GraphQLSchema) -> Iterator[str]:
    """Arguments and input fields that no client can leave out: a default of theirs changes nothing."""
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLInputObjectType):
            yield from (
                f"{kind}.{name}" for name, each in kind.fields.items() if is_required_input_field(each)
            )
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, each in kind.fields.items():
                yield from _required_of(f"{kind}.{field}", each.args)
    for directive in schema.directives:
        yield from _required_of(f"@{directive.name}", directive.args)


def _required_of(owner: str, arguments: dict[str, GraphQLArgument]) -> Iterator[str]:
    return (f"{owner}({name}:)" for name, each in arguments.items() if is_required_argument(each))


def _lost_roots(before: GraphQLSchema, after: GraphQLSchema) -> Iterator[str]:
    """Operations that nobody can ask for any more, though the type of their fields may still be there."""
    for operation in OperationType:
        was, now = before.get_root_type(operation), after.get_root_type(operation)
        if was is not None and now is None:
            yield f"The operation {operation.value} was removed."
        elif was is not None and now is not None and was.name != now.name:
            yield f"The operation {operation.value} changed its type from {was} to {now}."


def _new_values(before: GraphQLSchema, after: GraphQLSchema) -> Iterator[str]:
    """Values of enums that are answered: a generated client knows those of its day."""
    for kind in _answered_enums(before):
        now = after.get_type(kind.name)
        if isinstance(now, GraphQLEnumType):
            for value in {*now.values} - {*kind.values}:
                yield f"Enum value {kind.name}.{value} was added."


def _answered_enums(schema: GraphQLSchema) -> set[GraphQLEnumType]:
    fields = (
        field
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__")
        for field in kind.fields.values()
    )
    kinds = (get_named_type(field.type) for field in fields)
    return {kind for kind in kinds if isinstance(kind, GraphQLEnumType)}


def _new_choices(before: GraphQLSchema, after: GraphQLSchema) -> Iterator[str]:
    """Inputs that take one field now where they took several; graphql-core does not look at that."""
    for name, kind in before.type_map.items():
        now = after.get_type(name)
        if isinstance(now, GraphQLInputObjectType) and now.is_one_of and not getattr(kind, "is_one_of", True):
            yield f"Input {name} takes exactly one field now."


def check(root: Path = ROOT) -> list[str]:
    """What has to be done before this schema may land; empty where nothing has to."""
    text = (root / PROMISED).read_text()
    first, _, promised = text.partition("\n")
    if first != MARK + _digest(promised):
        return [f"{PROMISED} was edited by hand. Fix: git checkout {PROMISED}; then scripts/export-schema"]
    schema = (root / SCHEMA).read_text()
    declared = newest_changes((root / "README.md").read_text())
    found = breaking_changes(build_schema(promised), build_schema(schema))
    missing = [sentence for sentence in found if not _declares(declared, _plain(sentence))]
    if missing:
        return [
            f'{SCHEMA} breaks clients, and the newest part of "{CHANGELOG}" in README.md does not say so.',
            "Fix: keep what was there, deprecated, beside what is new; or declare it there in these words:",
            *(f"- {sentence}" for sentence in missing),
        ]
    if bare(schema) != promised:
        return [f"{PROMISED} lacks what changed in {SCHEMA}. Fix: scripts/export-schema"]
    return []


def accept(root: Path = ROOT) -> list[str]:
    """Promises what schema.graphql says. Returns what has to be done first; then nothing was written."""
    schema = bare((root / SCHEMA).read_text())
    undone = check(root)
    if undone and not undone[0].startswith(f"{PROMISED} lacks"):
        return undone
    (root / PROMISED).write_text(f"{MARK}{_digest(schema)}\n{schema}")
    return []


def newest_changes(readme: str) -> list[str]:
    """The list items of the newest version's part of the changelog, each as plain text on one line; older
    versions declare nothing."""
    section = readme.partition(f"\n{CHANGELOG}\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### ", COMMENT.sub("", section), flags=re.MULTILINE)[1:2]
    items: list[str] = []
    within = False
    for line in "".join(parts).splitlines()[1:]:
        if bullet := ITEM.match(line):
            items.append(line[bullet.end() :])
        elif within and line.strip():
            items[-1] += f" {line}"
        within = bool(bullet or (within and line.strip()))
    return [_plain(item) for item in items]


def _declares(items: list[str], sentence: str) -> bool:
    """Whether an item is this sentence, or begins with it and goes on to say what to do."""
    return any(f"{item} ".startswith(f"{sentence} ") for item in items)


def bare(schema: str) -> str:
    """The schema without descriptions, which break nobody."""

    class Undescribed(Visitor):
        def leave(self, node: Any, *_: object) -> Node | None:
            described = getattr(node, "description", None) is not None
            return replace(node, description=None) if described else None

    return print_ast(visit(parse(schema, no_location=True), Undescribed())) + "\n"


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> int:
    """Does what its one argument says; tells what is wrong."""
    undone = {"check": check, "accept": accept}[sys.argv[1]]()
    print(*undone, sep="\n", end="\n" if undone else "")
    return 1 if undone else 0


if __name__ == "__main__":
    raise SystemExit(main())

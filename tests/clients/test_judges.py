"""Others' linters and generators accept schema.graphql with the operations of a dashboard."""

import json
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    FieldNode,
    OperationDefinitionNode,
    build_schema,
    is_interface_type,
    is_introspection_type,
    is_object_type,
    parse,
)

from tests.clients.conftest import ROOT, Python, TypeScript, laid_out
from tests.clients.tools import HERE, Failed, Tools

SCHEMA = build_schema((ROOT / "schema.graphql").read_text())

# Parts of one thing, cached with it, without an id (that of a ChannelTemplate is a text). An Apollo cache
# replaces such a part as a whole: whoever asks for it asks for the same fields of it everywhere.
VALUES = {
    "ChannelTemplate",
    "MemberTemplate",
    "MessagePreview",
    "MessageTemplate",
    "ReasonCount",
    "RecipientExplanation",
    "SystemHealth",
    "TestResult",
    "Usage",
    "UserError",
    "Viewer",
    "WorkerHealth",
}
ANSWERS = ("Connection", "Edge", "Payload", "PageInfo", "CampaignChange", "Query", "Mutation", "Subscription")


def judged(tools: Tools, directory: Path) -> list[tuple[str, str]]:
    """File and rule of everything that graphql-eslint has to say."""
    files = ("schema.graphql", "operations.graphql")
    try:
        said = tools.npm_tool("eslint", "--format", "json", *files, cwd=directory)
    except Failed as failure:
        said = str(failure).partition("\n")[2]
    found: list[dict[str, Any]] = json.loads(said[said.index("[") :])
    assert {Path(file["filePath"]).name for file in found} == set(files)
    return [
        (Path(file["filePath"]).name, f"{message['ruleId']} {message.get('line')}: {message['message']}")
        for file in found
        for message in file["messages"]
    ]


@pytest.fixture
def linted(tools: Tools, tmp_path: Path) -> Path:
    """A directory to lint in."""
    return tools.lend_modules(laid_out(tmp_path, "lint"))


def test_the_linter_finds_nothing(tools: Tools, linted: Path) -> None:
    assert judged(tools, linted) == []


def test_the_linter_finds_what_is_wrong(tools: Tools, linted: Path) -> None:
    harm(linted / "schema.graphql", '"""Where it stands."""', "")
    harm(linted / "schema.graphql", "SCHEDULED_FOR", "scheduledFor")
    harm(linted / "schema.graphql", "hasNextPage: Boolean!", "hasNextPage: Boolean")
    harm(linted / "operations.graphql", "  id\n  userId", "  userId")
    found = {(file, said.split()[0].removeprefix("@graphql-eslint/")) for file, said in judged(tools, linted)}
    assert found == {
        ("schema.graphql", "require-description"),
        ("schema.graphql", "naming-convention"),
        ("schema.graphql", "relay-page-info"),
        ("operations.graphql", "require-selections"),
    }


def harm(file: Path, right: str, wrong: str) -> None:
    """Puts something wrong in the place of something right."""
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))


def test_the_operations_use_everything_that_can_be_asked() -> None:
    asked: dict[str, set[str]] = {}
    for operation in parse((HERE / "operations.graphql").read_text()).definitions:
        if isinstance(operation, OperationDefinitionNode):
            fields = (field for field in operation.selection_set.selections if isinstance(field, FieldNode))
            asked.setdefault(operation.operation.value, set()).update(field.name.value for field in fields)
    roots = {
        "query": SCHEMA.query_type,
        "mutation": SCHEMA.mutation_type,
        "subscription": SCHEMA.subscription_type,
    }
    unused = {kind: sorted({*root.fields} - asked[kind]) for kind, root in roots.items() if root is not None}
    # nodes does what node does, and is asked.
    assert unused == {"query": ["node"], "mutation": [], "subscription": []}, (
        "tests/clients/operations.graphql"
    )


def test_the_python_client_is_strictly_typed(python: Python) -> None:
    assert "Success: no issues found" in python.check("carillon_client", "story.py")


def test_the_python_client_refuses_what_the_schema_does_not_have(python: Python) -> None:
    (python.directory / "wrong.py").write_text(
        "from carillon_client import StartCampaignInput\n"
        "StartCampaignInput(campaign=1)\nStartCampaignInput(campaign_id=1)\n"
    )
    with pytest.raises(Failed, match=r"wrong\.py:3: error"):
        python.check("wrong.py")


def test_the_typescript_client_is_strictly_typed(typescript: TypeScript) -> None:
    assert (typescript.directory / "built" / "story.js").exists()


def test_the_typescript_client_refuses_what_the_schema_does_not_have(typescript: TypeScript) -> None:
    wrong = typescript.directory / "wrong.ts"
    wrong.write_text(
        "import type { StartCampaignInput } from './generated/graphql';\n"
        "export const input: StartCampaignInput = { campaignId: 1 };\n"
    )
    try:
        with pytest.raises(Failed, match=r"wrong\.ts\(2,"):
            typescript.build()
    finally:
        wrong.unlink()


def test_relay_accepts_fragments_pages_and_updates(tools: Tools, tmp_path: Path) -> None:
    directory = tools.lend_modules(laid_out(tmp_path, "relay"))
    assert "Compilation completed" in tools.npm_tool("relay-compiler", "relay.config.json", cwd=directory)
    made = {path.name for path in (directory / "__generated__").iterdir()}
    assert {"CampaignScreenLedgerPage.graphql.ts", "CampaignsScreenSubscription.graphql.ts"} <= made


def test_what_is_cached_by_itself_has_an_id() -> None:
    without = {
        name
        for name, kind in SCHEMA.type_map.items()
        if (is_object_type(kind) or is_interface_type(kind)) and not is_introspection_type(kind)
        if ("id" not in kind.fields or name == "ChannelTemplate") and not name.endswith(ANSWERS)
    }
    assert without == VALUES

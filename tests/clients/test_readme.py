"""The README's section on generated clients, as it stands there: its files are made, its commands are run."""

import re
import shutil
from pathlib import Path

import pytest

from tests.acceptance.instances import Carillon
from tests.clients.conftest import ROOT
from tests.clients.tools import NODE, Tools, said

SECTION = (ROOT / "README.md").read_text().partition("\n## Generated clients\n")[2].partition("\n## ")[0]
READERS = ("anna", "rex")


def block(language: str) -> str:
    """The one code block in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    return str(found)


def commands(name: str) -> list[str]:
    """The lines of the shell block that has this word, without those of pip and npm: tests have locks."""
    (found,) = (
        text for text in re.findall(r"^```sh\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE) if name in text
    )
    return [line for line in found.splitlines() if not re.match(r"(pip|npm) ", line)]


@pytest.fixture
async def news(server: Carillon) -> Carillon:
    """A running server with the draft of a campaign: two receivers, and one who is deactivated."""
    server.start()
    users = [{"userId": name} for name in ("shop", *READERS)] + [{"userId": "zoe", "deactivated": True}]
    await server.graphql(
        "mutation ($input: UpsertUsersInput!) { upsertUsers(input: $input) { errors { message } } }",
        {"input": {"users": users}},
    )
    draft = {
        "campaignId": "news",
        "senderId": "shop",
        "userIds": [*READERS, "zoe"],
        "messageTemplate": {"text": "Hello"},
        "channelTemplate": {"type": "messaging"},
        "createChannels": True,
    }
    await server.graphql(
        "mutation ($input: CreateCampaignInput!) { createCampaign(input: $input) { errors { message } } }",
        {"input": draft},
    )
    return server


def run(tools: Tools, directory: Path, server: Carillon, name: str) -> str:
    """What a shell block's commands write, the campaign's name put in."""
    shutil.copy(ROOT / "schema.graphql", directory)
    (directory / "operations.graphql").write_text(block("graphql"))
    path = f"{tools.python.parent}:{tools.modules / '.bin'}:{NODE.parent}"
    lines = [re.sub(r"news-\d", "news", line).removeprefix("npx ") for line in commands(name)]
    script = "\n".join(["set -eu", f'PATH="{path}:$PATH"', *lines])
    return said(["bash", "-c", script], directory, {"CARILLON": server.url, "KEY": server.admin_key})


def test_the_python_client_works_as_described(tools: Tools, tmp_path: Path, news: Carillon) -> None:
    (tmp_path / "pyproject.toml").write_text(block("toml"))
    (tmp_path / "send.py").write_text(block("python"))

    told = run(tools, tmp_path, news, "ariadne-codegen").splitlines()

    watched = [line for line in told if re.fullmatch(r"[A-Z_]+ \d+", line)]
    assert watched[-1] == f"COMPLETED {len(READERS)}"
    assert "errors=[]" in told[told.index(watched[0]) - 1]
    assert "target_id='zoe', reason=<OutcomeReason.USER_DEACTIVATED" in told[-1]


def test_the_typescript_client_works_as_described(tools: Tools, tmp_path: Path, news: Carillon) -> None:
    tools.lend_modules(tmp_path)
    (tmp_path / "codegen.json").write_text(block("json"))
    (tmp_path / "send.ts").write_text(block("ts"))

    told = run(tools, tmp_path, news, "graphql-codegen")

    watched = re.findall(r"^[A-Z_]+ \d+$", told, re.MULTILINE)
    assert watched[-1] == f"COMPLETED {len(READERS)}"
    assert "errors: []" in told
    last = told[told.index(watched[-1]) :]
    assert "targetId: 'zoe'" in last and "reason: 'USER_DEACTIVATED'" in last

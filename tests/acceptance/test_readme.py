"""The README's examples, run as they stand there, one after the other, against a running instance."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.instances import PROGRAM, Carillon

ROOT = Path(__file__).parents[2]
SECTIONS = [
    "A first campaign by curl",
    "Where your users see the message",
    "Channels as targets",
    "Before you send, and afterwards",
    "Message templates",
    "The filter language",
    "Importing users",
    "The API by example",
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "the end of an example"
# The reader waits a second, which is enough on a machine that does nothing else.
ENDED = """until graphql '{"query": "{ campaigns(filter: {status: {eq: IN_PROGRESS}}) { totalCount } }"}' |
  grep -q '"totalCount":0'; do sleep 0.1; done"""
# What is different each time: ids, cursors, instants; and of what is watched, all but the last.
DIFFERENT = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r'"(start|end)Cursor":"[^"]+"'), r'"\1Cursor":"CURSOR"'),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)"), "WHEN"),
    (re.compile(r"(\{'status': 'IN_PROGRESS'.*\n)+"), ""),
]


@dataclass(frozen=True)
class Example:
    """Commands and what they write; or a file to be saved."""

    text: str
    writes: str | None = None
    file: str | None = None


def examples() -> Iterator[Example]:
    """Every example of these sections, in their order."""
    readme = (ROOT / "README.md").read_text()
    for title in SECTIONS:
        section = readme.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
        blocks = list(FENCED.finditer(section))
        for place, block in enumerate(blocks):
            after = blocks[place + 1] if place + 1 < len(blocks) else None
            if block[1] == "sh":
                yield Example(block[2], after[2] if after and not after[1] else None)
            elif block[1] == "python":
                named = re.findall(r"Save this as `([\w.]+)`", section[: block.start()])
                yield Example(block[2], file=named[-1])


class Shell:
    """One bash, as somebody who follows the README has it open all the time."""

    def __init__(self, server: Carillon, place: Path) -> None:
        (place / ".venv").symlink_to(Path(PROGRAM).parent.parent)
        self._place = place
        self._server = server
        self._cursor = ""
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=place,
            env=server.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def follow(self, example: Example) -> str:
        """Runs or saves an example; gives what was written."""
        if example.file:
            (self._place / example.file).write_text(example.text)
            return ""
        text = example.text.replace("http://127.0.0.1:8000", self._server.url)
        text = text.replace("car_...", self._server.admin_key).replace("ENDCURSOR", self._cursor)
        text = text.replace("\nsleep 1\n", f"\n{ENDED}\n")
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f"{text}\necho; echo '{END}'\n")
        self._bash.stdin.flush()
        written = "".join(iter(self._bash.stdout.readline, f"{END}\n"))
        cursors = re.findall(r'"endCursor":"([^"]+)"', written)
        self._cursor = cursors[-1] if cursors else self._cursor
        return written

    def close(self) -> None:
        """Ends it."""
        self._bash.kill()
        self._bash.communicate()


@pytest.fixture
def shell(server: Carillon, tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty directory, beside a running instance."""
    server.start()
    place = tmp_path / "reader"
    place.mkdir()
    shell = Shell(server, place)
    yield shell
    shell.close()


def told(text: str) -> str:
    """What stays the same each time."""
    for different, same in DIFFERENT:
        text = different.sub(same, text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip()


def test_every_example_writes_what_the_readme_says(shell: Shell) -> None:
    followed = 0
    for example in examples():
        written = shell.follow(example)
        if example.writes is not None:
            assert told(written) == told(example.writes), f"{example.text}\n{written}"
            followed += 1
    assert followed > 20

"""A running Carillon, and the programs of the protocols' authors that judge it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import npm
from tests.acceptance.instances import Carillon

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Judges:
    """Programs for Node, in a directory with the packages they import, and whom they speak to."""

    directory: Path
    server: Carillon

    @property
    def environment(self) -> dict[str, str]:
        """What they have to know."""
        return {"CARILLON": self.server.url, "KEY": self.server.admin_key}

    def command(self, program: str, *arguments: str) -> list[str | Path]:
        """What starts one."""
        return [npm.NODE, self.directory / program, *arguments]

    def found(self, program: str, *arguments: str) -> dict[str, str]:
        """What one writes: how each of its tests failed, or "", by its name."""
        said = npm.said(self.command(program, *arguments), self.directory, self.environment, 120)
        found: dict[str, str] = dict(map(json.loads, said.splitlines()))
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carillon]:
    """A whole Carillon on SQLite."""
    server = Carillon(tmp_path_factory.mktemp("protocols") / "data")
    try:
        server.start()
        yield server
    finally:
        server.kill_everything()


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory, running: Carillon) -> Judges:
    """The programs, with the packages of the lock."""
    directory = tmp_path_factory.mktemp("judges")
    for program in HERE.glob("*.mjs"):
        shutil.copy(program, directory)
    npm.lend(npm.packages(HERE, "protocols"), directory)
    return Judges(directory, running)

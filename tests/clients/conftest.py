"""Clients that others' generators make of schema.graphql and operations.graphql; instances to speak to."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import instances, server, server_on_both
from tests.acceptance.instances import Carillon
from tests.clients.tools import HERE, Tools, installed

__all__ = ["instances", "server", "server_on_both"]  # fixtures, for the tests beside this file

ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Python:
    """A directory with a generated package `carillon_client`, and programs that use it."""

    tools: Tools
    directory: Path

    def check(self, *what: str) -> str:
        """What mypy says of programs and packages, strictly. Raises `Failed` for a mistake."""
        return self.tools.python_tool("mypy", "--config-file", "mypy.ini", *what, cwd=self.directory)

    def run(self, program: str, server: Carillon, *arguments: str) -> str:
        """What a program writes that speaks to this server."""
        return self.tools.python_tool(
            "python",
            f"{program}.py",
            *arguments,
            cwd=self.directory,
            CARILLON=server.url,
            KEY=server.admin_key,
        )


@dataclass(frozen=True)
class TypeScript:
    """A directory with generated documents and types, and programs that use them."""

    tools: Tools
    directory: Path

    def build(self) -> str:
        """What tsc says of all programs, strictly; makes JavaScript of them. Raises `Failed` for mistakes."""
        return self.tools.npm_tool("tsc", "-p", "tsconfig.json", cwd=self.directory)

    def run(self, program: str, server: Carillon, *arguments: str) -> str:
        """What a program writes that speaks to this server; libraries complain as to developers."""
        return self.tools.node(
            self.directory / "built" / f"{program}.js",
            *arguments,
            cwd=self.directory,
            CARILLON=server.url,
            KEY=server.admin_key,
            NODE_OPTIONS="--conditions=development",
        )


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The generators and judges, installed."""
    return installed()


@pytest.fixture(scope="session")
def python(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """A client made by ariadne-codegen."""
    directory = laid_out(tmp_path_factory.mktemp("clients"), "python")
    tools.python_tool("ariadne-codegen", "client", "--config", "ariadne.toml", cwd=directory)
    return Python(tools, directory)


@pytest.fixture(scope="session")
def typescript(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> TypeScript:
    """A client made by graphql-codegen, compiled."""
    directory = tools.lend_modules(laid_out(tmp_path_factory.mktemp("clients"), "typescript"))
    tools.npm_tool("graphql-codegen", "--config", "codegen.json", cwd=directory)
    made = TypeScript(tools, directory)
    made.build()
    return made


def laid_out(place: Path, name: str) -> Path:
    """A copy of what a client's programs lie in, with the schema and the operations."""
    directory = place / name
    shutil.copytree(HERE / name, directory)
    shutil.copy(ROOT / "schema.graphql", directory)
    shutil.copy(HERE / "operations.graphql", directory)
    return directory

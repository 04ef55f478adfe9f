"""Others' tools that make and check clients: Node's of package-lock.json, Python's of requirements.lock.

They are installed once for each state of their locks, beside the environment of the tests: .venv/clients.
Node itself comes from a wheel, so that the machine needs none.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests import npm
from tests.npm import NODE, TO_INSTALL, Failed, said

__all__ = ["HERE", "NODE", "Failed", "Tools", "installed", "said"]

HERE = Path(__file__).parent
REQUIREMENTS = "requirements.lock"


@dataclass(frozen=True)
class Tools:
    """Where the tools are installed."""

    modules: Path  # node_modules
    python: Path

    def node(self, script: Path, *arguments: str, cwd: Path, **environment: str) -> str:
        """What a script for Node writes. Raises `Failed`."""
        return said([NODE, script, *arguments], cwd, environment)

    def npm_tool(self, name: str, *arguments: str, cwd: Path) -> str:
        """What a program of an npm package writes. Raises `Failed`."""
        return self.node(self.modules / ".bin" / name, *arguments, cwd=cwd)

    def python_tool(self, name: str, *arguments: str, cwd: Path, **environment: str) -> str:
        """What a program of the Python environment writes; `python` is one. Raises `Failed`."""
        return said([self.python.with_name(name), *arguments], cwd, environment)

    def lend_modules(self, directory: Path) -> Path:
        """Makes the npm packages importable for what lies in a directory, and gives it back."""
        return npm.lend(self.modules, directory)


def installed() -> Tools:
    """The tools; installs them first where that has not been done. Takes its turn with other processes."""
    place = npm.environment_of("clients")
    with npm.turn(place):
        node = npm.kept(HERE, npm.PACKAGES, place / "node", lambda new: npm.install_packages(HERE, new))
        python = npm.kept(HERE, (REQUIREMENTS,), place / "python", _install_environment)
    return Tools(node / "node_modules", python / "bin" / "python")


def _install_environment(place: Path) -> None:
    said([sys.executable, "-m", "venv", place], place, {}, TO_INSTALL)
    pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    said([*pip, "install", "--require-hashes", "-r", HERE / REQUIREMENTS], place, {}, TO_INSTALL)

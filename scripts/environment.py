"""Makes .venv from a lock file, unless it is what the lock says already; then becomes a command in it.

    environment.py requirements.lock carillon run

Standard library only. Several of these may run at once: they take turns. SIGINT and SIGTERM end it and the
pip that it started; what is half done is taken up by the next start.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# Installing the second also installs everything of the first.
LOCKS = ("requirements.lock", "requirements-dev.lock")


def main() -> None:
    lock, command, *arguments = sys.argv[1:]
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, interrupted)
    with turn():
        if not is_installed(lock):
            install(lock)
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_DFL)
    os.execv(VENV / "bin" / command, [str(VENV / "bin" / command), *arguments])


def interrupted(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def turn() -> Iterator[None]:
    """One process at a time changes the environment; the repository's directory itself is the lock."""
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is installing; waiting for it ...")
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def is_installed(lock: str) -> bool:
    """A stamp says from what the environment was made; it is gone while that is being changed."""
    try:
        return stamp(lock).read_text() == fingerprint(lock) and PYTHON.exists()
    except FileNotFoundError:
        return False


def stamp(lock: str) -> Path:
    return VENV / f"{lock}.installed"


def fingerprint(lock: str) -> str:
    """The lock, the project's own description, the Python, and the place (scripts in .venv name it)."""
    parts = [(ROOT / lock).read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    parts += [sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install(lock: str) -> None:
    check_venv_module()
    say(f"Installing what Carillon needs into {VENV} (once; a minute or so) ...")
    for name in LOCKS:
        stamp(name).unlink(missing_ok=True)
    if not has_working_pip():
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(VENV)], "Python could not make a virtual environment.")
    packages = (ROOT / lock).read_text().count("==")
    pip(["install", "--require-hashes", "-r", str(ROOT / lock)], packages)
    pip(["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)], 0)
    for name in LOCKS[: LOCKS.index(lock) + 1]:
        stamp(name).write_text(fingerprint(name))


def check_venv_module() -> None:
    try:
        import ensurepip  # noqa: F401  # Debian leaves it out of python3, venv does not work without it
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(
            f"Python {version} on this machine comes without its module venv.\n"
            f"Fix: sudo apt install python3-venv   (or python{version}-venv)"
        )


def has_working_pip() -> bool:
    """Also whether the environment is of this very Python, which may have been upgraded since."""
    try:
        made_by = subprocess.run(
            [PYTHON, "-c", "import pip, sys; print(sys.version)"], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return made_by.stdout.strip() == sys.version.strip()


def pip(arguments: list[str], packages: int) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    hint = (
        "pip could not install the packages; it says why above.\n"
        "Fix: check the network; behind a proxy set HTTPS_PROXY, for another package index PIP_INDEX_URL. "
        "Then start again: it goes on where it stopped."
    )
    run(command, hint, packages)


def run(command: list[str], hint: str, packages: int = 0) -> None:
    """Runs a command with its progress on one line; shows what it said only when it fails."""
    said = []
    with ended_with_us(command) as process:
        assert process.stdout is not None
        collected = 0
        for line in process.stdout:
            said.append(line)
            if line.startswith("Collecting") and packages:
                collected += 1
                progress(f"  {min(collected, packages)} of {packages}: {line.split()[1].partition('=')[0]}")
            elif line.startswith("Installing collected"):
                progress("  unpacking ...")
    progress("")
    if process.returncode:
        sys.stderr.write("".join(said[-25:]))
        fail(hint)


@contextmanager
def ended_with_us(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def fail(reason: str) -> None:
    say(reason)
    raise SystemExit(1)


if __name__ == "__main__":
    main()

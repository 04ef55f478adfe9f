"""How long a second start of `carillon run` takes until /readyz answers 200."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.instances import free_port

_PROGRAM = Path(sys.executable).with_name("carillon")
_SECONDS_TO_START = 60.0
_SECONDS_TO_STOP = 10.0


def starts(repeat: int) -> list[float]:
    """Seconds from the command to readiness, for `repeat` starts after the first in the same directory."""
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as directory:
        _start_and_stop(Path(directory))
        return [_start_and_stop(Path(directory)) for _ in range(repeat)]


def _start_and_stop(directory: Path) -> float:
    port = free_port()
    began = time.perf_counter()
    with _running(directory, port) as process:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - began > _SECONDS_TO_START:
                raise SystemExit("carillon run does not start; try it by hand")
            time.sleep(0.01)
        return time.perf_counter() - began


@contextmanager
def _running(directory: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    settings = {"CARILLON_DATA_DIR": str(directory / "data"), "CARILLON_PORT": str(port)}
    process = subprocess.Popen(
        [_PROGRAM, "run"],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_SECONDS_TO_STOP)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            ready: bool = answer.status == 200
            return ready
    except OSError:
        return False

"""Worker and deliverer processes as `carillon run` starts them, and what they cost."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from app.child import GO, HEARTBEAT_FILE, NAME
from app.queue import QUEUE

_SECONDS_TO_START = 30.0
_SECONDS_TO_STOP = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


class WorkerFailed(Exception):
    """A worker did not start, died, or did not finish; the message has the end of its log."""


@dataclass
class Worker:
    """A running worker process. `own_peak` is the most of RssAnon that `sample` has seen, in bytes."""

    process: subprocess.Popen[bytes]
    heartbeat: Path
    log: Path
    own_peak: int = 0

    def check(self) -> None:
        """Raises `WorkerFailed` if it has ended."""
        if self.process.poll() is not None:
            raise WorkerFailed(f"a worker ended by itself:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2_000:]

    def sample(self) -> None:
        """Looks at its memory now."""
        self.own_peak = max(self.own_peak, self.own())

    def own(self) -> int:
        """Memory that belongs to it now, in bytes."""
        return self._status("RssAnon")

    def peak(self) -> int:
        """The most memory it ever had resident, file pages that it mapped included, in bytes."""
        return self._status("VmHWM")

    def processor_seconds(self) -> float:
        """Processor time until now, its own and the kernel's for it."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise WorkerFailed(f"the system does not tell {name}:\n{self.last_words()}")


@contextmanager
def running(
    number: int,
    database_url: str,
    redis_url: str,
    directory: Path,
    *,
    role: str = "worker",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Sequence[Worker]]:
    """So many workers on a database, ready to work; they are gone afterwards, and with this process."""
    workers: list[Worker] = []
    try:
        for position in range(number):
            name = f"{role}-{position + 1}"
            workers.append(_start(role, name, database_url, redis_url, directory, settings or {}))
        deadline = time.monotonic() + _SECONDS_TO_START
        while not all(worker.heartbeat.exists() for worker in workers) or (
            role == "worker" and _waits(redis_url)
        ):
            for worker in workers:
                worker.check()
            if time.monotonic() > deadline:
                raise WorkerFailed(f"a worker does not start:\n{workers[-1].last_words()}")
            time.sleep(0.01)
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            _end(worker.process)
            worker.heartbeat.unlink(missing_ok=True)


@contextmanager
def started(
    role: str,
    name: str,
    database_url: str,
    redis_url: str,
    directory: Path,
    settings: Mapping[str, str],
    pass_fds: Sequence[int],
) -> Iterator[Worker]:
    """A process of any role that has begun to start; it is gone afterwards, and with this process."""
    worker = _start(role, name, database_url, redis_url, directory, settings, pass_fds)
    try:
        yield worker
    finally:
        worker.process.terminate()
        _end(worker.process)


def _start(
    role: str,
    name: str,
    database_url: str,
    redis_url: str,
    directory: Path,
    settings: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> Worker:
    directory.mkdir(exist_ok=True)
    heartbeat, log = directory / f"{name}.heartbeat", directory / f"{name}.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CARILLON_")} | {
        "CARILLON_DATABASE_URL": database_url,
        "CARILLON_REDIS_URL": redis_url,
        "CARILLON_DATA_DIR": str(directory),
        HEARTBEAT_FILE: str(heartbeat),
        NAME: name,
        **settings,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.child", role],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
            pass_fds=pass_fds,
        )
    assert process.stdin is not None
    process.stdin.write(GO)
    return Worker(process, heartbeat, log)


def _waits(redis_url: str) -> bool:
    """Whether a ring waits for somebody to hear it."""
    with Redis.from_url(redis_url) as redis:
        return bool(redis.zcard(QUEUE))


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin is not None
    process.stdin.close()

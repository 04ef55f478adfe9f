"""Real processes: a whole Carillon, started, killed and stopped like an operator would."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from app.demo.client import Client
from app.ids import new_uuid

PROGRAM = str(Path(sys.executable).with_name("carillon"))
ADMIN_KEY = "car_acceptance_tests_admin_key"
STOPPED_WITHIN = 5.0  # is promised
PATIENCE = 60.0  # for what a busy machine delays, and no test is about


# Below those that outgoing connections get: one of them could take a free port before its server does.
FIRST_PORT, LAST_PORT = 10_000, 32_000


def free_port() -> int:
    """A port that nobody listens on now."""
    while True:
        port = random.randint(FIRST_PORT, LAST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(seconds: float, what: str, happened: Callable[[], Any]) -> Any:
    """What `happened` gives once that is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return found


class Carillon:
    """One instance: its process, its data directory, and every process that belongs to it."""

    def __init__(
        self, data_dir: Path, *, database_url: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.database_url = database_url or f"sqlite:///{data_dir / 'carillon.db'}"
        self.program = [PROGRAM]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_key = ADMIN_KEY
        self.mark = f"TEST_MARK_OF_CARILLON={new_uuid()}"
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        name, _, value = self.mark.partition("=")
        self.environment = {
            **{key: kept for key, kept in os.environ.items() if not key.startswith("CARILLON_")},
            "CARILLON_DATA_DIR": str(data_dir),
            "CARILLON_PORT": str(self.port),
            "CARILLON_ADMIN_KEY": self.admin_key,
            name: value,
            **({"CARILLON_DATABASE_URL": database_url} if database_url else {}),
            **(environment or {}),
        }

    def launch(self, *arguments: str) -> None:
        """Starts `carillon run` and returns at once."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program, *(arguments or ("run",))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def start(self, seconds: float = PATIENCE) -> None:
        """Starts `carillon run` and waits until it is ready."""
        self.launch()
        self.wait_until_ready(seconds)

    def wait_until_ready(self, seconds: float = PATIENCE) -> None:
        """Waits until /readyz answers 200."""
        assert self.process is not None
        running = self.process

        def ready() -> bool:
            assert running.poll() is None, f"ended with {running.returncode}: {self.log()}"
            return self.is_ready()

        try:
            until(seconds, "ready", ready)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=3) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = PATIENCE) -> int:
        """Sends the signal to the one process and waits for its end; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone, and waits until everything that it started is gone too."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        until(PATIENCE, f"nothing left of {self.data_dir}", lambda: not self.processes())

    def kill_everything(self) -> None:
        """SIGKILL to every process at the same time, as when the machine loses power."""
        for pid in [*([self.process.pid] if self.process else []), *self.processes()]:
            _kill(pid)
        if self.process is not None:
            self.process.wait()
        until(PATIENCE, f"nothing left of {self.data_dir}", lambda: not self.processes())

    def kill_worker(self) -> int:
        """SIGKILL to the first worker; returns its process id."""
        return self._kill_one("app.child worker")

    def kill_deliverer(self) -> int:
        """SIGKILL to the first deliverer; returns its process id."""
        return self._kill_one("app.child deliverer")

    def kill_api(self) -> int:
        """SIGKILL to the API; returns its process id."""
        return self._kill_one("app.child api")

    def kill_valkey(self) -> int:
        """SIGKILL to the embedded queue server; returns its process id."""
        return self._kill_one("valkey-server")

    def pid_of(self, words: str) -> int | None:
        """The first process of this instance whose command line has these words."""
        return next(iter(self.pids_of(words)), None)

    def pids_of(self, words: str) -> list[int]:
        """Every process of this instance whose command line has these words."""
        return [pid for pid, command in self.processes().items() if words in command]

    def _kill_one(self, words: str) -> int:
        pid = self.pid_of(words)
        assert pid is not None, f"no {words} runs: {self.processes()}"
        _kill(pid)
        return pid

    def processes(self) -> dict[int, str]:
        """Every living process of this instance and its command line.

        They are known by a mark in their environment, and Valkey, which writes its title over that, by the
        data directory in its title.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                marked = self.mark.encode() in (entry / "environ").read_bytes().split(b"\0")
                if marked or ("valkey-server" in command and f"{self.data_dir}/" in command):
                    found[int(entry.name)] = command
        return found

    def command(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs `carillon ...` in this instance's environment."""
        done = subprocess.run(
            [*self.program, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def log(self) -> str:
        """What it has written to its terminal."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def shown_key(self) -> str | None:
        """The admin key that the first start printed."""
        found = re.search(r"Admin key \(shown this once\): (\S+)", self.log())
        return found[1] if found else None

    def client(self, key: str | None = None) -> Client:
        """A GraphQL client, the admin's unless another key is given; use it as a context manager."""
        return Client(self.url, key or self.admin_key)

    async def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The data of one operation as the admin; any error fails the test."""
        async with self.client() as client:
            return await client.execute(query, variables)

    async def subscribe(
        self, query: str, variables: Mapping[str, Any] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The data of every event of a subscription as the admin."""
        async with self.client() as client, client.subscription(query, variables) as events:
            async for event in events:
                yield event


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

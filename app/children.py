"""The supervisor's side of its child processes: started, watched, started again when they die."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import structlog

from app import valkey
from app.child import GO, HEARTBEAT_FILE, LISTEN_FD, NAME, PREPARED_FD

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SECONDS_TO_PROVE_ITSELF = 30.0
SECONDS_WITHOUT_ANSWER = 5.0
SECONDS_BETWEEN_PINGS = 1.0
SECONDS_TO_LOAD = 30.0


class Child(ABC):
    """A process that is kept running. `look()` does whatever is due and never waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        self.last_code: int | None = None
        self._pause = 0.0
        self._due = 0.0
        self._started = 0.0

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process, in a session of its own."""

    def _is_stuck(self, now: float) -> bool:
        """Whether it lives and does nothing."""
        return False

    def start(self) -> None:
        """Starts the process now."""
        self._started = time.monotonic()
        self.process = self._spawn()

    def look(self, now: float) -> None:
        """Starts it again if it has died and its pause is over; kills it if it is stuck."""
        if self.process is None:
            if now >= self._due:
                self.start()
        elif (code := self.process.poll()) is not None:
            self._bury(now, code)
        elif self._is_stuck(now):
            log.warning("does not answer; killed", child=self.name, pid=self.process.pid)
            self.kill()

    def _bury(self, now: float, code: int) -> None:
        self.deaths += 1
        self.last_code = code
        proven = now - self._started > SECONDS_TO_PROVE_ITSELF
        self._pause = FIRST_PAUSE if proven or not self._pause else min(2 * self._pause, LONGEST_PAUSE)
        self._due = now + self._pause
        self._close()
        log.warning("died; starting it again", child=self.name, how=_how(code), pause=self._pause)

    def _close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process = None

    def has_ended(self) -> bool:
        """Whether no process is left of it."""
        return self.process is None or self.process.poll() is not None

    def terminate(self) -> None:
        """Asks it to end."""
        if self.process is not None:
            self.process.terminate()

    def reap(self) -> None:
        """Takes note of its end, once it has been killed or has ended."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)

    def kill(self) -> None:
        """Ends it, and whatever it has started."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Program(Child):
    """One of our own programs (see `app.child`), which loads at once and begins after `begin()`."""

    def __init__(
        self,
        role: str,
        name: str,
        environment: Mapping[str, str] | None = None,
        *,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        super().__init__(name)
        self._role = role
        self._environment = {NAME: name, **(environment or {})}
        self._pass_fds = pass_fds
        self._may_begin = False

    def begin(self) -> None:
        """Lets it begin, and every successor of it at once."""
        self._may_begin = True
        self._say_go()

    def _spawn(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603  # nothing in it comes from outside
            [sys.executable, "-P", "-m", "app.child", self._role],
            stdin=subprocess.PIPE,
            env={**os.environ, **self._environment},
            pass_fds=self._pass_fds,
            start_new_session=True,
        )
        self.process = process
        if self._may_begin:
            self._say_go()
        return process

    def _say_go(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has just died
                self.process.stdin.write(GO)
                self.process.stdin.flush()


class Once(Program):
    """A program that does one thing and ends."""

    def look(self, now: float) -> None:
        """It is not started again."""

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self.process is None else self.process.poll()


class Api(Program):
    """The API, on a listening socket of ours. The first to start prepares the database for everybody."""

    def __init__(self, listening: int, environment: Mapping[str, str]) -> None:
        super().__init__("api", "api", {LISTEN_FD: str(listening), **environment}, pass_fds=(listening,))
        self._told: int | None = None
        self._said = b""

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self._may_begin:
            return super()._spawn()
        self._stop_listening()
        self._told, mouth = os.pipe()
        os.set_blocking(self._told, False)
        inherited, environment = self._pass_fds, self._environment
        self._pass_fds = (*inherited, mouth)
        self._environment = {**environment, PREPARED_FD: str(mouth)}
        try:
            return super()._spawn()
        finally:
            os.close(mouth)
            self._pass_fds, self._environment = inherited, environment

    def begin(self) -> None:
        """Lets it serve."""
        self._stop_listening()
        super().begin()

    def _stop_listening(self) -> None:
        if self._told is not None:
            os.close(self._told)
        self._told, self._said = None, b""

    def prepared(self) -> str | None:
        """None until the database is prepared; then the secret of a new admin key, or an empty text."""
        if self._told is not None:
            with contextlib.suppress(BlockingIOError):
                self._said += os.read(self._told, 1024)
        return self._said.decode().rstrip("\n") if self._said.endswith(b"\n") else None


class Worker(Program):
    """A sender (`role` worker) or a deliverer. It touches the heartbeat file every second; one that stopped
    doing so holds locks that everybody waits for."""

    def __init__(self, role: str, name: str, heartbeat: Path, environment: Mapping[str, str]) -> None:
        super().__init__(role, name, {HEARTBEAT_FILE: str(heartbeat), **environment})
        self._heartbeat = heartbeat
        self._last_beat = 0
        self._heard = 0.0

    def begin(self) -> None:
        """Lets it begin; from now on it is expected to show that it lives."""
        self._heard = time.monotonic() + SECONDS_TO_LOAD
        super().begin()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._heartbeat.unlink(missing_ok=True)
        self._last_beat = 0
        self._heard = time.monotonic() + SECONDS_TO_LOAD
        return super()._spawn()

    def _is_stuck(self, now: float) -> bool:
        """Judged by our own clock, so that setting the machine's does no harm."""
        with contextlib.suppress(FileNotFoundError):
            beat = self._heartbeat.stat().st_mtime_ns
            if beat != self._last_beat:
                self._last_beat, self._heard = beat, now
        return self._may_begin and now - self._heard > SECONDS_WITHOUT_ANSWER


class Queue(Child):
    """Our own queue server."""

    def __init__(self, directory: Path) -> None:
        super().__init__("queue")
        self._directory = directory
        self._server: valkey.Server | None = None
        self._has_served = False
        self._answered = 0.0

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self._server is not None and not self._has_served:
            log.warning(
                "queue cannot read its file; starting with an empty one", said=self._server.last_words()
            )
            valkey.set_aside(self._directory)
        self._has_served = False
        self._server = valkey.launch(self._directory)
        return self._server.process

    def reap(self) -> None:
        """Takes note of its end, and leaves nothing behind."""
        super().reap()
        if self._server is not None:
            self._server.tidy()

    def serves(self) -> bool:
        """Whether it answers now."""
        if self._server is not None and self._server.answers():
            self._has_served = True
            self._answered = time.monotonic()
            return True
        return False

    def _is_stuck(self, now: float) -> bool:
        if now - self._answered < SECONDS_BETWEEN_PINGS or self.serves():
            return False
        since = self._answered if self._has_served else self._started + SECONDS_TO_LOAD
        return now - since > SECONDS_WITHOUT_ANSWER


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

"""`carillon run`: one terminal, one process to stop.

It starts our own queue server, the API, workers and deliverers as child processes, starts again whatever
dies, and ends everything when it is told to. It does nothing else: no thread, no event loop, no database.
"""

import contextlib
import http.client
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from app import instance, valkey
from app.children import Api, Child, Once, Program, Queue, Worker
from app.exits import EXPLANATIONS, ExitCode, Stop
from app.settings import Settings

log = structlog.get_logger(__name__)

# All of it within five seconds: first the programs, then the queue server.
SECONDS_TO_END = 3.0
SECONDS_FOR_QUEUE_TO_END = 0.7
SECONDS_UNTIL_WORRIED = 15.0
DEATHS_BEFORE_GIVING_UP = 3
REDIS_URL = "CARILLON_REDIS_URL"


class Signals:
    """The signals that stop us, counted; when the first came, by the monotonic clock; and a wait that any
    signal ends, a child's death too."""

    def __init__(self) -> None:
        self.stops = 0
        self.first = 0.0
        self._ear, self._mouth = socket.socketpair()

    @contextmanager
    def caught(self) -> Iterator["Signals"]:
        """Counts them from now on. Enter it before anything is started that must be ended."""
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        stops = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            stops.append(signal.SIGHUP)
        for stop in stops:
            signal.signal(stop, self._count)
        try:
            yield self
        finally:
            signal.set_wakeup_fd(-1)

    def _count(self, *_: object) -> None:
        self.first = self.first or time.monotonic()
        self.stops += 1

    def wait(self, seconds: float) -> None:
        """Waits for `seconds`, or until a signal comes."""
        if select.select([self._ear], [], [], max(seconds, 0.0))[0]:
            self._ear.recv(4096)


class Supervisor:
    """The processes of one instance, on a port and in a data directory that it alone holds."""

    def __init__(self, settings: Settings, signals: Signals, listening: socket.socket) -> None:
        self._settings = settings
        self._signals = signals
        self._listening = listening
        self._queue = None if settings.redis_url else Queue(valkey.directory_of(settings))
        environment = {REDIS_URL: settings.redis_url or valkey.url_of(valkey.directory_of(settings))}
        self._api = Api(listening.fileno(), environment)
        self._programs = [self._api, *self._workers(environment)]
        self._guests: list[Once] = []
        self._step: Callable[[], None] | None = self._begin_when_prepared
        self._greetings: list[str] = []
        self._worried = time.monotonic() + SECONDS_UNTIL_WORRIED

    def _workers(self, environment: dict[str, str]) -> Iterator[Program]:
        heartbeats = self._settings.data_dir.resolve() / "workers"
        heartbeats.mkdir(mode=0o700, exist_ok=True)
        for role, count in (("worker", self._settings.workers), ("deliverer", self._settings.deliverers)):
            for number in range(1, count + 1):
                name = f"{role}-{number}"
                yield Worker(role, name, heartbeats / f"{name}.heartbeat", environment)

    def invite(self, guest: Once) -> None:
        """A program that begins once everything is ready, and that nothing depends on."""
        self._guests.append(guest)

    def run(self) -> None:
        """Runs until a signal says stop; returns, or raises `Stop`, once no process is left."""
        try:
            self._start()
            while not self._signals.stops:
                self._look_after()
                self._signals.wait(0.05 if self._step else 0.5)
        finally:
            self._end(self._signals.stops)

    def _start(self) -> None:
        if self._queue:
            self._queue.start()
        for program in self._programs:
            program.start()

    def _look_after(self) -> None:
        now = time.monotonic()
        for child in self._kept():
            child.look(now)
        if self._step:
            self._give_up_on_the_hopeless()
            self._step()

    def _kept(self) -> Iterator[Child]:
        if self._queue:
            yield self._queue
        yield from self._programs

    def _give_up_on_the_hopeless(self) -> None:
        for child in self._kept():
            if child.last_code in EXPLANATIONS and child.last_code > ExitCode.FAULT:
                sys.exit(child.last_code)  # it has said why, and trying again will not help
            if child.deaths >= DEATHS_BEFORE_GIVING_UP:
                raise Stop(ExitCode.FAULT, f"The process {child.name} does not start; it says why above.")

    def _begin_when_prepared(self) -> None:
        secret = self._api.prepared()
        if secret is None or (self._queue and not self._queue.serves()):
            return
        for program in self._programs:
            program.begin()
        self._greetings = _greetings(self._settings, secret)
        self._step = self._greet_when_ready

    def _greet_when_ready(self) -> None:
        missing = self._missing()
        if missing is None:
            _say(self._greetings)
            for guest in self._guests:
                guest.start()
                guest.begin()
            self._step = None
        elif time.monotonic() > self._worried:
            log.warning("not ready yet", missing=missing)
            self._worried = time.monotonic() + SECONDS_UNTIL_WORRIED

    def _missing(self) -> str | None:
        """What /readyz still misses; None when everything is there."""
        host, port = self._listening.getsockname()[:2]
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        connection = http.client.HTTPConnection(reached, port, timeout=0.5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return f"the API: {error}"
        finally:
            connection.close()
        return None if answer.status == http.HTTPStatus.OK else body

    def _end(self, told: int) -> None:
        """Ends everything. `told` is how many signals led here; one more, and nothing is waited for.

        The time is counted from the first, which may have come while we asked a child that does not answer.
        """
        if told:
            log.info("stopping")
        self._listening.close()
        programs = [*self._programs, *self._guests]
        self._end_all(programs, told, (self._signals.first if told else time.monotonic()) + SECONDS_TO_END)
        if self._queue:  # last, so that nobody misses it
            self._end_all([self._queue], told, time.monotonic() + SECONDS_FOR_QUEUE_TO_END)

    def _end_all(self, children: Iterable[Child], told: int, deadline: float) -> None:
        """Asks them to end; kills who still lives at the deadline, or at once when told to stop again."""
        children = list(children)
        for child in children:
            child.terminate()
        while not all(child.has_ended() for child in children):
            if self._signals.stops > told or time.monotonic() > deadline:
                break
            self._signals.wait(0.1)
        for child in children:
            child.kill()
        for child in children:
            child.reap()


def run(settings: Settings, *, guests: Iterable[Once] = ()) -> None:
    """Runs an instance in this terminal until SIGINT, SIGTERM or SIGHUP.

    Raises `Stop`, with nothing left running, when the data directory, the port or the queue is not to be
    had, or when a process does not start.
    """
    with Signals().caught() as signals:
        instance.claim(settings.data_dir)
        supervisor = Supervisor(settings, signals, instance.listen(settings.host, settings.port))
        for guest in guests:
            supervisor.invite(guest)
        supervisor.run()


def _greetings(settings: Settings, secret: str) -> list[str]:
    lines = [f"Carillon runs at {settings.address}/graphql. Ctrl-C stops it."]
    if secret:
        lines.append(f"Admin key (shown this once): {secret}")
    elif settings.admin_key is None:
        lines.append("Lost the admin key? Make a new one: carillon keys create --role admin NAME")
    return lines


def _say(lines: list[str]) -> None:
    with contextlib.suppress(OSError):  # nobody reads
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

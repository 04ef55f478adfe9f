"""Many subscribers of one campaign: what they see, how late, and what that costs every process."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from app import valkey
from app.campaigns import service
from app.child import LISTEN_FD
from app.database import Database
from app.keys import service as keys
from app.keys.roles import Role
from app.queue import Doorbell, Job
from scripts.benchmarks import onlooking
from scripts.benchmarks.campaign import CAMPAIGN, definition
from scripts.benchmarks.places import PlaceName, opened
from scripts.benchmarks.working import Worker, WorkerFailed, running, started

STATS = "status stats { asOf planned progress targets pending sent skipped failed messagesSent }"
ONE = f'subscription {{ campaignUpdated(campaignId: "{CAMPAIGN}") {{ campaignId {STATS} }} }}'
ALL = f"""subscription {{ campaignsChanged(campaignIds: ["{CAMPAIGN}"]) {{
  campaign {{ campaignId {STATS} }} }} }}"""
SECONDS_TO_END = 300.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    users: int
    subscribers: Sequence[int]
    sse: bool
    directory: Path | None


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of looking on. `pace`: messages a second, None for all that can be; `stopped`: the part of the
    subscribers that stop reading."""

    label: str
    subscribers: int
    pace: int | None = None
    stopped: float = 0.0
    apis: int = 1
    query: str = ONE


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it. Seconds; bytes of memory that belongs to the API: alone, with everybody connected, the
    most while it was sent, and at the end; processor seconds from start to end."""

    kind: Kind
    campaign_seconds: float
    seen: Mapping[str, Any]
    memory: Sequence[int]
    processor: Mapping[str, float]
    connections: Sequence[int]


class Incomplete(Exception):
    """A subscriber missed what was promised."""


def kinds(plan: Plan) -> list[Kind]:
    """Everything that is measured, for each number of subscribers."""
    slow = max(1, plan.users // 12)
    found = []
    for count in plan.subscribers:
        found += [
            Kind("full speed", count),
            Kind("12 s", count, slow),
            Kind("12 s, a tenth stops reading", count, slow, stopped=0.1),
            Kind("12 s, two API processes", count, slow, apis=2),
            Kind("12 s, campaignsChanged", count, slow, query=ALL),
        ]
    return found


def measure(name: PlaceName, plan: Plan, progress: Progress) -> list[Seen]:
    """Each kind in turn; shows how far it is. Raises `Incomplete` and `WorkerFailed`."""
    task = progress.add_task("", total=len(kinds(plan)))

    def say(what: str) -> None:
        progress.update(task, description=f"{name}: {what}")
        if not progress.console.is_terminal:  # where no bar is drawn before the end
            progress.console.print(f"{name}: {what}", highlight=False)

    with tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True) as made:
        directory = Path(made)
        say(f"a database with {plan.users:,} users")
        queue = valkey.start(directory / "valkey")
        seen = []
        try:
            with opened(name, directory, plan.users) as place:
                for kind in kinds(plan):
                    say(f"{kind.subscribers:,} subscribers, {kind.label}")
                    url = place.fresh()
                    seen.append(asyncio.run(_run(url, queue.url, directory / "w", kind, plan)))
                    place.drop(url)
                    progress.advance(task)
        finally:
            queue.stop()
    _check_same(seen)
    return seen


def _check_same(seen: Sequence[Seen]) -> None:
    """However it was looked at, the campaign has ended the same way."""
    endings = {ending for each in seen for ending in each.seen["endings"]}
    if len(endings) != 1:
        raise Incomplete(f"not everybody saw the same end: {sorted(endings)}")


async def _run(url: str, redis_url: str, directory: Path, kind: Kind, plan: Plan) -> Seen:
    database, doorbell = Database(url), Doorbell(redis_url)
    try:
        secret = await _prepare(database, kind)
        with (
            running(1, url, redis_url, directory) as workers,
            _apis(kind.apis, url, redis_url, directory) as (apis, port),
        ):
            memory = [_own(apis)]
            with _onlookers(kind, port, secret, plan.sse) as onlookers:
                memory.append(_own(apis))
                watched = _Watched(workers, apis, onlookers)
                watched.begin()
                began = time.perf_counter()
                async with database.transaction() as session:
                    await service.start(session, CAMPAIGN, scheduled_for=None, stop_at=None, capacity=None)
                    doorbell.ring_after_commit(session, Job.SEND)
                told = await watched.until_told()
                lasted = time.perf_counter() - began
                seen = Seen(
                    kind=kind,
                    campaign_seconds=lasted,
                    seen=told,
                    memory=[*memory, watched.most, _own(apis)],
                    processor=watched.spent(),
                    connections=[len(os.listdir(f"/proc/{api.process.pid}/fd")) for api in apis],
                )
    finally:
        await doorbell.close()
        await database.close()
    _check(seen)
    return seen


def _check(seen: Seen) -> None:
    readers = seen.kind.subscribers - int(seen.kind.subscribers * seen.kind.stopped)
    if seen.seen["terminal"] != readers:
        raise Incomplete(f"{seen.kind}: {seen.seen['terminal']} of {readers} saw the end")
    if seen.seen["stale"]:
        raise Incomplete(f"{seen.kind}: {seen.seen['stale']} first states are older than the subscription")


async def _prepare(database: Database, kind: Kind) -> str:
    async with database.transaction() as session:
        _, secret = await keys.create(session, "bench", Role.ADMIN)
        await service.create(session, definition(max_messages_per_second=kind.pace))
    return secret


@contextmanager
def _apis(number: int, url: str, redis_url: str, directory: Path) -> Iterator[tuple[Sequence[Worker], int]]:
    """So many API processes behind one address: the kernel deals connections out to them."""
    with ExitStack() as stack:
        port, apis = 0, []
        for position in range(number):
            listening = stack.enter_context(socket.socket())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(("127.0.0.1", port))
            listening.listen(2_048)
            port = listening.getsockname()[1]
            fd = listening.fileno()
            api = started(
                "api", f"api-{position + 1}", url, redis_url, directory, {LISTEN_FD: str(fd)}, (fd,)
            )
            apis.append(stack.enter_context(api))
        for _ in range(20 * number):  # each is dealt to one of them, and answered when that one serves
            _ask(port, apis)
        yield apis, port


def _ask(port: int, apis: Sequence[Worker]) -> None:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30).close()
    except OSError as error:
        raise WorkerFailed(f"an API process does not serve: {error}\n{apis[-1].last_words()}") from None


@contextmanager
def _onlookers(kind: Kind, port: int, secret: str, sse: bool) -> Iterator["subprocess.Popen[str]"]:
    """A process of subscribers, everybody with a first state."""
    asked = onlooking.Asked(
        ports=[port],
        secret=secret,
        count=kind.subscribers,
        stopped=int(kind.subscribers * kind.stopped),
        sse=sse,
        completes=kind.query is ONE,
        query=kind.query,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.onlooking"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        given = {name: getattr(asked, name) for name in asked.__slots__}
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise Incomplete(f"{kind}: not everybody was shown a first state")
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait(10)


@dataclass
class _Watched:
    """The processes at work."""

    workers: Sequence[Worker]
    apis: Sequence[Worker]
    onlookers: "subprocess.Popen[str]"
    most: int = 0

    def begin(self) -> None:
        """From here on processor time counts."""
        self.before = self._processor()

    async def until_told(self) -> dict[str, Any]:
        """What the subscribers tell when they have seen the end; looks at memory meanwhile."""
        assert self.onlookers.stdout is not None
        reading = asyncio.create_task(asyncio.to_thread(self.onlookers.stdout.readline))
        deadline = time.monotonic() + SECONDS_TO_END
        while not (await asyncio.wait({reading}, timeout=0.1))[0]:
            self.most = max(self.most, _own(self.apis))
            for process in (*self.workers, *self.apis):
                process.check()
            if time.monotonic() > deadline:
                self.onlookers.kill()
                await reading
                raise Incomplete("not everybody was told of the end")
        line = reading.result()
        if not line:
            raise Incomplete("the subscribers gave up")
        told: dict[str, Any] = json.loads(line)
        return told

    def spent(self) -> dict[str, float]:
        """Processor seconds of each since it began."""
        return {name: value - self.before[name] for name, value in self._processor().items()}

    def _processor(self) -> dict[str, float]:
        fields = Path(f"/proc/{self.onlookers.pid}/stat").read_text().rpartition(")")[2].split()
        return {
            "api": sum(api.processor_seconds() for api in self.apis),
            "worker": sum(worker.processor_seconds() for worker in self.workers),
            "clients": (int(fields[11]) + int(fields[12])) / TICKS,
        }


def _own(apis: Sequence[Worker]) -> int:
    return sum(api.own() for api in apis)


HEADS = (
    "database",
    "subscribers",
    "campaign",
    "took",
    "updates",
    "p50",
    "p99",
    "max",
    "first p50, p99",
    "processor: API, worker, clients",
    "memory",
    "saw the end",
)


def row(name: PlaceName, seen: Seen) -> list[str]:
    """A line of the table."""
    told = seen.seen
    first, _, most = told["updates"]
    spent = [f"{seen.processor[process]:.1f}" for process in ("api", "worker", "clients")]
    return [
        name,
        f"{seen.kind.subscribers:,}",
        seen.kind.label,
        f"{seen.campaign_seconds:.1f} s",
        f"{first}-{most}",
        *(f"{each * 1_000:.0f} ms" for each in told["latency"]),
        ", ".join(f"{each * 1_000:.0f}" for each in told["first"][:2]) + " ms",
        f"{', '.join(spent)} s",
        f"{', '.join(f'{each / 1_000_000:.0f}' for each in seen.memory)} MB",
        f"all {told['terminal']:,}",
    ]

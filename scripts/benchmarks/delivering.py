"""Measuring webhooks on one kind of database: real workers, a real deliverer, a local receiver."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import valkey
from app.campaigns import service as campaigns
from app.database import Database
from app.queue import Doorbell, Job
from app.settings import load
from app.webhooks import service as webhooks
from scripts.benchmarks import receiving
from scripts.benchmarks.campaign import CAMPAIGN, definition
from scripts.benchmarks.places import Place, PlaceName, opened
from scripts.benchmarks.receiving import Counted, Receiver
from scripts.benchmarks.working import Worker, WorkerFailed, running

Say = Callable[[str], None]

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_WITHOUT_END = 900.0
COMPLETED = "SELECT 1 FROM campaigns WHERE status = 'COMPLETED'"
SETTINGS = {
    "CARILLON_WEBHOOK_ALLOW_HTTP": "true",
    "CARILLON_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "CARILLON_WEBHOOK_TIMEOUT_SECONDS": "5",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """An endpoint on message.new: where it is, and how many events it takes in a post."""

    path: str
    batch_size: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one run measured: `during` is while the campaign was sending, `seconds` until all had arrived."""

    campaign_seconds: float
    seconds: float
    during: int  # events that had arrived when the campaign was completed
    counted: Sequence[Counted]
    peak: int
    own_peak: int
    processor_seconds: float

    def events_a_second(self) -> float:
        """Over the whole run, at the first endpoint."""
        return self.counted[0].events / self.seconds


class Unfaithful(Exception):
    """Something was lost, forged or doubled, so that speed says nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A run: who listens (the first is measured), and how many messages a second the campaign may send."""

    label: str
    listeners: Sequence[Listener] = ()
    pace: int | None = None


NONE = Kind("no endpoint")
BATCHES = Kind("batches of 500", (Listener("/ok/batches", 500),))
SINGLES = Kind("single posts", (Listener("/ok/singles", 1),))
PACED = Kind("single posts, campaign at 5,000/s", (Listener("/ok/paced", 1),), pace=5_000)
BESIDE = Kind(
    "batches, a slow and a dead one beside",
    (Listener("/ok/healthy", 500), Listener("/slow/1", 500), Listener("/dead/1", 1)),
)
KINDS = (NONE, BATCHES, BESIDE, SINGLES, PACED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    users: int
    repeat: int
    directory: Path | None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured on one kind of database."""

    name: PlaceName
    runs: dict[Kind, list[Delivered]]


def measure(name: PlaceName, plan: Plan, say: Say) -> Result:
    """Every kind of run, `plan.repeat` times in turn. Raises `Unfaithful` and `WorkerFailed`."""
    result = Result(name, {kind: [] for kind in KINDS})
    with tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True) as made:
        directory = Path(made)
        say(f"{name}: a database with {plan.users:,} users")
        queue = valkey.start(directory / "valkey")
        try:
            with opened(name, directory, plan.users) as place:
                for number in range(1, plan.repeat + 1):
                    for kind in KINDS:
                        say(f"{name}, {number} of {plan.repeat}: {kind.label}")
                        with _copied(place) as url:
                            run = asyncio.run(_run(url, place, queue.url, directory / "w", kind, plan.users))
                        result.runs[kind].append(run)
        finally:
            queue.stop()
    return result


@contextmanager
def _copied(place: Place) -> Iterator[str]:
    url = place.fresh()
    try:
        yield url
    finally:
        place.drop(url)


async def _run(url: str, place: Place, redis_url: str, directory: Path, kind: Kind, users: int) -> Delivered:
    database, doorbell = Database(url), Doorbell(redis_url)
    reader = place.connect(url)
    try:
        with (
            receiving.running() as receiver,
            running(1, url, redis_url, directory) as workers,
            running(1, url, redis_url, directory, role="deliverer", settings=SETTINGS) as deliverers,
        ):
            await _prepare(database, receiver, kind)
            run = Run(reader, receiver, kind, workers[0], deliverers[0], users)
            await run.begin(database, doorbell)
            return run.until_all_has_arrived()
    finally:
        reader.close()
        await doorbell.close()
        await database.close()


async def _prepare(database: Database, receiver: Receiver, kind: Kind) -> None:
    settings = load(webhook_allow_http=True, webhook_allowed_networks="127.0.0.0/8")
    async with database.transaction() as session:
        for listener in kind.listeners:
            given = {
                "url": f"{receiver.address}{listener.path}",
                "event_types": ["message.new"],
                "batch_size": listener.batch_size,
            }
            endpoint = await webhooks.create(session, given, settings)
            receiver.trust(listener.path, endpoint.secret)
        await campaigns.create(session, definition(max_messages_per_second=kind.pace))


@dataclass
class Run:
    """A campaign on its way, and who hears of it."""

    reader: Any
    receiver: Receiver
    kind: Kind
    worker: Worker
    deliverer: Worker
    users: int
    began: float = 0.0
    processor: float = 0.0

    async def begin(self, database: Database, doorbell: Doorbell) -> None:
        """Starts the campaign."""
        self.processor = self.deliverer.processor_seconds()
        self.began = time.perf_counter()
        async with database.transaction() as session:
            await campaigns.start(session, CAMPAIGN, scheduled_for=None, stop_at=None, capacity=None)
            doorbell.ring_after_commit(session, Job.SEND)

    def until_all_has_arrived(self) -> Delivered:
        """Waits for the end of the campaign, then for that of the posts to the first endpoint."""
        self._wait(lambda: bool(self.reader.execute(COMPLETED).fetchone()))
        campaign_seconds = time.perf_counter() - self.began
        during = self._counted()[0].events if self.kind.listeners else 0
        if self.kind.listeners:
            self._wait(lambda: self._counted()[0].events >= self.users)
        seconds = time.perf_counter() - self.began
        counted = self._counted()
        self._check(counted)
        return Delivered(
            campaign_seconds=campaign_seconds,
            seconds=seconds,
            during=during,
            counted=counted,
            peak=self.deliverer.peak(),
            own_peak=self.deliverer.own_peak,
            processor_seconds=self.deliverer.processor_seconds() - self.processor,
        )

    def _counted(self) -> list[Counted]:
        return [self.receiver.counted(listener.path) for listener in self.kind.listeners]

    def _check(self, counted: Sequence[Counted]) -> None:
        if any(each.forged for each in counted):
            raise Unfaithful("a post did not verify")
        if counted and (counted[0].doubled or counted[0].events != self.users):
            raise Unfaithful(f"{self.kind.label}: {self.users:,} messages, but there arrived {counted[0]}")

    def _wait(self, happened: Callable[[], bool]) -> None:
        while not happened():
            for process in (self.worker, self.deliverer):
                process.check()
            self.deliverer.sample()
            if time.perf_counter() - self.began > SECONDS_WITHOUT_END:
                raise WorkerFailed(f"it does not end:\n{self.deliverer.last_words()}")
            time.sleep(SECONDS_BETWEEN_LOOKS)

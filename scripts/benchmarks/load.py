"""How a running Carillon behaves while it sends: what is asked of it by the API, and measured there."""

import asyncio
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app import valkey
from app.demo.client import Client
from scripts.benchmarks.places import SENDER, Place, PlaceName, opened, user_id
from scripts.benchmarks.working import Worker, running
from tests.acceptance.instances import Carillon

Figures = list[tuple[str, str]]
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 300.0
_SMALL = 10
_STATE = """query ($id: String!) { campaign(campaignId: $id) { status statusMessage
  stats { targets sent pending completedAt } } }"""
_MUTATION = """mutation ($input: {input}!) {{ {name}(input: $input) {{
  campaign {{ status stats {{ sent }} }} errors {{ message }} }} }}"""
_SEGMENT = "mutation ($input: CreateSegmentInput!) { createSegment(input: $input) { errors { message } } }"
_UPSERT = "mutation ($input: UpsertUsersInput!) { upsertUsers(input: $input) { errors { message } } }"


class Misbehaved(Exception):
    """Something was lost, doubled, or committed after a pause or stop: no figure makes up for that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. Campaigns go to `large`, `middle` and ten users; a rate is watched for `seconds`."""

    large: int
    middle: int
    repeat: int
    seconds: float
    idle_seconds: float
    parts: Sequence[str]
    directory: Path | None


@dataclass
class Stage:
    """A running Carillon, and ways to its API and its rows."""

    plan: Plan
    name: PlaceName
    carillon: Carillon
    client: Client
    reader: Any
    directory: Path
    dice: random.Random = field(default_factory=lambda: random.Random(4))
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def begin(self, users: int, pace: int | None = None, stop_at: datetime | None = None) -> str:
        """Starts a campaign to the first so many users; its id."""
        campaign_id = f"load-{next(self._numbers)}"
        await self.act(
            "createCampaign",
            campaign_id,
            senderId=SENDER,
            segmentIds=[f"first-{users}"],
            messageTemplate={"text": "Hello {{ receiver.name }}"},
            createChannels=True,
            channelTemplate={"type": "messaging", "id": "{{ receiver.id }}-" + campaign_id},
            maxMessagesPerSecond=pace,
        )
        await self.act("startCampaign", campaign_id, stopAt=stop_at.isoformat() if stop_at else None)
        return campaign_id

    async def act(self, name: str, campaign_id: str, **given: Any) -> tuple[float, int]:
        """A mutation: how many seconds its answer took, and how many it says were sent."""
        document = _MUTATION.format(name=name, input=f"{name[0].upper()}{name[1:]}Input")
        began = time.perf_counter()
        found = await self.client.execute(document, {"input": {"campaignId": campaign_id, **given}})
        return time.perf_counter() - began, found[name]["campaign"]["stats"]["sent"]

    async def state(self, campaign_id: str) -> dict[str, Any]:
        """What the API says of it."""
        found: dict[str, Any] = (await self.client.execute(_STATE, {"id": campaign_id}))["campaign"]
        return found

    def sent(self, campaign_id: str, table: str = "batches", what: str = "sum(messages_sent)") -> int:
        """How many messages its batches count, or rows of another table there are."""
        question = (
            f"SELECT coalesce({what}, 0) FROM {table} WHERE campaign_no ="
            f" (SELECT campaign_no FROM campaigns WHERE campaign_id = '{campaign_id}')"
        )
        return int(self.reader.execute(question).fetchone()[0])

    async def until_sent(self, campaign_id: str, more: int = 0) -> None:
        """Waits until more than so many are sent."""
        await _until(lambda: self.sent(campaign_id) > more, f"{campaign_id} does not send")

    async def until_completed(self, campaign_id: str) -> float:
        """Waits for its end; the seconds that took."""
        began = time.perf_counter()
        while (await self.state(campaign_id))["status"] != "COMPLETED":
            if time.perf_counter() - began > _PATIENCE:
                raise Misbehaved(f"{campaign_id} does not end: {await self.state(campaign_id)}")
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    async def stop(self, *campaign_ids: str) -> None:
        """Stops what still runs."""
        for campaign_id in campaign_ids:
            if (await self.state(campaign_id))["status"] != "COMPLETED":
                await self.act("stopCampaign", campaign_id)

    async def rate(self, seconds: float, *campaign_ids: str) -> "Rate":
        """Watches how fast these are sent."""
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][0] - seen[0][0] < seconds:
            seen.append((time.perf_counter(), sum(map(self.sent, campaign_ids))))
            await asyncio.sleep(0.05)
        return Rate(seen)

    @asynccontextmanager
    async def another_worker(self) -> AsyncIterator[Worker]:
        """One more process that sends."""
        queue = valkey.url_of(self.carillon.data_dir / "valkey")
        adding = running(1, self.carillon.database_url, queue, self.directory / "more")
        workers = await asyncio.to_thread(adding.__enter__)
        try:
            yield workers[0]
        finally:
            await asyncio.to_thread(adding.__exit__, None, None, None)


@dataclass(frozen=True, slots=True)
class Rate:
    """How much was sent when, in seconds of a clock of its own."""

    seen: Sequence[tuple[float, int]]

    def mean(self) -> float:
        """Messages a second over all of it."""
        (began, first), (ended, last) = self.seen[0], self.seen[-1]
        return (last - first) / (ended - began)

    def most(self, window: float) -> float:
        """Messages a second in that window, of so many seconds, in which most were sent."""
        most = 0.0
        for at, before in self.seen:
            within = [count for when, count in self.seen if when <= at + window]
            most = max(most, (within[-1] - before) / window)
        return most


async def pausing(stage: Stage) -> Figures:
    """Pause and stop, at full speed and throttled; and stopAt."""
    figures: Figures = []
    for pace in (None, 7, 1_000, 50_000):
        pauses, stops = [], []
        for _ in range(stage.plan.repeat):
            campaign = await stage.begin(stage.plan.large, pace)
            await stage.until_sent(campaign)
            pauses.append(await _struck(stage, "pauseCampaign", campaign))
            await stage.act("resumeCampaign", campaign)
            stops.append(await _struck(stage, "stopCampaign", campaign))
        asked = "at full speed" if pace is None else f"at {pace:,}/s"
        figures += [
            (f"pause {asked}: median, most", _milliseconds(median(pauses), max(pauses))),
            (f"stop {asked}: median, most", _milliseconds(median(stops), max(stops))),
        ]
    late = [await _stopped_by_itself(stage, known) for known in (True, False) * stage.plan.repeat]
    return [*figures, ("stopAt: median late, most", _milliseconds(median(late), max(late)))]


async def _struck(stage: Stage, name: str, campaign: str) -> float:
    """The seconds until the answer; nothing may be committed after it."""
    await asyncio.sleep(stage.dice.uniform(0, 0.4))
    seconds, said = await stage.act(name, campaign)
    await asyncio.sleep(0.5)
    if (stored := stage.sent(campaign, "messages", "count(*)")) != said:
        raise Misbehaved(f"{name} said {said:,} messages, there are {stored:,}")
    return seconds


async def _stopped_by_itself(stage: Stage, known: bool) -> float:
    """How many seconds after its stopAt, given at the start or while it runs, a campaign is STOPPED."""
    stop_at = datetime.now(UTC) + timedelta(seconds=1.5)
    campaign = await stage.begin(stage.plan.large, 1_000, stop_at if known else None)
    if not known:
        await stage.act("updateCampaign", campaign, stopAt=stop_at.isoformat())
    await asyncio.sleep((stop_at - datetime.now(UTC)).total_seconds() - 0.1)
    ended: str | None = None
    while ended is None:
        ended = (await stage.state(campaign))["stats"]["completedAt"]
    return (datetime.fromisoformat(ended) - stop_at).total_seconds()


async def throttling(stage: Stage) -> Figures:
    """The pace that is held, of the one asked for: mean, and the window in which most was sent."""
    window = stage.plan.seconds
    figures: Figures = []
    for pace in (7, 1_000, 8_000):
        campaign = await stage.begin(stage.plan.large, pace)
        await stage.until_sent(campaign)
        figures.append((f"held of {pace:,}/s", await _held(stage, pace, campaign)))
        if pace == 1_000:
            await stage.act("updateCampaign", campaign, maxMessagesPerSecond=3_000)
            await asyncio.sleep(1)
            figures.append(("held of 1,000/s changed to 3,000/s", await _held(stage, 3_000, campaign)))
            worker = stage.carillon.pid_of("app.child worker")
            assert worker is not None
            os.kill(worker, signal.SIGTERM)
            await stage.until_sent(campaign, stage.sent(campaign) + 3_000)
            figures.append(("held of 3,000/s, worker restarted", await _held(stage, 3_000, campaign)))
        await stage.stop(campaign)
    if stage.name == "postgresql":
        async with stage.another_worker():
            for pace in (7, 1_000, 8_000):
                campaign = await stage.begin(stage.plan.large, pace)
                await stage.until_sent(campaign)
                figures.append((f"held of {pace:,}/s, two workers", await _held(stage, pace, campaign)))
                await stage.stop(campaign)
    await _restarted(stage, {"CARILLON_MESSAGES_PER_SECOND": "2000"})
    both = [await stage.begin(stage.plan.large), await stage.begin(stage.plan.large, 500)]
    await stage.until_sent(both[0])
    figures.append((f"held of the server's 2,000/s, {window:.0f} s", await _held(stage, 2_000, *both)))
    figures.append(("held of a campaign's 500/s beside it", await _held(stage, 500, both[1])))
    await stage.stop(*both)
    await _restarted(stage, {})
    return figures


async def _held(stage: Stage, pace: int, *campaigns: str) -> str:
    rate = await stage.rate(1.5 * stage.plan.seconds, *campaigns)
    return f"{rate.mean() / pace:.2f}, {rate.most(stage.plan.seconds) / pace:.2f}"


async def _restarted(stage: Stage, settings: Mapping[str, str]) -> None:
    """Starts Carillon again, with these settings and no other that was given so."""
    await asyncio.to_thread(stage.carillon.stop)
    stage.carillon.environment.pop("CARILLON_MESSAGES_PER_SECOND", None)
    stage.carillon.environment.update(settings)
    await asyncio.to_thread(stage.carillon.start, 60)


async def sharing(stage: Stage) -> Figures:
    """Several campaigns at once."""
    plan, small = stage.plan, []
    for _ in range(plan.repeat):
        large = [await stage.begin(plan.large) for _ in range(2)]
        middle = await stage.begin(plan.middle)
        began, before = time.perf_counter(), [stage.sent(each) for each in (*large, middle)]
        await asyncio.sleep(stage.dice.uniform(0, 0.3))
        small.append(await _to_the_end(stage, _SMALL))
        await stage.until_completed(middle)
        seconds = time.perf_counter() - began
        after = [stage.sent(each) for each in (*large, middle)]
        await stage.stop(*large)
    shares = [(now - then) / (sum(after) - sum(before)) for then, now in zip(before, after, strict=True)]
    alone = min([await _to_the_end(stage, plan.middle) for _ in range(2)])
    ten_alone = [await _to_the_end(stage, _SMALL) for _ in range(plan.repeat)]
    throttled = await stage.begin(plan.large, 7)
    paused = await stage.begin(plan.large)
    await stage.act("pauseCampaign", paused)
    await asyncio.sleep(5)  # a paused one is planned on
    beside = min([await _to_the_end(stage, plan.middle) for _ in range(2)])
    await stage.stop(throttled, paused)
    return [
        ("ten users alone: median, most", f"{median(ten_alone):.2f}, {max(ten_alone):.2f} s"),
        ("ten users beside three large: median, most", f"{median(small):.2f}, {max(small):.2f} s"),
        ("shares of three until the smallest is done", ", ".join(f"{share:.2f}" for share in shares)),
        (f"{plan.middle:,} beside two of {plan.large:,}", f"{seconds:.2f} s"),
        (f"{plan.middle:,} alone", f"{alone:.2f} s"),
        ("beside one at 7/s and one paused", f"{beside:.2f} s"),
    ]


async def _to_the_end(stage: Stage, users: int) -> float:
    began = time.perf_counter()
    await stage.until_completed(await stage.begin(users))
    return time.perf_counter() - began


async def adding(stage: Stage) -> Figures:
    """Workers that come and go while one campaign is sent."""
    if stage.name == "sqlite":
        return []
    plan, figures = stage.plan, Figures()
    seconds = max(1.0, plan.large / 25_000 / 6)
    campaign = await stage.begin(plan.large)
    await stage.until_sent(campaign, plan.large // 50)
    one = (await stage.rate(seconds, campaign)).mean()
    async with stage.another_worker() as worker:
        two = (await stage.rate(seconds, campaign)).mean()
        ended = await _ended(worker, signal.SIGTERM)
    again = (await stage.rate(seconds, campaign)).mean()
    await _all_there(stage, campaign, plan.large)
    figures += [
        ("messages a second, one worker", f"{one:,.0f}"),
        ("a second one added", f"{two:,.0f} ({two / one:.2f} times)"),
        ("SIGTERM to its end", f"{ended:.2f} s"),
        ("messages a second afterwards", f"{again:,.0f}"),
    ]
    campaign = await stage.begin(plan.middle)
    async with stage.another_worker() as worker:
        await stage.until_sent(campaign)
        await _ended(worker, signal.SIGKILL)
        await _all_there(stage, campaign, plan.middle)
    return [*figures, ("lost or doubled, SIGTERM and SIGKILL", "0")]


async def _ended(worker: Worker, number: signal.Signals) -> float:
    began = time.perf_counter()
    worker.process.send_signal(number)
    await asyncio.to_thread(worker.process.wait, 30)
    return time.perf_counter() - began


async def _all_there(stage: Stage, campaign: str, users: int) -> None:
    await stage.until_completed(campaign)
    stored = stage.sent(campaign, "messages", "count(*)"), stage.sent(campaign, "recipients", "count(*)")
    if stored != (users, users):
        raise Misbehaved(f"{campaign} to {users:,} users has {stored} messages and ledger rows")


async def asking(stage: Stage) -> Figures:
    """The API while a campaign is sent at full speed, and what everything costs when nothing happens."""
    queries: list[float] = []
    mutations: list[float] = []
    campaign = await stage.begin(stage.plan.large)
    await stage.until_sent(campaign)
    while (await _timed(queries, stage.state(campaign)))["status"] == "IN_PROGRESS":
        user = {"userId": f"guest-{len(mutations)}", "name": "Guest"}
        await _timed(mutations, stage.client.execute(_UPSERT, {"input": {"users": [user]}}))
    await stage.until_completed(campaign)
    await asyncio.sleep(3)
    spent = await _idle(stage)
    return [
        (f"a small query ({len(queries):,}): median, p99", _milliseconds(median(queries), _p99(queries))),
        (f"a mutation ({len(mutations):,}): median, p99", _milliseconds(median(mutations), _p99(mutations))),
        (f"idle for {stage.plan.idle_seconds:.0f} s, of a core", f"{spent:.1%}"),
    ]


async def _timed(seconds: list[float], answer: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    answered = await answer
    seconds.append(time.perf_counter() - began)
    return answered


async def _idle(stage: Stage) -> float:
    """The share of a core that all processes took together."""
    pids = [*stage.carillon.processes()]
    before, began = sum(map(_spent, pids)), time.perf_counter()
    await asyncio.sleep(stage.plan.idle_seconds)
    return (sum(map(_spent, pids)) - before) / (time.perf_counter() - began)


def _spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def _milliseconds(*seconds: float) -> str:
    return ", ".join(f"{each * 1_000:,.0f}" for each in seconds) + " ms"


async def _until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise Misbehaved(what)
        await asyncio.sleep(0.01)


PARTS: Mapping[str, Callable[[Stage], Awaitable[Figures]]] = {
    "pausing": pausing,
    "throttling": throttling,
    "sharing": sharing,
    "adding": adding,
    "asking": asking,
}


def measure(plan: Plan, names: Sequence[PlaceName]) -> dict[PlaceName, dict[str, str]]:
    """All parts on each of these databases. Raises `Misbehaved`."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    figures: dict[PlaceName, dict[str, str]] = {}
    with Progress(*columns) as progress:
        for name in names:
            task = progress.add_task(f"{name}: a database with {plan.large:,} users", total=len(plan.parts))
            with (
                tempfile.TemporaryDirectory(
                    prefix="car-", dir=plan.directory, ignore_cleanup_errors=True
                ) as made,
                opened(name, Path(made), plan.large) as place,
            ):

                def tell(part: str, name: PlaceName = name, task: Any = task) -> None:
                    progress.update(task, description=f"{name}: {part}")

                figures[name] = asyncio.run(_play(plan, name, place, Path(made), tell, progress, task))
    return figures


async def _play(
    plan: Plan,
    name: PlaceName,
    place: Place,
    directory: Path,
    tell: Callable[[str], None],
    progress: Progress,
    task: Any,
) -> dict[str, str]:
    url, figures = place.fresh(), Figures()
    carillon = Carillon(directory / "data", database_url=url, environment={"CARILLON_WORKERS": "1"})
    reader = place.connect(url)
    try:
        await asyncio.to_thread(carillon.start, 60)
        async with carillon.client() as client:
            stage = Stage(plan, name, carillon, client, reader, directory)
            await _segments(stage)
            for part in plan.parts:
                tell(part)
                figures += await PARTS[part](stage)
                progress.advance(task)
    finally:
        reader.close()
        await asyncio.to_thread(carillon.kill_everything)
    return dict(figures)


async def _segments(stage: Stage) -> None:
    for users in {_SMALL, stage.plan.middle, stage.plan.large}:
        who = {"$and": [{"role": "user"}, {"id": {"$lt": user_id(users)}}]}
        given = {"segmentId": f"first-{users}", "type": "USER", "filter": who}
        await stage.client.execute(_SEGMENT, {"input": given})

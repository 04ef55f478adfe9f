"""A ring on a real Valkey: whoever listens wakes up, after an absence of the queue too."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis

from app import valkey
from app.queue import BELL, QUEUE, Doorbell, Job
from tests.acceptance.instances import PATIENCE, until
from workers import main as worker_program
from workers import segments
from workers.main import hear_bell, listen


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[valkey.Server]:
    server = valkey.start(tmp_path / "valkey")
    yield server
    server.stop()


class Sleeper:
    """Stands for a worker's loop and its housekeeping."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.times = 0

    def wake(self) -> None:
        self.times += 1
        self.woken.set()


@asynccontextmanager
async def workers(url: str, number: int) -> AsyncIterator[list[Sleeper]]:
    """So many, each of which listens."""
    sleepers = [Sleeper() for _ in range(number)]
    ears = [
        asyncio.create_task(hear_bell(url, {"sending": sleeper, "housekeeping": sleeper}))
        for sleeper in sleepers
    ]
    await listening(url, number)
    yield sleepers
    for ear in ears:
        ear.cancel()
    await asyncio.gather(*ears, return_exceptions=True)


async def listening(url: str, number: int) -> None:
    with Redis.from_url(url) as redis:
        all_there = {BELL.encode(): number}
        await asyncio.to_thread(
            until, PATIENCE, "they listen", lambda: dict(redis.pubsub_numsub(BELL)) == all_there
        )


async def ring(url: str, *jobs: Job) -> None:
    doorbell = Doorbell(url)
    for job in jobs:
        await doorbell.ring(job)
    await doorbell.close()


async def woken(*sleepers: Sleeper) -> None:
    async with asyncio.timeout(PATIENCE):
        for sleeper in sleepers:
            await sleeper.woken.wait()


async def test_one_ring_wakes_every_worker(queue: valkey.Server) -> None:
    async with workers(queue.url, 3) as sleepers:
        await ring(queue.url, Job.SEND)
        await woken(*sleepers)


async def test_what_one_worker_does_alone_wakes_no_sender(queue: valkey.Server) -> None:
    async with workers(queue.url, 1) as (sleeper,):
        await ring(queue.url, Job.COUNT_SEGMENTS, Job.SEND)
        await woken(sleeper)
        assert sleeper.times == 2  # its loop and its housekeeping, once each


async def test_the_bell_is_heard_again_after_the_queue_was_away(tmp_path: Path) -> None:
    first = valkey.start(tmp_path / "valkey")
    async with workers(first.url, 1) as (sleeper,):
        await asyncio.to_thread(first.stop)
        second = await asyncio.to_thread(valkey.start, tmp_path / "valkey")
        assert second.url == first.url
        await listening(second.url, 1)
        await ring(second.url, Job.SEND)
        await woken(sleeper)
        await asyncio.to_thread(second.stop)


closed_by_arq = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


class Served:
    """Stands for the database of a job, and tells that it was asked for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def count_due(self, database: object) -> None:
        assert database is self
        self.asked.set()


@asynccontextmanager
async def one_that_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A worker's two ears."""
    served, rung = Served(), asyncio.Event()
    monkeypatch.setattr(segments, "count_due", served.count_due)
    ctx = {"sending": Sleeper(), "housekeeping": Sleeper(), "database": served}
    ears = [asyncio.create_task(listen(url, ctx, rung)), asyncio.create_task(hear_bell(url, ctx, rung.set))]
    await listening(url, 1)
    yield served
    while any("run_job" in repr(task.get_coro()) for task in asyncio.all_tasks()):  # arq closes nothing then
        await asyncio.sleep(0.01)
    for ear in ears:
        ear.cancel()
    await asyncio.gather(*ears, return_exceptions=True)


@closed_by_arq
async def test_a_job_for_one_is_taken_as_soon_as_it_is_rung_for(
    queue: valkey.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """arq itself looks far too late here."""
    monkeypatch.setattr(worker_program, "POLL_SECONDS", 60)
    async with one_that_counts(queue.url, monkeypatch) as worker:
        for _ in range(3):
            await ring(queue.url, Job.COUNT_SEGMENTS)
            async with asyncio.timeout(PATIENCE):
                await worker.asked.wait()
            worker.asked.clear()


@closed_by_arq
async def test_a_job_whose_ring_nobody_heard_is_taken_by_looking(
    queue: valkey.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.BELL", "carillon:nobody")
    async with one_that_counts(queue.url, monkeypatch) as worker:
        await ring(queue.url, Job.COUNT_SEGMENTS)
        async with asyncio.timeout(PATIENCE):
            await worker.asked.wait()


async def test_of_a_job_for_one_is_told_once_it_is_there(queue: valkey.Server) -> None:
    """Whoever looks before would miss it, and look again a second later."""
    with Redis.from_url(queue.url) as redis, redis.pubsub() as pubsub:
        pubsub.subscribe(BELL)
        assert pubsub.get_message(timeout=PATIENCE)["type"] == "subscribe"

        def heard() -> tuple[bytes, int]:
            return pubsub.get_message(timeout=PATIENCE)["data"], redis.zcard(QUEUE)

        hearing = asyncio.create_task(asyncio.to_thread(heard))
        await ring(queue.url, Job.COUNT_SEGMENTS)
        assert await hearing == (Job.COUNT_SEGMENTS.encode(), 1)

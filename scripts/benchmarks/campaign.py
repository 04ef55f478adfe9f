"""A campaign end to end: started here, sent by real workers, and watched by a reader of the database."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.campaigns import service
from app.database import Database
from app.queue import Doorbell, Job
from scripts.benchmarks.comparing import Content, content
from scripts.benchmarks.places import SEGMENT, SENDER, Place
from scripts.benchmarks.working import Worker, WorkerFailed, running

CAMPAIGN = "bench"
TEXT = "Hello {{ receiver.name }}"
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_WITHOUT_END = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    """One campaign: seconds, bytes of the largest worker, and what it wrote."""

    seconds: float
    first_message: float
    peak: int
    own_peak: int
    processor_seconds: float
    content: Content
    batches: Sequence[tuple[int, str, str, int]]  # batch_no, first_target, last_target, targets


def run_campaign(place: Place, workers: int, redis_url: str, directory: Path) -> Run:
    """Sends one campaign in a fresh database. Raises `WorkerFailed`."""
    url = place.fresh()
    reader = place.connect(url)
    try:
        run = asyncio.run(_run(url, redis_url, reader, workers, directory))
    finally:
        reader.close()
    place.drop(url)
    return run


async def _run(url: str, redis_url: str, reader: Any, workers: int, directory: Path) -> Run:
    """As an API process does it, whose connections stand already."""
    database, doorbell = Database(url), Doorbell(redis_url)
    try:
        await _create(database)
        await doorbell.ring(Job.SEND)  # a worker that heard this one will hear the next at once
        with running(workers, url, redis_url, directory) as processes:
            return await _send(database, doorbell, reader, processes)
    finally:
        await doorbell.close()
        await database.close()


async def _create(database: Database) -> None:
    async with database.transaction() as session:
        await service.create(
            session,
            {
                "campaign_id": CAMPAIGN,
                "sender_id": SENDER,
                "segment_ids": [SEGMENT],
                "message_template": {"text": TEXT},
                "channel_template": {"type": "messaging", "id": "{{ receiver.id }}-news"},
                "create_channels": True,
            },
        )


async def _send(database: Database, doorbell: Doorbell, reader: Any, workers: Sequence[Worker]) -> Run:
    processor = sum(worker.processor_seconds() for worker in workers)
    began = time.perf_counter()
    async with database.transaction() as session:
        await service.start(session, CAMPAIGN, scheduled_for=None, stop_at=None, capacity=None)
        doorbell.ring_after_commit(session, Job.SEND)
    first_message = _seconds_until("SELECT 1 FROM messages LIMIT 1", reader, workers, began)
    seconds = _seconds_until("SELECT 1 FROM campaigns WHERE status = 'COMPLETED'", reader, workers, began)
    return Run(
        seconds=seconds,
        first_message=first_message,
        peak=max(worker.peak() for worker in workers),
        own_peak=max(worker.own_peak for worker in workers),
        processor_seconds=sum(worker.processor_seconds() for worker in workers) - processor,
        content=content(reader),
        batches=_batches(reader),
    )


def _batches(reader: Any) -> list[tuple[int, str, str, int]]:
    return list(
        reader.execute(
            "SELECT batch_no, first_target, last_target, targets FROM batches ORDER BY batch_no"
        ).fetchall()
    )


def _seconds_until(question: str, reader: Any, workers: Sequence[Worker], began: float) -> float:
    """Waits until the question has an answer; the seconds since `began`."""
    while reader.execute(question).fetchone() is None:
        for worker in workers:
            worker.check()
            worker.sample()
        if time.perf_counter() - began > _SECONDS_WITHOUT_END:
            raise WorkerFailed(f"the campaign does not end:\n{workers[0].last_words()}")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return time.perf_counter() - began

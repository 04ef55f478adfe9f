"""A campaign end to end: started here, sent by real workers, and watched by a reader of the database."""

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from app.campaigns import service
from app.database import Database
from app.queue import Doorbell, Job
from app.sending.planning import Planning, plan_chunk
from scripts.benchmarks.comparing import Content, content
from scripts.benchmarks.places import SEGMENT, SENDER, Place
from scripts.benchmarks.working import Worker, WorkerFailed, running

CAMPAIGN = "bench"
TEXT = "Hello {{ receiver.name }}"
TemplateName = Literal["simple", "rich", "existing", "tenth"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)
# Campaigns that were sent to the same users before: into the channels that then exist, or into others.
_BEFORE: dict[TemplateName, list[dict[str, Any]]] = {
    "simple": [],
    "rich": [],
    "existing": [{"campaign_id": "before"}],
    "tenth": [
        {
            "campaign_id": f"before-{number}",
            "channel_template": {"type": "messaging", "id": f"{{{{ receiver.id }}}}-{number}"},
        }
        for number in range(9)
    ],
}
_RICH = {
    "text": "Hello {{ receiver.name|default('you')|upper }}, {% if receiver.plan == 'pro' %}thank you"
    " for your trust{% else %}have a look at our plans{% endif %}. No {{ receiver.number }} of"
    " {{ receiver.language }}{% for word in ('one', 'two', 'three') %}, {{ word }}{% endfor %}.",
    "attachments": [{"type": "card", "title": "For {{ receiver.name }}", "number": "{{ receiver.number }}"}],
    "custom": {"plan": "{{ receiver.plan }}", "from": "{{ sender.name }}"},
}
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_WITHOUT_END = 600.0


def definition(**given: Any) -> dict[str, Any]:
    """A campaign to all users there are, into a channel of each one's own; `given` goes before."""
    return {
        "campaign_id": CAMPAIGN,
        "sender_id": SENDER,
        "segment_ids": [SEGMENT],
        "message_template": {"text": TEXT},
        "channel_template": {"type": "messaging", "id": "{{ receiver.id }}-news"},
        "create_channels": True,
        **given,
    }


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
    grown: int  # bytes that the database has more than before


def run_campaign(
    place: Place,
    workers: int,
    redis_url: str,
    directory: Path,
    template: TemplateName = "simple",
    settings: Mapping[str, str] | None = None,
) -> Run:
    """Sends one campaign in a fresh database, by workers with these settings. Raises `WorkerFailed`."""
    url = place.fresh()
    reader = place.connect(url)
    try:
        starting = running(workers, url, redis_url, directory, settings=settings)
        run = asyncio.run(_run(url, redis_url, reader, starting, template))
    finally:
        reader.close()
    place.drop(url)
    return run


async def _run(
    url: str,
    redis_url: str,
    reader: Any,
    starting: AbstractContextManager[Sequence[Worker]],
    template: TemplateName,
) -> Run:
    """As an API process does it, whose connections stand already."""
    database, doorbell = Database(url), Doorbell(redis_url)
    try:
        for earlier in _BEFORE[template]:
            await _create(database, **earlier)
        await _create(database, message_template=_RICH if template == "rich" else {"text": TEXT})
        await doorbell.ring(Job.SEND)  # a worker that heard this one will hear the next at once
        with starting as processes:
            for earlier in _BEFORE[template]:
                await _send(database, doorbell, reader, processes, earlier["campaign_id"])
            return await _send(database, doorbell, reader, processes, CAMPAIGN)
    finally:
        await doorbell.close()
        await database.close()


async def _create(database: Database, **given: Any) -> None:
    async with database.transaction() as session:
        await service.create(session, definition(**given))


async def _send(
    database: Database, doorbell: Doorbell, reader: Any, workers: Sequence[Worker], campaign_id: str
) -> Run:
    size = _size(reader)
    processor = sum(worker.processor_seconds() for worker in workers)
    began = time.perf_counter()
    async with database.transaction() as session:
        await service.start(session, campaign_id, scheduled_for=None, stop_at=None, capacity=None)
        doorbell.ring_after_commit(session, Job.SEND)
    this = f"(SELECT campaign_no FROM campaigns WHERE campaign_id = '{campaign_id}')"
    first_message = _seconds_until(
        f"SELECT 1 FROM messages WHERE campaign_no = {this} LIMIT 1", reader, workers, began
    )
    completed = f"SELECT 1 FROM campaigns WHERE status = 'COMPLETED' AND campaign_id = '{campaign_id}'"
    seconds = _seconds_until(completed, reader, workers, began)
    return Run(
        seconds=seconds,
        first_message=first_message,
        peak=max(worker.peak() for worker in workers),
        own_peak=max(worker.own_peak for worker in workers),
        processor_seconds=sum(worker.processor_seconds() for worker in workers) - processor,
        content=content(reader),
        batches=_batches(reader),
        grown=_size(reader) - size,
    )


def plan_campaign(place: Place) -> float:
    """Only plans the campaign, in a fresh database; the seconds."""
    url = place.fresh()
    try:
        return asyncio.run(_plan(url))
    finally:
        place.drop(url)


async def _plan(url: str) -> float:
    database = Database(url, durable=False, inline=True)
    await _create(database)
    async with database.transaction() as session:
        campaign = await service.start(session, CAMPAIGN, scheduled_for=None, stop_at=None, capacity=None)
    began = time.perf_counter()
    while await plan_chunk(database, campaign.campaign_no, capacity=None) != Planning.FINISHED:
        await database.checkpoint_if_large()
    seconds = time.perf_counter() - began
    await database.close()
    return seconds


def _size(reader: Any) -> int:
    """The bytes of the database, without its log."""
    if isinstance(reader, sqlite3.Connection):
        pages, each = (reader.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages * each)
    return int(reader.execute("SELECT pg_database_size(current_database())").fetchone()[0])


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

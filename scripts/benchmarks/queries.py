"""A dashboard's list under load: twenty campaigns with their stats, asked for over and over."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from app import valkey
from app.campaigns import service
from app.database import Database
from app.queue import Doorbell, Job
from scripts.benchmarks.places import SEGMENT, SENDER, Place, PlaceName, opened
from scripts.benchmarks.serving import Serving, Variant, serving
from scripts.benchmarks.working import running

CAMPAIGNS, USERS = 20, 50
VARIANTS: tuple[Variant, ...] = ("carillon", "unlimited", "stock", "bare")
QUERY = """query ($first: Int!) { campaigns(first: $first) { nodes { id campaignId name status createdAt
  sender { userId name }
  stats { asOf planned progress targets pending sent skipped failed messagesPerSecond
  reasons { reason count } } } pageInfo { hasNextPage endCursor } } }"""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one variant: requests and processor seconds a request, and how long each took."""

    per_second: float
    processor: float
    seconds: Sequence[float]

    def quantile(self, part: float) -> float:
        """So many seconds this part of the requests took at most."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(part * len(self.seconds)))]


def measure(
    name: PlaceName, directory: Path, requests: int, connections: int, rounds: int
) -> dict[Variant, list[Load]]:
    """Every variant in each round, in an order that turns: what a busy machine does to one it does to all."""
    queue = valkey.start(directory / "valkey")
    try:
        with opened(name, directory, USERS) as place:
            url = place.fresh()
            with running(1, url, queue.url, directory / "workers"):
                asyncio.run(send_campaigns(url, queue.url, place, CAMPAIGNS))
            with ExitStack() as stack:
                processes = {each: stack.enter_context(serving(url, queue.url, each)) for each in VARIANTS}
                found = asyncio.run(_rounds(processes, requests, connections, rounds))
            place.drop(url)
    finally:
        queue.stop()
    return found


async def _rounds(
    processes: Mapping[Variant, Serving], requests: int, connections: int, rounds: int
) -> dict[Variant, list[Load]]:
    found: dict[Variant, list[Load]] = {variant: [] for variant in processes}
    for process in processes.values():
        await _loaded(process, requests, connections)
    for turn in range(rounds):
        first = turn % len(VARIANTS)
        for variant in (*VARIANTS[first:], *VARIANTS[:first]):
            found[variant].append(await _loaded(processes[variant], requests, connections))
    return found


def campaign_id(number: int) -> str:
    """The id of the campaign of this number, counted from 0."""
    return f"campaign-{number}"


async def send_campaigns(url: str, redis_url: str, place: Place, count: int) -> None:
    """Sends so many campaigns to everybody, to their end."""
    database, doorbell = Database(url), Doorbell(redis_url)
    for number in range(count):
        async with database.transaction() as session:
            given = {
                "campaign_id": campaign_id(number),
                "name": f"Campaign {number}",
                "sender_id": SENDER,
                "segment_ids": [SEGMENT],
                "message_template": {"text": "Hello {{ receiver.name }}"},
                "channel_template": {"type": "messaging", "id": "{{ receiver.id }}-news"},
                "create_channels": True,
            }
            await service.create(session, given)
            await service.start(session, campaign_id(number), scheduled_for=None, stop_at=None, capacity=None)
            doorbell.ring_after_commit(session, Job.SEND)
    reader = place.connect(url)
    unfinished = "SELECT 1 FROM campaigns WHERE status <> 'COMPLETED' LIMIT 1"
    while reader.execute(unfinished).fetchone() is not None:
        time.sleep(0.1)  # noqa: ASYNC251 - there is nothing else to do
    reader.close()
    await doorbell.close()
    await database.close()


async def _loaded(process: Serving, requests: int, connections: int) -> Load:
    limited = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(headers=process.headers, connector=limited) as http:
        seconds: list[float] = []
        left = iter(range(requests))
        began, processor = time.perf_counter(), process.processor_seconds()
        await asyncio.gather(*(_client(http, process.url, left, seconds) for _ in range(connections)))
        lasted = time.perf_counter() - began
    return Load(requests / lasted, (process.processor_seconds() - processor) / requests, seconds)


async def _client(http: aiohttp.ClientSession, url: str, left: object, seconds: list[float]) -> None:
    for _ in left:  # type: ignore[attr-defined]
        began = time.perf_counter()
        async with http.post(url, json={"query": QUERY, "variables": {"first": CAMPAIGNS}}) as response:
            body = await response.read()
            assert response.status == 200 and b'"errors"' not in body, body[:500]
        seconds.append(time.perf_counter() - began)

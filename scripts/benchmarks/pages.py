"""Pages: how long targets of a segment with their users and other lists take, from request to last byte."""

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import aiohttp
from sqlalchemy import insert

from app import valkey
from app.database import Database
from app.segments import service as segments
from app.segments.models import SegmentTarget
from scripts.benchmarks.places import PlaceName, opened, user_id
from scripts.benchmarks.queries import campaign_id, send_campaigns
from scripts.benchmarks.serving import Serving, Variant, serving
from scripts.benchmarks.working import running

LARGEST = 10_000
LISTED = "listed"
QUERY = f"""query ($first: Int!) {{ segment(segmentId: "{LISTED}") {{ targets(first: $first) {{
  edges {{ cursor node {{ id targetId createdAt user {{ id name }} }} }} }} }} }}"""
PEOPLE = """query ($first: Int!) { users(first: $first) {
  edges { cursor node { id userId name role language teams custom createdAt lastActiveAt } } } }"""
RECIPIENTS = f"""query ($first: Int!) {{ campaign(campaignId: "{campaign_id(0)}") {{
  recipients(first: $first) {{ edges {{ cursor
    node {{ id targetId status reason sentAt user {{ id name }} message {{ text }} }} }} }} }} }}"""
CHANNELS = """query ($first: Int!) { channels(first: $first) {
  edges { cursor node { id cid type memberCount custom createdAt createdBy { name } } } } }"""
LISTS: Mapping[str, tuple[str, Sequence[int]]] = {
    "targets": (QUERY, (30, 100, 1_000, LARGEST)),
    "recipients": (RECIPIENTS, (30, 1_000)),
    "users": (PEOPLE, (30, 1_000)),
    "channels": (CHANNELS, (30, 1_000)),
}
VARIANTS: tuple[Variant, ...] = ("carillon", "stock")
Asked: TypeAlias = tuple[str, int]  # the list, and how many of it


@dataclass(frozen=True, slots=True)
class Cost:
    """What a page costs: seconds from request to last byte, of the processor, and of statements; bytes."""

    seconds: float
    processor: float
    statements: float
    body: bytes


class Wrong(Exception):
    """Both ways of executing must give the same answer."""


def measure(name: PlaceName, directory: Path, repeat: int) -> dict[Asked, dict[Variant, Cost]]:
    """The least of each cost, for each list and size and both ways of executing. Raises `Wrong`."""
    queue = valkey.start(directory / "valkey")
    try:
        with opened(name, directory, LARGEST) as place:
            url = place.fresh()
            asyncio.run(_list_all(url))
            with running(1, url, queue.url, directory / "workers"):
                asyncio.run(send_campaigns(url, queue.url, place, 1))
            with ExitStack() as stack:
                processes = {each: stack.enter_context(serving(url, queue.url, each)) for each in VARIANTS}
                found = asyncio.run(_costs(processes, repeat))
            place.drop(url)
    finally:
        queue.stop()
    for (listed, size), costs in found.items():
        if costs["carillon"].body != costs["stock"].body:
            raise Wrong(f"the answers differ for {size} of {listed}")
    return found


async def _list_all(url: str) -> None:
    database = Database(url, durable=False)
    async with database.transaction() as session:
        segment = await segments.create(session, {"segment_id": LISTED, "type": "USER"})
        at = datetime.now(UTC)
        rows = [
            {"segment_no": segment.segment_no, "target_id": user_id(number), "created_at": at}
            for number in range(LARGEST)
        ]
        await session.execute(insert(SegmentTarget), rows)
    await database.close()


async def _costs(processes: Mapping[Variant, Serving], repeat: int) -> dict[Asked, dict[Variant, Cost]]:
    """Both variants in turn, so that what a busy machine does to one it does to the other."""
    found: dict[Asked, dict[Variant, Cost]] = {}
    gc.freeze()
    async with aiohttp.ClientSession() as http:
        for listed, (query, sizes) in LISTS.items():
            for size in sizes:
                costs: dict[Variant, list[Cost]] = {variant: [] for variant in processes}
                for variant, process in _turns(processes, size, repeat):
                    costs[variant].append(await _cost(http, process, query, size))
                found[listed, size] = {variant: _least(each) for variant, each in costs.items()}
    return found


def _turns(processes: Mapping[Variant, Serving], size: int, repeat: int) -> Iterator[tuple[Variant, Serving]]:
    """Small pages twice as often, and the largest by stock execution, which takes a second, three times."""
    for turn in range(repeat if size >= LARGEST else 2 * repeat):
        for variant, process in processes.items():
            if size < LARGEST or variant == "carillon" or turn < 3:
                yield variant, process


def _least(costs: Sequence[Cost]) -> Cost:
    return Cost(
        seconds=min(cost.seconds for cost in costs),
        processor=min(cost.processor for cost in costs),
        statements=min(cost.statements for cost in costs),
        body=costs[-1].body,
    )


async def _cost(http: aiohttp.ClientSession, process: Serving, query: str, size: int) -> Cost:
    gc.collect()
    began = time.perf_counter()
    asked_for = {"query": query, "variables": {"first": size}}
    async with http.post(process.url, json=asked_for, headers=process.headers) as response:
        body = await response.read()
        seconds = time.perf_counter() - began
        assert response.status == 200 and b'"errors"' not in body, body[:500]
        spent, asked = (float(response.headers[name]) for name in ("x-processor", "x-statements"))
    return Cost(seconds, spent, asked, body)

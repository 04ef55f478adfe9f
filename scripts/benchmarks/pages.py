"""Big pages: how long the targets of a segment with their users take, from request to last byte."""

import asyncio
import gc
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from sqlalchemy import insert

from app import valkey
from app.database import Database
from app.segments import service as segments
from app.segments.models import SegmentTarget
from scripts.benchmarks.places import PlaceName, opened, user_id
from scripts.benchmarks.serving import Serving, Variant, serving

SIZES = (100, 1_000, 10_000)
LISTED = "listed"
QUERY = f"""query ($first: Int!) {{ segment(segmentId: "{LISTED}") {{ targets(first: $first) {{
  edges {{ cursor node {{ id targetId createdAt user {{ id name }} }} }} }} }} }}"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a page costs: seconds from request to last byte, of the processor, and of statements; bytes."""

    seconds: float
    processor: float
    statements: float
    body: bytes


class Wrong(Exception):
    """Both ways of executing must give the same answer."""


def measure(name: PlaceName, directory: Path, repeat: int) -> dict[tuple[Variant, int], Cost]:
    """The least of each cost, for both ways of executing and each size. Raises `Wrong`."""
    queue = valkey.start(directory / "valkey")
    try:
        with opened(name, directory, max(SIZES)) as place:
            url = place.fresh()
            asyncio.run(_list_all(url))
            found: dict[tuple[Variant, int], Cost] = {}
            variants: tuple[Variant, ...] = ("carillon", "stock")
            for variant in variants:
                with serving(url, queue.url, variant) as process:
                    costs = asyncio.run(_costs(process, repeat if variant == "carillon" else 3))
                    found |= {(variant, size): cost for size, cost in costs.items()}
            place.drop(url)
    finally:
        queue.stop()
    if any(found["carillon", size].body != found["stock", size].body for size in SIZES):
        raise Wrong("the answers differ")
    return found


async def _list_all(url: str) -> None:
    database = Database(url, durable=False)
    async with database.transaction() as session:
        segment = await segments.create(session, {"segment_id": LISTED, "type": "USER"})
        at = datetime.now(UTC)
        rows = [
            {"segment_no": segment.segment_no, "target_id": user_id(number), "created_at": at}
            for number in range(max(SIZES))
        ]
        await session.execute(insert(SegmentTarget), rows)
    await database.close()


async def _costs(process: Serving, repeat: int) -> dict[int, Cost]:
    async with aiohttp.ClientSession(headers=process.headers) as http:
        found = {}
        for size in SIZES:
            asked = repeat * max(1, min(10, 10_000 // size // 2))
            costs = [await _cost(http, process.url, size) for _ in range(asked)]
            found[size] = Cost(
                seconds=min(cost.seconds for cost in costs),
                processor=min(cost.processor for cost in costs),
                statements=min(cost.statements for cost in costs),
                body=costs[-1].body,
            )
    return found


async def _cost(http: aiohttp.ClientSession, url: str, size: int) -> Cost:
    gc.collect()
    began = time.perf_counter()
    async with http.post(url, json={"query": QUERY, "variables": {"first": size}}) as response:
        body = await response.read()
        seconds = time.perf_counter() - began
        assert response.status == 200 and b'"errors"' not in body, body[:500]
        spent, asked = (float(response.headers[name]) for name in ("x-processor", "x-statements"))
    return Cost(seconds, spent, asked, body)

"""A filter by a custom field over many users: how long its count and its first page take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import text, update
from sqlmodel import col

from app.database import Database
from app.segments import service
from app.segments.kinds import SegmentKind, SegmentType
from app.segments.queries import members_select
from app.users.models import User
from scripts.benchmarks.places import CITIES, SENDER, Place, PlaceName, opened

PAGE = 100
HOME = "nowhere"  # only the sender lives there
FILTERS: dict[str, dict[str, Any]] = {
    f"one in {CITIES}": {"city": "city-7"},
    "one": {"city": HOME},
}
# As the README tells.
INDEX: dict[PlaceName, str] = {
    "sqlite": "CREATE INDEX users_city ON users (custom ->> 'city', id)",
    "postgresql": "CREATE INDEX users_city ON users ((custom ->> 'city'), id)",
}
Row = tuple[str, str, int, float, float]  # which filter, with index or without, its size, seconds


def measure(name: PlaceName, directory: Path, users: int, repeat: int) -> list[Row]:
    """Each filter, without the index and with it."""
    with opened(name, directory, users) as place:
        url = place.fresh()
        try:
            return asyncio.run(_measure(name, place, url, repeat))
        finally:
            place.drop(url)


async def _measure(name: PlaceName, place: Place, url: str, repeat: int) -> list[Row]:
    database, rows = Database(url), list[Row]()
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == SENDER).values(custom={"city": HOME}))
    for index in ("without", "with"):
        if index == "with":
            async with database.transaction() as session:
                await session.execute(text(INDEX[name]))
                await session.execute(text("ANALYZE users"))
        for label, condition in FILTERS.items():
            definition = {"type": SegmentType.USER, "kind": SegmentKind.FILTER, "filter": condition}
            size = await service.count_members(database, [definition])
            counted = await _median(repeat, lambda given=definition: service.count_members(database, [given]))
            page = await _median(repeat, lambda given=definition: _page(database, given))
            rows.append((label, index, size, counted, page))
    await database.close()
    return rows


async def _page(database: Database, definition: dict[str, Any]) -> None:
    async with database.read() as session:
        await session.execute(members_select(database.dialect, definition, sender_id="", limit=PAGE))


async def _median(repeat: int, work: Callable[[], Awaitable[Any]]) -> float:
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began)
    return median(seconds)

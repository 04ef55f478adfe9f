"""What tests of delivering say: endpoints, what happens, and deliverers that work till nothing is due."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlmodel import col

from app.database import Database, now
from app.events import service as events
from app.settings import Settings
from app.webhooks import service
from app.webhooks.deliverer import Deliverer
from app.webhooks.models import Delivery, Endpoint
from app.webhooks.posting import Poster
from tests.integration.receiving import allowing

PATIENCE = 60.0  # for what a busy machine delays, and no test is about


async def add_endpoint(
    database: Database, url: str, settings: Settings | None = None, **given: Any
) -> Endpoint:
    """An endpoint; by default it gets every event, each in a post of its own."""
    async with database.transaction() as session:
        return await service.create(session, {"url": url, **given}, settings or allowing())


async def happen(database: Database, count: int = 1, event_type: str = "campaign.updated") -> None:
    """Events that are numbered on, in the order in which they are written."""
    async with database.transaction() as session:
        for number in range(count):
            await events.record(session, event_type, 1, {"number": number})


class Work:
    """A deliverer whose turns a test asks for."""

    def __init__(self, database: Database, deliverer: Deliverer) -> None:
        self.database = database
        self.deliverer = deliverer

    async def until(self, happened: Callable[[], Any], what: str = "it happened") -> None:
        """Turns until that is so."""
        async with asyncio.timeout(PATIENCE):
            while not happened():
                await self.deliverer.wait(min(await self.deliverer.turn(), 0.02))

    async def until_settled(self, *, pending: int = 0) -> list[Delivery]:
        """Turns until nothing is in hand or due, and so many deliveries wait for another time."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.deliverer._next_look = 0.0
                await self.deliverer.wait(min(await self.deliverer.turn(), 0.02))
                if not self.deliverer.posting_to:
                    found = await deliveries(self.database)
                    waiting = [each for each in found if each.status == 0]
                    async with self.database.read() as session:
                        at = await now(session)
                    later = all(each.next_attempt_at and each.next_attempt_at > at for each in waiting)
                    if found and later and len(waiting) == pending:
                        return found


@contextlib.asynccontextmanager
async def working(
    database: Database, settings: Settings | None = None, name: str = "deliverer", **poster: Any
) -> AsyncIterator[Work]:
    """A deliverer in this process; it gives back what it holds afterwards."""
    settings = settings or allowing()
    async with Poster(settings, **poster) as posting:
        deliverer = Deliverer(database, posting, settings, name)
        try:
            yield Work(database, deliverer)
        finally:
            await deliverer.close()


async def deliveries(database: Database) -> list[Delivery]:
    """All of them, in order."""
    async with database.read() as session:
        found = await session.execute(select(Delivery).order_by(col(Delivery.endpoint_id), col(Delivery.seq)))
        return list(found.scalars())


async def endpoint_of(database: Database, endpoint: Endpoint) -> Endpoint:
    """The endpoint as it is."""
    async with database.read() as session:
        found = await session.get(Endpoint, endpoint.endpoint_id)
        assert found is not None
        return found


async def pass_time(database: Database, passed: timedelta) -> None:
    """Everything that webhooks know of time happened so much longer ago. (The clock is the database's.)"""
    async with database.transaction() as session:
        for table, columns in (
            (Delivery, ("created_at", "next_attempt_at", "gives_up_at")),
            (Endpoint, ("failing_since", "rests_until", "leased_until", "previous_secret_until")),
        ):
            for column in columns:
                for row in list((await session.execute(select(table))).scalars()):
                    if (value := getattr(row, column)) is not None:
                        setattr(row, column, value - passed)


async def change(database: Database, endpoint: Endpoint, **values: Any) -> None:
    """Writes into the endpoint's row."""
    async with database.transaction() as session:
        await session.execute(
            update(Endpoint).where(col(Endpoint.endpoint_id) == endpoint.endpoint_id).values(**values)
        )

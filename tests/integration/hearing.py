"""What tests of webhooks say: endpoints, and what each of them would hear."""

from typing import Any

import orjson
from sqlalchemy import select
from sqlmodel import col

from app.database import Database
from app.settings import load
from app.webhooks import bodies, dispatching, expanding, service
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint

SETTINGS = load(admin_key=None)


async def listen(database: Database, *event_types: str, **given: Any) -> Endpoint:
    """A new endpoint that wants these types; without any, all."""
    fields = {"url": "https://hooks.example.com/in", "event_types": list(event_types), **given}
    async with database.transaction() as session:
        return await service.create(session, fields, SETTINGS)


async def dispatch(database: Database) -> int:
    """Dispatches until nothing waits."""
    dispatched = 0
    while more := await dispatching.dispatch(database):
        dispatched += more
    return dispatched


async def expand(database: Database, endpoint: Endpoint, want: int = 1_000) -> int:
    """Expands until nothing waits."""
    expanded = 0
    while True:
        async with database.transaction() as session:
            more = await expanding.expand(session, endpoint, want)
        if not more:
            return expanded
        expanded += more


async def deliveries(database: Database, endpoint: Endpoint) -> list[Delivery]:
    """The endpoint's deliveries in the order of their first attempts."""
    async with database.read() as session:
        rows = await session.execute(
            select(Delivery)
            .where(col(Delivery.endpoint_id) == endpoint.endpoint_id)
            .order_by(col(Delivery.seq))
        )
        return list(rows.scalars())


async def posts(database: Database, endpoint: Endpoint) -> list[Any]:
    """The bodies of what is to be posted, in order; None where nothing is left to tell."""
    made = [each for each in await deliveries(database, endpoint) if each.status == DeliveryStatus.PENDING]
    async with database.read() as session:
        built = await bodies.build(session, made)
    found = [built[each.id] for each in made]
    return [None if body is None else orjson.loads(body) for body in found]


async def hear(database: Database, endpoint: Endpoint, want: int = 1_000) -> list[Any]:
    """Everything that the endpoint is told, event by event, in order."""
    await dispatch(database)
    await expand(database, endpoint, want)
    told: list[Any] = []
    for body in await posts(database, endpoint):
        told += body["events"] if body and body["type"] == "batch" else [body]
    return told


async def types(database: Database, endpoint: Endpoint) -> list[str]:
    """Only the types."""
    return [event["type"] for event in await hear(database, endpoint)]

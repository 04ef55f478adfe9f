"""Clearing away what was delivered, what came too late, and what belongs to deleted endpoints, in chunks that
no writer has to wait for."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database, changed, now
from app.ids import first_uuid_of
from app.webhooks import queries
from app.webhooks.expanding import EXPIRED, expire
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint, Queued
from app.webhooks.schedule import GIVES_UP_AFTER

CHUNK = 5_000
# A deliverer that has just read the rows of an endpoint may still be writing some.
CLEARED_AFTER = timedelta(minutes=1)


def events_needed_for(retention: timedelta) -> timedelta:
    """How long events are needed at least, if deliveries are kept for `retention`: they wait in queues, are
    attempted, and a delivery may be repeated on the last of its days."""
    return retention + 2 * GIVES_UP_AFTER


async def clear_deleted(database: Database) -> None:
    """Deletes the queues and deliveries of endpoints deleted a minute ago, and at last themselves."""
    async with database.read() as session:
        endpoint_ids = await queries.deleted_before(session, await now(session) - CLEARED_AFTER)
    for endpoint_id in endpoint_ids:
        for table, key in ((Queued, "position"), (Delivery, "seq")):
            while await _clear_chunk(database, table, key, endpoint_id):
                await database.checkpoint_if_large()
        async with database.transaction() as session:
            await changed(session, delete(Endpoint).where(col(Endpoint.endpoint_id) == endpoint_id))


async def _clear_chunk(database: Database, table: Any, key: str, endpoint_id: str) -> bool:
    """Whether there may be more."""
    column, own = getattr(table, key), table.endpoint_id == endpoint_id
    first = select(column).where(own).order_by(column).limit(CHUNK)
    async with database.transaction() as session:
        keys = (await session.execute(first)).scalars().all()
        if keys:
            await changed(session, delete(table).where(own, column <= keys[-1]))
    return len(keys) == CHUNK


async def expire_disabled(database: Database) -> None:
    """Gives up what has waited for three days for an endpoint to be enabled: it becomes, or is, FAILED."""
    async with database.read() as session:
        disabled = await queries.disabled(session)
    for endpoint in disabled:
        expired = 1
        while expired:
            async with database.transaction() as session:
                expired = await expire(session, endpoint.endpoint_id)
                expired += await _give_up(session, endpoint.endpoint_id)


async def _give_up(session: AsyncSession, endpoint_id: str) -> int:
    late = (
        select(col(Delivery.id))
        .where(
            col(Delivery.endpoint_id) == endpoint_id,
            col(Delivery.status) == DeliveryStatus.PENDING,
            col(Delivery.gives_up_at) <= await now(session),
        )
        .limit(CHUNK)
    )
    return await changed(
        session,
        update(Delivery)
        .where(col(Delivery.id).in_(late))
        .values(status=DeliveryStatus.FAILED, error=EXPIRED, next_attempt_at=None),
    )


async def prune(database: Database, retention: timedelta) -> None:
    """Deletes deliveries made more than `retention` ago, but those that are still PENDING. Ids begin with the
    time, and so the primary key leads to the oldest."""
    deleted = CHUNK
    while deleted == CHUNK:
        async with database.transaction() as session:
            old = (
                select(col(Delivery.id))
                .where(
                    col(Delivery.id) < first_uuid_of(await now(session) - retention),
                    col(Delivery.status) != DeliveryStatus.PENDING,
                )
                .order_by(col(Delivery.id))
                .limit(CHUNK)
            )
            deleted = await changed(session, delete(Delivery).where(col(Delivery.id).in_(old)))
        await database.checkpoint_if_large()

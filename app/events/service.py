"""Writing events: always in the transaction that makes them true.

What `Event.data` holds: of `campaign.*` the whole campaign with its stats, of `webhook_endpoint.*` the
endpoint; of `message.new` `{"campaign_id", "first", "last"}`, the ids of `size` messages that were written
together and with no other in between; of `channel.created` `{"cids": [...]}`.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database, changed, now
from app.events.models import EVERY_TYPE, Event, Listener
from app.ids import message_ids, new_uuid

MESSAGE_NEW = "message.new"
CHANNEL_CREATED = "channel.created"
ENDPOINT_DISABLED = "webhook_endpoint.disabled"
# Every type that can be listened to.
TYPES = (
    *(
        f"campaign.{what}"
        for what in ("scheduled", "started", "completed", "stopped", "paused", "resumed", "updated")
    ),
    MESSAGE_NEW,
    CHANNEL_CREATED,
    ENDPOINT_DISABLED,
)

PRUNED_AT_ONCE = 5_000

_WANTED = select(col(Listener.event_type)).where(
    col(Listener.event_type).in_((MESSAGE_NEW, CHANNEL_CREATED, EVERY_TYPE))
)


async def record(
    session: AsyncSession, event_type: str, campaign_no: int | None, data: dict[str, Any]
) -> None:
    """Writes that `event_type` happened to a campaign (or to none), with `data` as it was at that moment."""
    session.add(
        Event(
            id=new_uuid(), type=event_type, campaign_no=campaign_no, data=data, created_at=await now(session)
        )
    )


async def record_messages(
    session: AsyncSession,
    ids: Sequence[str],
    created: Sequence[str],
    at: datetime,
    campaign: tuple[int, str] | None = None,
) -> None:
    """Writes that channels (their cids) were created and messages (ids of one `message_ids`, ascending)
    written `at` this instant, by a campaign (its number and id) or for a test: a row each however many they
    are, and none where nobody listens. Whoever gets both hears of the channels first."""
    if not ids and not created:
        return
    number, campaign_id = campaign or (None, None)
    wanted = set((await session.execute(_WANTED)).scalars())
    rows: list[tuple[str, int, dict[str, Any]]] = []
    if created and wanted & {CHANNEL_CREATED, EVERY_TYPE}:
        rows.append((CHANNEL_CREATED, len(created), {"cids": list(created)}))
    if ids and wanted & {MESSAGE_NEW, EVERY_TYPE}:
        told = {"campaign_id": campaign_id, "first": ids[0], "last": ids[-1]}
        rows.append((MESSAGE_NEW, len(ids), told))
    if rows:
        values = [
            {
                "id": event_id,
                "type": kind,
                "campaign_no": number,
                "size": size,
                "data": data,
                "created_at": at,
            }
            for event_id, (kind, size, data) in zip(message_ids(len(rows)), rows, strict=True)
        ]
        await session.execute(insert(Event), values)


async def listen(session: AsyncSession, listener_id: str, event_types: Collection[str]) -> None:
    """Makes these the types that somebody wants; none: all there are or will be."""
    await stop_listening(session, listener_id)
    rows = [{"listener_id": listener_id, "event_type": kind} for kind in event_types or (EVERY_TYPE,)]
    await session.execute(insert(Listener), rows)


async def stop_listening(session: AsyncSession, listener_id: str) -> None:
    """From now on nothing is written for somebody."""
    await changed(session, delete(Listener).where(col(Listener.listener_id) == listener_id))


async def prune(database: Database, age: timedelta, needed: ColumnElement[bool]) -> None:
    """Deletes events that happened, and were dispatched, more than `age` ago, in chunks that no writer has to
    wait for. What is `needed`, or waits to be dispatched to somebody, stays."""
    listened = exists().where(col(Listener.event_type).in_((col(Event.type), EVERY_TYPE)))
    deleted = PRUNED_AT_ONCE
    while deleted == PRUNED_AT_ONCE:
        async with database.transaction() as session:
            before = await now(session) - age
            old = (
                select(col(Event.id))
                .where(col(Event.created_at) < before, ~needed)
                .where(or_(col(Event.dispatched_at) < before, ~listened))
                .order_by(col(Event.created_at))
                .limit(PRUNED_AT_ONCE)
            )
            deleted = await changed(session, delete(Event).where(col(Event.id).in_(old)))

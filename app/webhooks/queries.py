"""Every statement about endpoints, their queues and their deliveries (but those of delivering)."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from app.database import UtcDateTime, changed, dialect_of
from app.events.models import EVERY_TYPE, Event, Listener
from app.events.service import ENDPOINT_DISABLED
from app.given import given
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint, Queued
from app.webhooks.schedule import GIVES_UP_AFTER

# Advisory locks of PostgreSQL, which end with the transaction; any constants of ours.
_DISPATCHING = 0x0CA1_1201
_CREATING = 0x0CA1_1202

_DELIVERIES = SQLModel.metadata.tables["webhook_deliveries"]

living = col(Endpoint.deleted_at).is_(None)
QUEUED: ColumnElement[bool] = exists().where(col(Queued.event_id) == col(Event.id))


class Head(NamedTuple):
    """An event at the head of a queue: what it stands for, from `taken` to `size`, is in no delivery yet."""

    position: int
    event_id: str
    event_type: str
    taken: int
    size: int
    gives_up_at: datetime


async def listed(session: AsyncSession) -> Sequence[Endpoint]:
    """Every endpoint that is not deleted, oldest first."""
    found = await session.execute(
        select(Endpoint).where(living).order_by(col(Endpoint.created_at), col(Endpoint.endpoint_id))
    )
    return found.scalars().all()


async def by_ids(session: AsyncSession, endpoint_ids: Collection[str]) -> Mapping[str, Endpoint]:
    """Those of these endpoints that are not deleted."""
    found = await session.execute(select(Endpoint).where(col(Endpoint.endpoint_id).in_(endpoint_ids), living))
    return {endpoint.endpoint_id: endpoint for endpoint in found.scalars()}


async def locked(session: AsyncSession, endpoint_id: str) -> Endpoint | None:
    """The endpoint as it is now, for a change; None if it is deleted."""
    found = await session.execute(
        select(Endpoint)
        .where(col(Endpoint.endpoint_id) == endpoint_id, living)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found.scalar_one_or_none()


async def count_while_creating(session: AsyncSession) -> int:
    """How many endpoints there are; no other is created before the commit."""
    if dialect_of(session) == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATING})
    counted = await session.execute(select(func.count()).select_from(Endpoint).where(living))
    return int(counted.scalar_one())


async def any_undispatched(session: AsyncSession) -> bool:
    """Whether an event waits to be handed to whoever wants it."""
    found = await session.execute(select(col(Event.id)).where(col(Event.dispatched_at).is_(None)).limit(1))
    return found.first() is not None


async def alone_to_dispatch(session: AsyncSession) -> bool:
    """Whether nobody else is dispatching; nobody is then before the commit."""
    if dialect_of(session) == "sqlite":
        return True
    lock = await session.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _DISPATCHING})
    return bool(lock.scalar_one())


async def undispatched(session: AsyncSession, most: int) -> Sequence[str]:
    """The ids of the first events, as they were created, that nobody was told of yet."""
    found = await session.execute(
        select(col(Event.id))
        .where(col(Event.dispatched_at).is_(None))
        .order_by(col(Event.created_at), col(Event.id))
        .limit(most)
    )
    return found.scalars().all()


async def enqueue(session: AsyncSession, event_ids: Sequence[str], at: datetime) -> None:
    """Puts these events at the end of the queue of every endpoint that wants them and existed when they
    happened, in the order in which they were created. Of its own disabling an endpoint is not told."""
    endpoint_id = col(Endpoint.endpoint_id)
    last = (
        select(func.max(col(Queued.position)))
        .where(col(Queued.endpoint_id) == endpoint_id)
        .correlate(Endpoint)
        .scalar_subquery()
    )
    place = func.row_number().over(partition_by=endpoint_id, order_by=(col(Event.created_at), col(Event.id)))
    itself = case(
        (col(Event.type) == ENDPOINT_DISABLED, col(Event.data)["endpoint_id"].as_string() == endpoint_id),
        else_=False,
    )
    wanting = (
        select(
            endpoint_id,
            func.coalesce(last, 0) + place,
            col(Event.id),
            literal(0),
            col(Event.size),
            literal(at + GIVES_UP_AFTER, UtcDateTime),
        )
        .select_from(Event)
        .join(Listener, col(Listener.event_type).in_((col(Event.type), EVERY_TYPE)))
        .join(Endpoint, and_(endpoint_id == col(Listener.listener_id), living))
        .where(col(Event.id).in_(event_ids), col(Endpoint.created_at) <= col(Event.created_at), ~itself)
    )
    columns = ("endpoint_id", "position", "event_id", "taken", "size", "gives_up_at")
    await session.execute(insert(Queued).from_select(columns, wanting))


async def mark_dispatched(session: AsyncSession, event_ids: Sequence[str], at: datetime) -> None:
    """Notes that whoever wants these events has them."""
    await changed(session, update(Event).where(col(Event.id).in_(event_ids)).values(dispatched_at=at))


async def requeue(
    session: AsyncSession, endpoint_id: str, parts: Sequence[Sequence[Any]], gives_up_at: datetime
) -> None:
    """Puts parts of events ([event_id, first, count], as deliveries hold them) at the end of a queue again.
    The endpoint is locked, but somebody may be dispatching: on PostgreSQL this waits for them."""
    if dialect_of(session) == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _DISPATCHING})
    last = await session.execute(
        select(func.coalesce(func.max(col(Queued.position)), 0)).where(col(Queued.endpoint_id) == endpoint_id)
    )
    alike = {"endpoint_id": endpoint_id, "gives_up_at": gives_up_at}
    rows = [
        {"position": position, "event_id": event_id, "taken": first, "size": first + count, **alike}
        for position, (event_id, first, count) in enumerate(parts, last.scalar_one() + 1)
    ]
    await session.execute(insert(Queued), rows)


async def head(session: AsyncSession, endpoint_id: str, most: int) -> Sequence[Head]:
    """The first events in the endpoint's queue."""
    found = await session.execute(
        select(
            col(Queued.position),
            col(Queued.event_id),
            col(Event.type),
            col(Queued.taken),
            col(Queued.size),
            col(Queued.gives_up_at),
        )
        .join(Event, col(Event.id) == col(Queued.event_id))
        .where(col(Queued.endpoint_id) == endpoint_id)
        .order_by(col(Queued.position))
        .limit(most)
    )
    return [Head(*row) for row in found]


async def take_from_queue(
    session: AsyncSession, endpoint_id: str, through: int | None, begun: tuple[int, int] | None
) -> None:
    """Drops what is in deliveries: everything up to the position `through`, and of the one `begun` (position,
    taken) what is taken."""
    own = col(Queued.endpoint_id) == endpoint_id
    if through is not None:
        await changed(session, delete(Queued).where(own, col(Queued.position) <= through))
    if begun is not None:
        position, taken = begun
        await changed(
            session, update(Queued).where(own, col(Queued.position) == position).values(taken=taken)
        )


async def insert_deliveries(
    session: AsyncSession, rows: Sequence[tuple[str, int, str, str, int]], alike: Mapping[str, Any]
) -> None:
    """Writes deliveries: id, seq, event_type, holds (as JSON text) and size of each, all else as in `alike`.
    As one parameter: a thousand rows spelt out take five times as long."""
    made = given(session, rows, id=Text, seq=BigInteger, event_type=Text, holds=Text, size=Integer)
    holds = cast(made.c.holds, JSONB) if dialect_of(session) == "postgresql" else made.c.holds
    own = {"id": made.c.id, "seq": made.c.seq, "event_type": made.c.event_type, "size": made.c.size}
    same = {name: literal(value, _DELIVERIES.c[name].type) for name, value in alike.items()}
    columns = {**own, "holds": holds, **same}
    await session.execute(insert(_DELIVERIES).from_select(list(columns), select(*columns.values())))


def deliveries_of(
    endpoint_id: str | ColumnElement[str], status: DeliveryStatus | None = None, event_type: str | None = None
) -> Select[Delivery]:
    """The deliveries of an endpoint, those of one status or type; unordered."""
    chosen = select(Delivery).where(col(Delivery.endpoint_id) == endpoint_id)
    if status is not None:
        chosen = chosen.where(col(Delivery.status) == status)
    if event_type is not None:
        chosen = chosen.where(col(Delivery.event_type) == event_type)
    return chosen


async def deliveries(session: AsyncSession, delivery_ids: Collection[str]) -> Mapping[str, Delivery]:
    """These deliveries, those of deleted endpoints left out."""
    found = await session.execute(
        select(Delivery)
        .join(Endpoint, col(Endpoint.endpoint_id) == col(Delivery.endpoint_id))
        .where(col(Delivery.id).in_(delivery_ids), living)
    )
    return {delivery.id: delivery for delivery in found.scalars()}


async def locked_delivery(session: AsyncSession, delivery_id: str) -> Delivery | None:
    """The delivery as it is now, for a change. Its endpoint is locked already."""
    found = await session.execute(
        select(Delivery)
        .where(col(Delivery.id) == delivery_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found.scalar_one_or_none()


async def make_due(session: AsyncSession, endpoint_id: str, at: datetime) -> None:
    """Lets everything that waits for its next attempt be attempted now."""
    await changed(
        session,
        update(Delivery)
        .where(
            col(Delivery.endpoint_id) == endpoint_id,
            col(Delivery.status) == DeliveryStatus.PENDING,
            col(Delivery.next_attempt_at) > at,
        )
        .values(next_attempt_at=at),
    )


async def disabled(session: AsyncSession) -> Sequence[Endpoint]:
    """The endpoints that wait to be enabled."""
    found = await session.execute(select(Endpoint).where(~col(Endpoint.enabled), living))
    return found.scalars().all()


async def deleted_before(session: AsyncSession, at: datetime) -> Sequence[str]:
    """The ids of the endpoints that were deleted before then and are still to be cleared away."""
    found = await session.execute(select(col(Endpoint.endpoint_id)).where(col(Endpoint.deleted_at) < at))
    return found.scalars().all()

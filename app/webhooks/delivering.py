"""The rows of deliveries as a deliverer reads and settles them: many at once."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import changed
from app.webhooks import expanding, queries
from app.webhooks.expanding import Parcel
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint
from app.webhooks.schedule import Health

IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, or that there will be none: what is to be written into the delivery's row."""

    delivery_id: str
    status: DeliveryStatus
    attempts: int  # made now: 1, or 0
    status_code: int | None
    error: str | None
    next_attempt_at: datetime | None


async def due(
    session: AsyncSession, endpoint_id: str, at: datetime, most: int, in_hand: Collection[str]
) -> list[Delivery]:
    """The deliveries that are due, but for those `in_hand`; first attempts in the order of creation."""
    found = (
        select(Delivery)
        .where(
            col(Delivery.endpoint_id) == endpoint_id,
            text("webhook_deliveries.status = 0"),  # in these words the index has it
            col(Delivery.next_attempt_at) <= at,
            col(Delivery.id).not_in(in_hand),
        )
        .order_by(col(Delivery.next_attempt_at), col(Delivery.seq))
        .limit(most)
    )
    return list((await session.execute(found)).scalars())


def first_of(deliveries: Sequence[Delivery], events: int) -> Sequence[Delivery]:
    """The first of them, of not more than so many events together; one at least."""
    left = events
    for place, delivery in enumerate(deliveries):
        left -= delivery.size
        if left < 0:
            return deliveries[: max(1, place)]
    return deliveries


async def split(session: AsyncSession, name: str, delivery: Delivery, events: int) -> None:
    """Makes several deliveries, of up to so many events each, of one that was never attempted. They come
    next, in order. Does nothing if `name` has lost the lease, or the delivery is not as it was. The caller
    commits."""
    endpoint = await queries.locked(session, delivery.endpoint_id)
    if endpoint is None or endpoint.leased_by != name:
        return
    row = await queries.locked_delivery(session, delivery.id)
    if row is None or row.status != DeliveryStatus.PENDING or row.attempts or row.holds != delivery.holds:
        return
    due_at = row.next_attempt_at or row.created_at
    first, *others = [_parcel(row.event_type, holds) for holds in portions(row.holds, events)]
    row.holds, row.size, row.next_attempt_at = first.holds, first.size, due_at - 2 * _MOMENT
    ids = await expanding.add(session, endpoint, others, row.created_at)
    await changed(
        session,
        update(Delivery)
        .where(col(Delivery.id).in_(ids))
        .values(next_attempt_at=due_at - _MOMENT, gives_up_at=row.gives_up_at),
    )


_MOMENT = timedelta(microseconds=1)


def portions(holds: Sequence[Sequence[Any]], most: int) -> list[list[list[Any]]]:
    """The same parts of events in lists of up to so many events each."""
    made, room = [list[list[Any]]()], most
    for event_id, first, count in holds:
        place, end = first, first + count
        while place < end:
            if not room:
                made.append([])
                room = most
            taken = min(end - place, room)
            made[-1].append([event_id, place, taken])
            place, room = place + taken, room - taken
    return made


def _parcel(event_type: str, holds: list[list[Any]]) -> Parcel:
    return Parcel(event_type=event_type, holds=holds, size=sum(count for _, _, count in holds))


async def settle(session: AsyncSession, endings: Sequence[Ending], at: datetime) -> None:
    """Writes how attempts ended. What somebody else has settled meanwhile stays as it is."""
    delivered, others = defaultdict[int | None, list[str]](list), list[Ending]()
    for ending in endings:
        if ending.status is DeliveryStatus.DELIVERED:
            delivered[ending.status_code].append(ending.delivery_id)
        else:
            others.append(ending)
    for status_code, ids in delivered.items():
        for first in range(0, len(ids), IDS_AT_ONCE):
            await _deliver(session, ids[first : first + IDS_AT_ONCE], status_code, at)
    if others:
        connection = await session.connection()
        await connection.execute(_FAIL, [_bound(ending) for ending in others])


async def _deliver(session: AsyncSession, ids: Sequence[str], status_code: int | None, at: datetime) -> None:
    await changed(
        session,
        update(Delivery)
        .where(col(Delivery.id).in_(ids), text("webhook_deliveries.status = 0"))
        .values(
            status=DeliveryStatus.DELIVERED,
            attempts=col(Delivery.attempts) + 1,
            status_code=status_code,
            error=None,
            delivered_at=at,
            next_attempt_at=None,
        ),
    )


_FAIL = (
    update(Delivery.__table__)  # type: ignore[attr-defined]
    .where(col(Delivery.id) == bindparam("this"), text("webhook_deliveries.status = 0"))
    .values(
        status=bindparam("to_status"),
        attempts=col(Delivery.attempts) + bindparam("more"),
        status_code=bindparam("answered"),
        error=bindparam("said"),
        next_attempt_at=bindparam("again_at"),
    )
)


def _bound(ending: Ending) -> dict[str, object]:
    return {
        "this": ending.delivery_id,
        "to_status": ending.status,
        "more": ending.attempts,
        "answered": ending.status_code,
        "said": ending.error,
        "again_at": ending.next_attempt_at,
    }


async def note_health(session: AsyncSession, endpoint_id: str, health: Health) -> None:
    """Writes what is known of an endpoint."""
    await changed(
        session,
        update(Endpoint)
        .where(col(Endpoint.endpoint_id) == endpoint_id)
        .values(failures=health.failures, failing_since=health.failing_since, rests_until=health.rests_until),
    )


def health_of(endpoint: Endpoint) -> Health:
    """What its row knows of it."""
    return Health(endpoint.failures, endpoint.failing_since, endpoint.rests_until)

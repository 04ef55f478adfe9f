"""Expansion: the head of an endpoint's queue becomes deliveries, in the order of creation.

Both happen in one transaction, so that each event is in exactly one delivery; which of them an event is in
never changes once that was attempted, and so a delivery's body is the same at every attempt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import now
from app.ids import message_ids
from app.webhooks import queries
from app.webhooks.models import BATCH, DeliveryStatus, Endpoint
from app.webhooks.queries import Head
from app.webhooks.schedule import GIVES_UP_AFTER

MAX_BATCH = 500
HEADS_AT_ONCE = 1_000  # rows of the queue that are looked at in one transaction

EXPIRED = "Not delivered within three days: the endpoint could not be reached, or was disabled."


@dataclass(slots=True)
class Parcel:
    """What becomes a delivery: parts of events, [event_id, first, count] each."""

    expired: bool = False
    event_type: str = ""
    holds: list[list[Any]] = field(default_factory=list)
    size: int = 0

    def put(self, head: Head, first: int, most: int) -> int:
        """Adds of an event those from `first`, at most so many; returns how many."""
        count = min(most, head.size - first)
        self.event_type = head.event_type
        self.holds.append([head.event_id, first, count])
        self.size += count
        return count


@dataclass(slots=True)
class Cut:
    """What is taken from a queue: the parcels; everything `through` a position; one that is `begun`."""

    parcels: list[Parcel] = field(default_factory=list)
    through: int | None = None
    begun: tuple[int, int] | None = None


def cut(heads: Iterable[Head], batch_size: int, want: int, at: datetime) -> Cut:
    """Fills `want` parcels of up to `batch_size` events from a queue's head. Beside them, each event that has
    waited too long becomes parcels of its own, for nothing but the record."""
    made, open_parcel, full = Cut(), Parcel(), 0
    for head in heads:
        taken = head.taken
        expired = head.gives_up_at <= at
        while taken < head.size and (expired or full < want):
            parcel = Parcel(expired=True) if expired else open_parcel
            if not parcel.size:
                made.parcels.append(parcel)
            taken += parcel.put(head, taken, MAX_BATCH if expired else batch_size - parcel.size)
            if not expired and parcel.size == batch_size:
                open_parcel, full = Parcel(), full + 1
        if taken < head.size:
            made.begun = (head.position, taken) if taken > head.taken else None
            break
        made.through = head.position
    return made


async def expand(session: AsyncSession, endpoint: Endpoint, want: int) -> int:
    """Makes up to `want` PENDING deliveries, due at once, of what waits in the endpoint's queue; how many
    they are, together with the FAILED ones that what has waited for three days becomes beside them.

    Locks the endpoint's row. The caller commits.
    """
    current = await queries.locked(session, endpoint.endpoint_id)
    if current is None:
        return 0
    heads = await queries.head(session, current.endpoint_id, min(want * current.batch_size, HEADS_AT_ONCE))
    at = await now(session)
    made = cut(heads, current.batch_size, want, at)
    await _store(session, current, made, at)
    return len(made.parcels)


async def expire(session: AsyncSession, endpoint_id: str) -> int:
    """Makes FAILED deliveries of what has waited in the queue of an endpoint for three days; how many they
    are. `expand` does this where an endpoint is posted to; this is for those that are disabled."""
    endpoint = await queries.locked(session, endpoint_id)
    if endpoint is None:
        return 0
    at = await now(session)
    heads = await queries.head(session, endpoint_id, HEADS_AT_ONCE)
    made = cut([head for head in heads if head.gives_up_at <= at], endpoint.batch_size, 0, at)
    await _store(session, endpoint, made, at)
    return len(made.parcels)


async def _store(session: AsyncSession, endpoint: Endpoint, made: Cut, at: datetime) -> None:
    if made.parcels:
        await add(session, endpoint, made.parcels, at)
    await queries.take_from_queue(session, endpoint.endpoint_id, made.through, made.begun)


async def add(
    session: AsyncSession, endpoint: Endpoint, parcels: Sequence[Parcel], at: datetime
) -> Sequence[str]:
    """Writes the next deliveries of a locked endpoint; their ids."""
    ids, first_seq = message_ids(len(parcels)), endpoint.last_seq + 1
    endpoint.last_seq += len(parcels)
    await session.flush()
    numbered = list(zip(ids, range(first_seq, first_seq + len(ids)), parcels, strict=True))
    for expired in (True, False):
        rows = [
            (
                delivery_id,
                seq,
                body_type(endpoint, parcel.size, parcel.event_type),
                orjson.dumps(parcel.holds).decode(),
                parcel.size,
            )
            for delivery_id, seq, parcel in numbered
            if parcel.expired is expired
        ]
        if rows:
            await queries.insert_deliveries(session, rows, _begin(endpoint, expired, at))
    return ids


def body_type(endpoint: Endpoint, size: int, event_type: str) -> str:
    """The type of a body of so many events, the only one of which is of `event_type`."""
    return BATCH if endpoint.batch_size > 1 or size > 1 else event_type


def _begin(endpoint: Endpoint, expired: bool, at: datetime) -> dict[str, Any]:
    """How deliveries begin."""
    return {
        "endpoint_id": endpoint.endpoint_id,
        "status": DeliveryStatus.FAILED if expired else DeliveryStatus.PENDING,
        "attempts": 0,
        "error": EXPIRED if expired else None,
        "created_at": at,
        "next_attempt_at": None if expired else at,
        "gives_up_at": at if expired else at + GIVES_UP_AFTER,
    }

"""Who posts to an endpoint: one deliverer at a time, by a lease in its row and the database's clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, exists, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import UtcDateTime, changed, now
from app.events.models import Event
from app.webhooks.models import Delivery, Endpoint, Queued

LEASE = timedelta(seconds=10)


# Built once: it is asked four times a second, and building it took longer than answering it. A row for each
# endpoint, or one without: events wait to be dispatched even if nobody wants them.
_EVENTS = select(exists().where(col(Event.dispatched_at).is_(None)).label("undispatched")).subquery()
_LOOK = (
    select(
        _EVENTS.c.undispatched,
        Endpoint,
        exists().where(col(Queued.endpoint_id) == col(Endpoint.endpoint_id)),
        exists().where(
            col(Delivery.endpoint_id) == col(Endpoint.endpoint_id),
            text("webhook_deliveries.status = 0"),
            col(Delivery.next_attempt_at) <= bindparam("at", type_=UtcDateTime),
        ),
    )
    .select_from(_EVENTS)
    .outerjoin(Endpoint, col(Endpoint.deleted_at).is_(None))
)


@dataclass(frozen=True, slots=True)
class Seen:
    """An endpoint at one moment: whether events wait in its queue, and whether a delivery is due."""

    endpoint: Endpoint
    queued: bool
    due: bool

    def is_free(self, at: datetime) -> bool:
        """Whether there is work that nobody does."""
        endpoint = self.endpoint
        return (
            (self.queued or self.due)
            and endpoint.enabled
            and (endpoint.leased_until is None or endpoint.leased_until <= at)
            and (endpoint.rests_until is None or endpoint.rests_until <= at)
        )


@dataclass(frozen=True, slots=True)
class Outlook:
    """All endpoints that are not deleted, and whether there are events that were not dispatched yet."""

    at: datetime
    seen: Sequence[Seen]
    undispatched: bool


async def look(session: AsyncSession) -> Outlook:
    """What there is to do, by one statement that reads nothing but ends of indexes."""
    at = await now(session)
    rows = (await session.execute(_LOOK, {"at": at})).all()
    seen = [Seen(row[1], bool(row[2]), bool(row[3])) for row in rows if row[1] is not None]
    return Outlook(at, seen, bool(rows[0].undispatched))


async def take(
    session: AsyncSession, name: str, endpoint_ids: Collection[str], at: datetime
) -> list[Endpoint]:
    """Takes those of the endpoints that are still free and enabled."""
    free = (
        select(col(Endpoint.endpoint_id))
        .where(
            col(Endpoint.endpoint_id).in_(endpoint_ids),
            or_(col(Endpoint.leased_until).is_(None), col(Endpoint.leased_until) <= at),
            *_alive(),
        )
        .with_for_update(skip_locked=True)
    )
    found = list((await session.execute(free)).scalars())
    if not found:
        return []
    taking = (
        update(Endpoint)
        .where(col(Endpoint.endpoint_id).in_(found))
        .values(leased_by=name, leased_until=at + LEASE)
        .returning(Endpoint)
    )
    return list((await session.execute(taking)).scalars())


async def renew(
    session: AsyncSession, name: str, endpoint_ids: Collection[str], at: datetime
) -> dict[str, Endpoint]:
    """Locks and renews those that are still ours: nobody has taken them, late as we may be. Deleted and
    disabled ones too, whose results are still to be written."""
    renewing = (
        update(Endpoint)
        .where(col(Endpoint.endpoint_id).in_(endpoint_ids), col(Endpoint.leased_by) == name)
        .values(leased_until=at + LEASE)
        .returning(Endpoint)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return {endpoint.endpoint_id: endpoint for endpoint in (await session.execute(renewing)).scalars()}


async def give_back(session: AsyncSession, name: str, endpoint_ids: Collection[str]) -> None:
    """Lets others have them now."""
    await changed(
        session,
        update(Endpoint)
        .where(col(Endpoint.endpoint_id).in_(endpoint_ids), col(Endpoint.leased_by) == name)
        .values(leased_by=None, leased_until=None),
    )


def _alive() -> tuple[ColumnElement[bool], ...]:
    return col(Endpoint.enabled).is_(True), col(Endpoint.deleted_at).is_(None)

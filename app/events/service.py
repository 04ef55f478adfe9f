"""Writing events: always in the transaction that makes them true."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database, changed, now
from app.events.models import Event
from app.ids import new_uuid

PRUNED_AT_ONCE = 5_000


async def record(session: AsyncSession, event_type: str, campaign_no: int, data: dict[str, Any]) -> None:
    """Writes that `event_type` happened to a campaign, with `data` as it was at that moment."""
    session.add(
        Event(
            id=new_uuid(), type=event_type, campaign_no=campaign_no, data=data, created_at=await now(session)
        )
    )


async def prune(database: Database, age: timedelta) -> None:
    """Deletes events older than `age`, in chunks that no writer has to wait for."""
    deleted = PRUNED_AT_ONCE
    while deleted == PRUNED_AT_ONCE:
        async with database.transaction() as session:
            old = (
                select(col(Event.id))
                .where(col(Event.created_at) < await now(session) - age)
                .order_by(col(Event.created_at))
                .limit(PRUNED_AT_ONCE)
            )
            deleted = await changed(session, delete(Event).where(col(Event.id).in_(old)))

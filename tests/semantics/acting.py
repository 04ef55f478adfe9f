"""What tests of a campaign's life say: bring it to a status, act on it, let two act at once."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text, update
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import lifecycle, queries, service
from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.database import Database
from app.errors import AppError
from app.events.models import Event
from app.users.models import User
from tests.integration.campaigning import add_users, create, read, start, work

SOON = datetime.now(UTC) + timedelta(hours=1)
LATER = SOON + timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
BREAKS_FOR_ODD = "{{ 1 // receiver.number }}"


async def act(database: Database, action: str, campaign_id: str = "news", **given: Any) -> Campaign:
    """One of the service's changes in a transaction of its own."""
    async with database.transaction() as session:
        changed: Campaign = await getattr(service, action)(session, campaign_id, **given)
        return changed


async def schedule(
    database: Database, at: datetime = SOON, stop_at: datetime | None = None, capacity: int | None = None
) -> Campaign:
    """Starts it later."""
    needed = await room.needed_to_start(database, "news", capacity)
    return await act(database, "start", scheduled_for=at, stop_at=stop_at, capacity=capacity, needed=needed)


async def resume(database: Database, capacity: int | None = None, campaign_id: str = "news") -> Campaign:
    """Resumes it as the API does."""
    needed = await room.needed_to_resume(database, campaign_id, capacity)
    return await act(database, "resume", campaign_id, capacity=capacity, needed=needed)


async def retry(
    database: Database, *reasons: str, capacity: int | None = None, campaign_id: str = "news"
) -> Campaign:
    """Retries these reasons; without any, those of FAILED."""
    return await act(database, "retry", campaign_id, reasons=list(reasons) or None, capacity=capacity)


async def release(database: Database, campaign: Campaign) -> None:
    """What housekeeping does after the end."""
    async with database.transaction() as session:
        await room.release_unsent(session, campaign.campaign_no)


async def set_columns(database: Database, **columns: Any) -> None:
    """Moves times of the campaign, as if the clock had moved."""
    async with database.transaction() as session:
        await session.execute(update(Campaign).values(**columns))


async def come_due(database: Database, capacity: int | None = None, **columns: Any) -> Campaign:
    """Moves the campaign's times and lets housekeeping find it."""
    await set_columns(database, **columns)
    async with database.read() as session:
        due = await queries.due(session, datetime.now(UTC))
    assert len(due) == 1
    settled = await settle(database, due[0], capacity)
    assert settled is not None
    return settled


async def settle(database: Database, campaign_no: int, capacity: int | None = None) -> Campaign | None:
    """What housekeeping does with a campaign that is due."""
    needed = await room.needed_when_due(database, campaign_no, capacity)
    async with database.transaction() as session:
        return await lifecycle.settle_due(session, campaign_no, capacity, needed)


async def set_user(database: Database, user_id: str, **columns: Any) -> None:
    """Changes a user."""
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == user_id).values(**columns))


async def events(database: Database) -> list[str]:
    """The types of what happened, in order."""
    async with database.read() as session:
        return list((await session.execute(select(col(Event.type)).order_by(col(Event.id)))).scalars())


async def people(database: Database) -> None:
    """A sender; ann, who is sent to; odd, for whom rendering fails."""
    await add_users(database, ["sender"])
    await add_users(database, ["ann"], custom={"number": 1})
    await add_users(database, ["odd"], custom={"number": 0})


async def in_status(database: Database, status: Status, **given: Any) -> Campaign:
    """A campaign to ann, who gets it, and odd, for whom it fails."""
    await people(database)
    template = {"text": BREAKS_FOR_ODD}
    await create(database, **{"user_ids": ["ann", "odd"], "message_template": template, **given})
    if status == Status.SCHEDULED:
        await schedule(database)
    elif status != Status.DRAFT:
        await start(database)
    if status == Status.PAUSED:
        await act(database, "pause")
    elif status == Status.STOPPED:
        await act(database, "stop")
    elif status == Status.COMPLETED:
        await work(database)
    campaign = await read(database)
    assert campaign.status == status
    return campaign


async def at_once(
    database: Database, *calls: Coroutine[Any, Any, Campaign | None]
) -> list[Campaign | AppError | None]:
    """Lets all calls come to the campaign's row, held until each of them waits, and go on together."""
    async with database.transaction() as holder:
        await queries.locked(holder, "news")
        tasks = [asyncio.create_task(call) for call in calls]
        if database.dialect == "postgresql":
            async with asyncio.timeout(60):
                while await _waiting(database) < len(tasks):
                    await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert isinstance(result, Campaign | AppError | None), result
    return results  # type: ignore[return-value]


async def _waiting(database: Database) -> int:
    async with database.read() as session:
        waiting = await session.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
        return int(waiting.scalar_one())

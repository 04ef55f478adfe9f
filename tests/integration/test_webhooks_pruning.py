"""What is cleared away, and what is kept because somebody needs it."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlmodel import SQLModel, col

from app.database import Database
from app.events import service as events
from app.events.models import Event
from app.webhooks import expanding, pruning, service
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint, Queued
from app.webhooks.queries import QUEUED
from tests.integration.campaigning import add_users, create, start, work
from tests.integration.hearing import SETTINGS, deliveries, dispatch, expand, listen

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


async def count(database: Database, table: type[SQLModel]) -> int:
    async with database.read() as session:
        return int((await session.execute(select(func.count()).select_from(table))).scalar_one())


async def happening(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    await start(database)
    await work(database)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    monkeypatch.setattr(events, "PRUNED_AT_ONCE", 2)


async def test_settled_deliveries_go_after_their_time_and_pending_ones_stay(database: Database) -> None:
    endpoint = await listen(database)
    for _ in range(7):
        async with database.transaction() as session:
            await service.test(session, endpoint.endpoint_id)
    made = await deliveries(database, endpoint)
    async with database.transaction() as session:
        for place, each in enumerate(made[:6]):
            status = [DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.PENDING][place % 3]
            old = {"id": f"00000000-{place:04}-7" + each.id[15:], "status": status}
            await session.execute(update(Delivery).where(col(Delivery.id) == each.id).values(**old))
        newest = update(Delivery).where(col(Delivery.id) == made[6].id)
        await session.execute(newest.values(status=DeliveryStatus.DELIVERED))
    await pruning.prune(database, WEEK)
    left = await deliveries(database, endpoint)
    assert [each.seq for each in left] == [3, 6, 7]


async def test_events_stay_as_long_as_somebody_is_to_be_told(database: Database) -> None:
    endpoint = await listen(database)
    await happening(database)
    async with database.transaction() as session:
        await session.execute(update(Event).values(created_at=LONG_AGO))
    await events.prune(database, WEEK, QUEUED)  # nobody was told yet
    assert await count(database, Event) == 4
    async with database.transaction() as session:
        await session.execute(update(Endpoint).values(created_at=LONG_AGO))
    await dispatch(database)
    async with database.transaction() as session:
        await session.execute(update(Event).values(dispatched_at=LONG_AGO))
    await events.prune(database, WEEK, QUEUED)  # they are in its queue
    assert await count(database, Event) == 4
    await expand(database, endpoint)
    await events.prune(database, WEEK, QUEUED)
    assert await count(database, Event) == 0


async def test_events_that_nobody_wants_go_though_nobody_dispatches(database: Database) -> None:
    await happening(database)
    async with database.transaction() as session:
        await session.execute(update(Event).values(created_at=LONG_AGO))
    await events.prune(database, WEEK, QUEUED)
    assert await count(database, Event) == 0


async def test_events_outlive_every_delivery_that_may_be_repeated() -> None:
    assert pruning.events_needed_for(WEEK) >= WEEK + 2 * timedelta(days=3)


async def test_what_belongs_to_a_deleted_endpoint_is_cleared_away(database: Database) -> None:
    gone, other = await listen(database), await listen(database)
    await happening(database)
    await dispatch(database)
    async with database.transaction() as session:
        await expanding.expand(session, gone, 3)
        await service.delete(session, gone.endpoint_id)
    await pruning.clear_deleted(database)
    assert await count(database, Endpoint) == 2  # a deliverer may be writing still
    async with database.transaction() as session:
        deleted = update(Endpoint).where(col(Endpoint.endpoint_id) == gone.endpoint_id)
        await session.execute(deleted.values(deleted_at=LONG_AGO))
    await pruning.clear_deleted(database)
    assert (await count(database, Endpoint), await count(database, Delivery)) == (1, 0)
    assert await expand(database, other) == await count(database, Queued) + 4


async def test_what_waits_for_the_disabled_is_given_up_after_three_days(database: Database) -> None:
    endpoint = await listen(database)
    await happening(database)
    await dispatch(database)
    async with database.transaction() as session:
        await expanding.expand(session, endpoint, 1)
        await service.update(session, endpoint.endpoint_id, {"enabled": False}, SETTINGS)
    await pruning.expire_disabled(database)
    assert [each.status for each in await deliveries(database, endpoint)] == [DeliveryStatus.PENDING]
    async with database.transaction() as session:
        await session.execute(update(Queued).values(gives_up_at=LONG_AGO))
        await session.execute(update(Delivery).values(gives_up_at=LONG_AGO))
    await pruning.expire_disabled(database)
    made = await deliveries(database, endpoint)
    assert {each.status for each in made} == {DeliveryStatus.FAILED}
    assert sum(each.size for each in made) == 4 and await count(database, Queued) == 0
    assert all(each.error and "three days" in each.error and not each.next_attempt_at for each in made)

"""Dispatching: every event once to each endpoint that wants it, in the order of creation."""

import asyncio
from datetime import datetime, timedelta
from random import Random

import pytest
from sqlalchemy import event as hooks
from sqlalchemy import func, select
from sqlmodel import col

from app.database import Database, now
from app.events.models import Event
from app.ids import new_uuid
from app.webhooks import dispatching, queries, service
from app.webhooks.models import Endpoint, Queued
from tests.api.counting import statements
from tests.integration.campaigning import add_users, create, start, work
from tests.integration.delivering import working
from tests.integration.hearing import SETTINGS, dispatch, hear, listen, types


class Killed(BaseException):
    """The process is gone in the middle of a statement."""


async def happen(database: Database, name: str, at: datetime, event_id: str | None = None) -> None:
    """An event whose data says which it is."""
    async with database.transaction() as session:
        data = {"name": name}
        session.add(Event(id=event_id or new_uuid(), type="campaign.paused", data=data, created_at=at))


async def clock(database: Database) -> datetime:
    async with database.transaction() as session:
        return await now(session)


async def names(database: Database, endpoint: Endpoint) -> list[str]:
    return [told["campaign"]["name"] for told in await hear(database, endpoint)]


async def queued(database: Database) -> int:
    async with database.read() as session:
        return int((await session.execute(select(func.count()).select_from(Queued))).scalar_one())


@pytest.mark.parametrize("seed", range(5))
async def test_each_event_once_and_in_order_whatever_commits_when(database: Database, seed: int) -> None:
    """Events commit in any order, and are dispatched in between: what was dispatched together comes in the
    order of creation, and nothing is passed over or told twice."""
    random = Random(seed)
    endpoints = [await listen(database, batch_size=random.choice([1, 3, 500])) for _ in range(3)]
    begin = await clock(database)
    waiting = [(f"{place:02}", begin + timedelta(seconds=place // 2)) for place in range(30)]
    random.shuffle(waiting)
    expected: list[str] = []
    while waiting:
        together = [waiting.pop() for _ in range(min(len(waiting), random.randint(1, 7)))]
        for name, at in together:
            await happen(database, name, at, event_id=f"{random.randrange(10**6):06}-{name}")
        assert await dispatch(database) == len(together)
        async with database.read() as session:
            of_these = col(Event.data)["name"].as_string().in_([name for name, _ in together])
            order = (col(Event.created_at), col(Event.id))
            rows = await session.execute(select(col(Event.data)).where(of_these).order_by(*order))
            expected += [data["name"] for data in rows.scalars()]
    for endpoint in endpoints:
        assert await names(database, endpoint) == expected
    assert await queued(database) == 0


async def test_an_event_committed_later_with_a_smaller_id_is_not_passed_over(database: Database) -> None:
    """Its transaction began first and commits last, after the other was dispatched and expanded."""
    endpoint = await listen(database)
    begin = await clock(database)
    first_id, second_id = sorted([new_uuid(), new_uuid()])
    if database.dialect == "sqlite":  # one writer at a time: what is left of the danger is an older id
        await happen(database, "second", begin + timedelta(seconds=1), second_id)
        assert await names(database, endpoint) == ["second"]
        await happen(database, "first", begin, first_id)
    else:
        async with database.transaction() as session:
            first = Event(id=first_id, type="campaign.paused", data={"name": "first"}, created_at=begin)
            session.add(first)
            await session.flush()
            await happen(database, "second", begin + timedelta(seconds=1), second_id)
            assert await names(database, endpoint) == ["second"]
    assert await names(database, endpoint) == ["second", "first"]


async def test_many_may_dispatch_at_once(database: Database) -> None:
    endpoint = await listen(database)
    begin = await clock(database)
    for place in range(40):
        await happen(database, f"{place:02}", begin + timedelta(milliseconds=place))
    dispatched = sum(await asyncio.gather(*(dispatching.dispatch(database) for _ in range(6))))
    assert dispatched + await dispatch(database) == 40
    assert await names(database, endpoint) == [f"{place:02}" for place in range(40)]


async def test_dying_at_any_statement_loses_and_doubles_nothing(database: Database) -> None:
    endpoint = await listen(database)
    at, told, statements = await clock(database), 0, 0
    while True:
        told += 1
        await happen(database, f"{told:02}", at + timedelta(seconds=told))
        left = statements

        def count_down(*_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        hooks.listen(database._writer.sync_engine, "before_cursor_execute", count_down)
        try:
            await hear(database, endpoint)
        except Killed:
            statements += 1
        else:
            break
        finally:
            hooks.remove(database._writer.sync_engine, "before_cursor_execute", count_down)
    assert statements > 8
    assert await names(database, endpoint) == [f"{place:02}" for place in range(1, told + 1)]


async def test_who_hears_what(database: Database) -> None:
    """Its types; what happened since it was created, disabled or not; nothing once deleted."""
    await add_users(database, ["sender", "ann"])
    await create(database, "before", user_ids=["ann"])
    await start(database, "before")
    every, chosen = await listen(database), await listen(database, "campaign.completed", "campaign.stopped")
    disabled, deleted = await listen(database, "message.new"), await listen(database)
    async with database.transaction() as session:
        await service.update(session, disabled.endpoint_id, {"enabled": False}, SETTINGS)
        await service.delete(session, deleted.endpoint_id)
    await work(database, "before")
    late = await listen(database)
    assert await types(database, every) == ["channel.created", "message.new", "campaign.completed"]
    assert await types(database, chosen) == ["campaign.completed"]
    assert await types(database, disabled) == ["message.new"]
    assert await types(database, deleted) == []
    assert await types(database, late) == []


async def test_the_others_are_told_when_an_endpoint_is_disabled(database: Database) -> None:
    broken, other = await listen(database), await listen(database, "webhook_endpoint.disabled")
    async with database.transaction() as session:
        assert await service.disable(session, broken.endpoint_id, "It answered 410 Gone.") is not None
        assert await service.disable(session, broken.endpoint_id, "again") is None
    (told,) = await hear(database, other)
    assert told["type"] == "webhook_endpoint.disabled"
    said = told["webhook_endpoint"]
    assert (said["endpoint_id"], said["disabled_reason"]) == (broken.endpoint_id, "It answered 410 Gone.")
    assert not said["enabled"] and not {"url", "secret", "previous_secret"} & set(said)
    assert await types(database, broken) == []


async def test_no_row_is_written_for_messages_that_nobody_wants(database: Database) -> None:
    await listen(database, "campaign.completed")
    gone = await listen(database)
    async with database.transaction() as session:
        await service.delete(session, gone.endpoint_id)
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    await start(database)
    await work(database)
    async with database.read() as session:
        kinds = set((await session.execute(select(col(Event.type)))).scalars())
    assert kinds == {"campaign.started", "campaign.completed"}


async def test_messages_are_a_row_a_slice_however_many_they_are(database: Database) -> None:
    endpoint = await listen(database, "message.new", batch_size=500)
    people = [f"u{number:04}" for number in range(700)]
    await add_users(database, ["sender", *people])
    await create(database, user_ids=people)
    await start(database)
    campaign = await work(database)
    async with database.read() as session:
        sizes = (
            await session.execute(select(col(Event.size)).where(col(Event.type) == "message.new"))
        ).scalars()
        sent = (campaign.final_stats or {})["sent"]
        assert sum(sizes) == sent == 700
    told = await hear(database, endpoint)
    assert sorted(each["message"]["target_id"] for each in told) == people


async def test_an_idle_deliverer_looks_by_one_statement(database: Database) -> None:
    """And what happens while nobody listens waits for nobody either."""
    async with working(database) as work:
        with statements() as asked:
            assert await work.deliverer.turn() > 1
        assert len([each for each in asked if "clock_timestamp" not in each]) == 1
        await happen(database, "unheard", await clock(database))
        work.deliverer._next_look = 0
        await work.deliverer.turn()
    async with database.read() as session:
        assert not await queries.any_undispatched(session)

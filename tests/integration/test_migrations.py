"""Down to the first schema and up again with data: what came of it is known, and nothing is sent twice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, update
from sqlmodel import col

from app import migrations
from app.campaigns.models import Campaign
from app.channels.models import Channel
from app.database import Database
from app.ledger.models import Plan
from app.webhooks import queries as webhooks
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    create,
    messages,
    outcomes,
    read,
    start,
    work,
)
from tests.integration.hearing import dispatch, hear, listen
from tests.semantics.acting import BREAKS_FOR_ODD, events, resume, retry
from tests.semantics.test_reading import mark_read, stats, to_channels

FIRST_SCHEMA = "0001"
TO_CHANNELS = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}

Migrate = Callable[[Database], Awaitable[Database]]


@pytest.fixture
async def down_and_up(database_url: str) -> AsyncIterator[Migrate]:
    """Migrates while nobody is connected, and opens the database again."""
    opened: list[Database] = []

    async def migrate(database: Database) -> Database:
        await database.close()
        assert migrations.downgrade(database_url, FIRST_SCHEMA) == (migrations.head(), FIRST_SCHEMA)
        assert migrations.upgrade(database_url) == (FIRST_SCHEMA, migrations.head())
        opened.append(Database(database_url, durable=False))
        return opened[-1]

    yield migrate
    for database in opened:
        await database.close()


async def test_a_retry_in_progress_ends_and_nothing_is_planned_again(
    database: Database, down_and_up: Migrate
) -> None:
    await add_users(database, ["sender", "ann"], custom={"number": 1})
    await add_users(database, ["odd", "strange"], custom={"number": 0})
    await create(database, user_ids=["ann", "odd", "strange"], message_template={"text": BREAKS_FOR_ODD})
    await start(database)
    before = await outcomes(database, await work(database))
    await retry(database)
    database = await down_and_up(database)
    async with database.read() as session:
        plan = await session.get(Plan, (await read(database)).campaign_no)
    assert plan is not None and (plan.planned, plan.retry_reasons, plan.targets) == (True, None, 3)
    campaign = await work(database)
    await books(database, campaign)
    assert campaign.status == "COMPLETED"
    assert await outcomes(database, campaign) == before
    assert len(await messages(database)) == 1


async def test_a_campaign_to_channels_stays_one(database: Database, down_and_up: Migrate) -> None:
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "team:red", ["sender", "ann"])
    audience = await add_list(database, 1, ["team:red"], "CHANNEL")
    await create(database, "rooms", segment_ids=[audience], **TO_CHANNELS)
    await create(database, "people", user_ids=["ann"])
    database = await down_and_up(database)
    assert [(await read(database, name)).audience for name in ("rooms", "people")] == ["CHANNEL", "USER"]
    await start(database, "rooms")
    campaign = await work(database, "rooms")
    await books(database, campaign)
    assert await outcomes(database, campaign) == {"team:red": "SENT"}


async def test_who_had_read_is_counted(database: Database, down_and_up: Migrate) -> None:
    """Exactly for users; of channels, those that anybody has read."""
    await add_users(database, ["sender", "ann", "bob", "zoe"])
    await add_channel(database, "team:red", ["sender", "ann", "bob"])
    await create(database, user_ids=["ann", "bob", "zoe"])
    await start(database)
    people = await work(database)
    rooms = await to_channels(database, ["team:red"], "rooms")
    for cid, who in (("messaging:ann-news", "ann"), ("messaging:bob-news", "bob")):
        await mark_read(database, cid, who)
    for who in ("ann", "bob"):
        await mark_read(database, "team:red", who)
    database = await down_and_up(database)
    assert [(await stats(database, campaign)).users_read for campaign in (people, rooms)] == [2, 1]
    await mark_read(database, "messaging:ann-news", "ann")
    await mark_read(database, "messaging:zoe-news", "zoe")
    assert (await stats(database, people)).users_read == 3


async def test_what_a_fault_paused_waits_for_somebody(database: Database, down_and_up: Migrate) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    campaign = await start(database)
    async with database.transaction() as session:
        fault = {"status": "PAUSED", "status_reason": "INTERNAL_FAULT", "faults": 2}
        await session.execute(update(Campaign).values(**fault, resume_at=campaign.started_at))
    database = await down_and_up(database)
    campaign = await read(database)
    assert (campaign.status, campaign.faults, campaign.resume_at) == ("PAUSED", 0, None)
    await resume(database)
    assert (await work(database)).status == "COMPLETED"


async def test_webhooks_are_gone_and_what_happened_before_is_not_told(
    database: Database, down_and_up: Migrate
) -> None:
    """Events of campaigns stay; those that only endpoints were written for go with them."""
    await listen(database)
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    await start(database)
    await work(database)
    before = await events(database)
    database = await down_and_up(database)
    kept = [kind for kind in before if kind.startswith("campaign.")]
    assert len(kept) < len(before) and await events(database) == kept
    async with database.read() as session:
        assert await webhooks.listed(session) == []
    late = await listen(database)
    assert await dispatch(database) == 0
    assert await hear(database, late) == []


async def test_channels_stay_what_they_are(database: Database, down_and_up: Migrate) -> None:
    await add_users(database, ["sender", "ann", "bob", "zoe"])
    await add_channel(database, "team:red", ["sender", "ann", "bob"], team="red", custom={"floor": 2})
    await create(database, user_ids=["ann", "bob"], channel_template={"type": "messaging"})
    await start(database)
    await work(database)

    async def channels(database: Database) -> list[dict[str, Any]]:
        async with database.read() as session:
            found = await session.execute(select(Channel).order_by(col(Channel.cid)))
            return [channel.model_dump() for channel in found.scalars()]

    before = await channels(database)
    database = await down_and_up(database)
    assert await channels(database) == before and len(before) == 3
    await create(
        database, "again", user_ids=["ann", "bob", "zoe"], channel_template=None, create_channels=False
    )
    await start(database, "again")
    found = await outcomes(database, await work(database, "again"))
    assert found == {"ann": "SENT", "bob": "SENT", "zoe": "SKIPPED NO_CHANNEL"}


class Struck(Exception):
    """The process ends here."""


async def test_a_migration_that_is_struck_midway_can_be_begun_again(
    database: Database, database_url: str, down_and_up: Migrate
) -> None:
    """At every statement, on the way down and up: the database is as it was, and migrates then."""
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"], channel_template={"type": "messaging"})
    await start(database)
    await work(database)
    await database.close()
    head, statements = migrations.head(), 0
    for migrate, origin, goal in (
        (migrations.downgrade, head, FIRST_SCHEMA),
        (migrations.upgrade, FIRST_SCHEMA, head),
    ):
        at, last = 0, False
        while not last:
            at += 1
            last = strike(partial(migrate, database_url, goal), at)
            if not last:
                assert revision_of(database_url) == origin, at
        assert revision_of(database_url) == goal
        statements += at
    assert statements > 60
    database = await down_and_up(Database(database_url, durable=False))
    assert {message.text for message in await messages(database)} == {"Hello Ann"}


def strike(migrate: Callable[[], object], at: int) -> bool:
    """Migrates, and ends before the statement of this number; whether there was none."""
    before = 0

    def struck(*_: object) -> None:
        nonlocal before
        before += 1
        if before == at:
            raise Struck

    event.listen(Engine, "before_cursor_execute", struck)
    try:
        migrate()
    except Struck:
        return False
    finally:
        event.remove(Engine, "before_cursor_execute", struck)
    return True


def revision_of(url: str) -> str | None:
    engine = create_engine(migrations._sync_url(url))
    try:
        with engine.connect() as connection:
            return migrations.current(connection)
    finally:
        engine.dispose()

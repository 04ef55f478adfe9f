"""SEMANTICS, "Deleting": what is too much for one transaction is cleared away in chunks."""

import asyncio
from datetime import datetime

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.channels.distinct import cid_of, distinct_id
from app.channels.models import Member
from app.database import Database
from app.ledger import forgetting
from app.settings import load
from tests.api.conftest import eventually
from tests.integration import campaigning
from tests.integration.campaigning import (
    add_channel,
    add_users,
    books,
    engine,
    messages,
    recounted,
)
from tests.semantics.deleting import (
    AT_ONCE,
    DISTINCT,
    come_back,
    delete_users,
    erasures,
    memberships,
    sent,
    tombstone,
)
from workers.housekeeping import Housekeeping
from workers.sending import SendingLoop


@pytest.mark.usefixtures("small_chunks")
async def test_a_user_of_many_channels_is_cleared_away_in_chunks(database: Database) -> None:
    people = [f"u{number:02}" for number in range(10)]
    await add_users(database, ["sender", *people])
    campaign = await sent(database, channel_template=DISTINCT, user_ids=people)
    await delete_users(database, "sender", *people[:4], erase_messages=True)
    assert len(await memberships(database, "sender")) + len(await memberships(database, "u00")) > 0
    await recounted(database)
    await books(database, campaign)
    await forgetting.clear_deleted(database)
    for user_id in ("sender", *people[:4]):
        assert await memberships(database, user_id) == []
    assert len(await messages(database)) == 6
    assert (await books(database, campaign)).erased == 4
    await recounted(database)


async def test_deleted_users_are_members_of_nothing_when_the_answer_comes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "MEMBERSHIPS", 3)
    await add_users(database, ["ann", "bob"])
    for number in range(8):
        await add_channel(database, f"team:{number}", ["ann", "bob"])
    await delete_users(database, "ann", "bob")
    assert await memberships(database, "ann") == await memberships(database, "bob") == []
    await recounted(database)


@pytest.mark.usefixtures("small_chunks")
async def test_housekeeping_clears_away_what_the_deletion_left(database: Database, database_url: str) -> None:
    await add_users(database, ["ann"])
    for number in range(8):
        await add_channel(database, f"team:{number}", ["ann"])
    await delete_users(database, "ann")
    assert len(await memberships(database, "ann")) == 5
    settings = load(database_url=database_url)
    sending = SendingLoop(engine(database))
    housekeeping = Housekeeping(settings, database, campaigning.Silent(), sending)  # type: ignore[arg-type]
    stopping = asyncio.Event()
    running = asyncio.create_task(housekeeping.run(stopping))

    async def cleared() -> bool:
        return await memberships(database, "ann") == []

    await eventually(cleared)
    stopping.set()
    await running
    await recounted(database)


async def test_the_note_of_an_erasure_stays_until_no_batch_can_add_more(database: Database) -> None:
    """A batch that read the user before the deletion may commit a membership after it."""
    await add_users(database, ["ann"])
    await delete_users(database, "ann")
    await add_channel(database, "team:late", ["ann"])
    await forgetting.clear_deleted(database)
    assert await memberships(database, "ann") == []
    assert await erasures(database) == ["ann"]
    await forgetting.clear_deleted(database, AT_ONCE)
    assert await erasures(database) == []
    await recounted(database)


async def test_few_members_are_read_for_the_keys_of_one_chunk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "KEYED_MEMBERS", 5)
    monkeypatch.setattr(forgetting, "SECONDS_AT_ONCE", 0.0)
    await add_users(database, ["ann"])
    for number in range(4):
        await add_channel(database, f"team:{number}", ["ann", "bob", "cid"])
    await delete_users(database, "ann")
    assert await memberships(database, "ann") == ["team:1", "team:2", "team:3"]
    await forgetting.clear_deleted(database)
    assert await memberships(database, "ann") == []
    await recounted(database)


async def test_who_comes_back_is_a_new_user_and_keeps_what_is_new(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "team:old", ["ann"])
    await delete_users(database, "ann", erase_messages=True)
    await add_channel(database, "team:left", ["ann"])
    async with database.transaction() as session:
        left = update(Member).where(col(Member.cid) == "team:left")
        await session.execute(left.values(created_at=await deleted_at(database, "ann")))
    await come_back(database, "ann")
    campaign = await sent(database, channel_template=DISTINCT, user_ids=["ann"])
    await forgetting.clear_deleted(database, AT_ONCE)
    assert (await tombstone(database, "ann")).name == "Again"
    assert await memberships(database, "ann") == [cid_of("messaging", distinct_id(["sender", "ann"]))]
    assert (await books(database, campaign)).messages == 1
    assert await erasures(database) == []
    await recounted(database)


async def deleted_at(database: Database, user_id: str) -> datetime:
    at = (await tombstone(database, user_id)).deleted_at
    assert at is not None
    return at


async def test_deleted_again_before_the_first_erasure_was_over(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await delete_users(database, "ann", erase_messages=True)
    await come_back(database, "ann")
    await sent(database, channel_template=DISTINCT, user_ids=["ann"])
    assert await delete_users(database, "ann") == ["ann"]
    assert await memberships(database, "ann") == []
    assert await erasures(database) == ["ann"]

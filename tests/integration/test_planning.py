"""How an audience is cut into batches: a small one first, where more is to come."""

import pytest
from sqlalchemy import select
from sqlmodel import col

from app.database import Database
from app.ledger.models import Batch
from app.sending import planning
from app.sending.planning import Planning, plan_chunk
from tests.integration.campaigning import add_users, books, create, messages, read, start, work


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of six, the first of two; planned first eight, then twenty at a time."""
    monkeypatch.setattr(planning, "FIRST_BATCH", 2)
    monkeypatch.setattr(planning, "BATCH", 6)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 8)
    monkeypatch.setattr(planning, "CHUNK", 20)


async def planned(database: Database, users: int, **given: object) -> list[int]:
    """How large the batches of a campaign to so many are."""
    names = [f"u{number:02}" for number in range(users)]
    await add_users(database, ["sender", *names])
    await create(database, user_ids=names, **given)
    number = (await start(database)).campaign_no
    while await plan_chunk(database, number, capacity=None) != Planning.FINISHED:
        pass
    async with database.read() as session:
        sizes = await session.execute(select(col(Batch.targets)).order_by(col(Batch.batch_no)))
    return list(sizes.scalars())


async def test_the_first_batch_of_a_large_audience_is_small(database: Database) -> None:
    assert await planned(database, 31) == [2, 6, 6, 6, 6, 2, 3]


async def test_a_small_audience_is_one_batch(database: Database) -> None:
    assert await planned(database, 5) == [5]


async def test_a_pace_keeps_batches_smaller_still(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SMALLEST_BATCH", 1)
    assert await planned(database, 9, max_messages_per_second=1) == [2, 2, 2, 2, 1]


async def test_however_it_is_cut_everybody_gets_one(database: Database) -> None:
    await planned(database, 31)
    campaign = await work(database)
    assert (await books(database, campaign)).sent == 31
    sent = [message.target_id for message in await messages(database)]
    assert sorted(sent, key=str) == [f"u{number:02}" for number in range(31)]
    assert (await read(database)).status == "COMPLETED"

"""No turn of one campaign keeps others waiting, and none comes back more often than it must."""

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.database import Database
from app.segments import service as segments
from app.sending import audience, planning
from app.sending.planning import Planning, plan_chunk
from app.users.models import User
from tests.integration.campaigning import add_list, add_users, books, create, engine, read, start


async def test_a_filter_that_matches_few_is_planned_at_once_if_its_reads_are_quick(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside large campaigns each chunk costs it a turn of each of them."""
    monkeypatch.setattr(audience, "LEAST_WIDTH", 7)
    await add_users(database, ["sender", *(f"u{n:03d}" for n in range(60))], role="few")
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) < "u055").values(role="many"))
        await segments.create(
            session, {"segment_id": "few", "type": "USER", "filter": {"role": {"$eq": "few"}}}
        )
    monkeypatch.setattr(planning, "FIRST_CHUNK", 3)  # and ranges of seven: there are nine
    monkeypatch.setattr(planning, "CHUNK", 3)
    campaign = await create(database, segment_ids=["few"])
    await start(database)
    monkeypatch.setattr(audience, "SECONDS_TO_SEARCH", 60.0)
    outcomes_of_planning = [await plan_chunk(database, campaign.campaign_no, capacity=None) for _ in range(2)]
    assert outcomes_of_planning == [Planning.STORED, Planning.FINISHED]
    await create(database, "slowly", segment_ids=["few"])
    slowly = await start(database, "slowly")
    monkeypatch.setattr(audience, "SECONDS_TO_SEARCH", 0.0)
    chunks = 1
    while await plan_chunk(database, slowly.campaign_no, capacity=None) is Planning.STORED:
        chunks += 1
    assert chunks > 4, "each read that finds nothing ends a chunk, so that none lasts long"
    for each in (campaign, slowly):
        assert (await books(database, await read(database, each.campaign_id))).targets == 5


async def test_a_batch_that_would_take_long_is_sent_in_parts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a pause, other writers and other campaigns wait no longer than a part of it takes."""
    monkeypatch.setattr("app.sending.strides.FEWEST", 10)
    receivers = [f"u{n:03d}" for n in range(60)]
    await add_users(database, ["sender", *receivers])
    await create(database, segment_ids=[await add_list(database, 1, receivers)])
    campaign = await start(database)
    worker = engine(database)
    worker._strides.learn(campaign.campaign_no, 60, 60.0)  # a second for each
    settled = []
    while (await read(database)).status == "IN_PROGRESS":
        await worker.turn()
        settled.append(worker.sent)
    assert settled[0] == 10 and settled[-1] == 60
    assert len(set(settled)) > 2, "learned that it is fast, but slowly"
    await books(database, await read(database))

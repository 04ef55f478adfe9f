"""The second campaign to the same users finds their channels, and writes no more than it has to."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from app.channels.distinct import members_key
from app.database import Database
from app.sending.writers import writer_of
from tests.integration.campaigning import add_users, create, start, work

TO_PAIRS = {"create_channels": False, "channel_template": None}


async def send(database: Database, name: str, users: Sequence[str] = ("ann", "bob"), **given: Any) -> None:
    await create(database, name, user_ids=list(users), **given)
    await start(database, name)
    await work(database, name)


async def test_only_distinct_channels_are_found_by_their_members(database: Database) -> None:
    """By an index that has no others: most channels have names of their own, and need not be in it."""
    await add_users(database, ["sender", "ann", "bob"])
    await send(database, "named", channel_template={"type": "messaging", "id": "{{ receiver.id }}-news"})
    await send(database, "distinct", channel_template={"type": "support"})
    async with database.transaction() as session:
        found = await (await writer_of(session)).pair_channels([members_key(["sender", "ann"])])
    assert [state.type for state in found.values()] == ["support"]


async def test_they_are_found_by_the_index(database: Database) -> None:
    """A planner that asks otherwise than the index says would look at every channel there is."""
    async with database.transaction() as session:
        if database.dialect == "postgresql":
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        steps = await plan_of_pairs(await writer_of(session))
    assert "ix_channels_distinct" in steps


async def plan_of_pairs(writer: Any) -> str:
    """How the database would find the channels of pairs."""
    execute, prefix = writer._connection.execute, "EXPLAIN "
    if "Sqlite" in type(writer).__name__:
        prefix = "EXPLAIN QUERY PLAN "
    steps: list[str] = []

    async def explain(statement: str, bound: Any) -> list[Any]:
        found = await (await execute(prefix + statement, bound)).fetchall()
        steps.extend(str(row) for row in found)
        return []

    writer._rows = explain
    await writer.pair_channels([members_key(["sender", "ann"])])
    return "\n".join(steps)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_message_into_a_channel_that_is_there_changes_no_index_of_channels(
    database: Database,
) -> None:
    """The next version of a row finds room in its own page, campaign after campaign, and no
    index has what a message changes: so none learns of it."""
    users = [f"user-{number:02d}" for number in range(60)]  # three pages, if these were full
    await add_users(database, ["sender", *users])
    await send(database, "first", users, channel_template={"type": "support"})
    before = await asked(database, "SELECT cid, (ctid::text::point)[0] FROM channels ORDER BY cid")
    for name in ("second", "third", "fourth"):
        await send(database, name, users, **TO_PAIRS)
    after = await asked(database, "SELECT cid, (ctid::text::point)[0] FROM channels ORDER BY cid")
    assert after == before and len(after) == 60
    indexes = await asked(database, "SELECT indexdef FROM pg_indexes WHERE tablename = 'channels'")
    assert indexes and not any("last_" in definition for (definition,) in indexes)


async def asked(database: Database, question: str) -> list[Any]:
    async with database.read() as session:
        return list((await session.execute(text(question))).all())

"""SEMANTICS, "Deleting": users and channels deleted while everything else goes on."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import col
from structlog.testing import capture_logs

from app.campaigns import capacity, pruning, reading, service
from app.campaigns.models import Campaign
from app.channels.models import Channel
from app.channels.service import add_members, remove_members
from app.channels.upserting import upsert_channels
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger import forgetting
from app.ledger.erasing import delete_channels
from app.ledger.models import Batch, BatchRead, Recipient
from app.ledger.queries import sums
from app.messages.models import Message
from app.sending import planning
from tests.integration import campaigning
from tests.integration.campaigning import (
    add_channel,
    add_list,
    add_users,
    books,
    engine,
    messages,
    recounted,
)
from tests.semantics.deleting import AT_ONCE, DISTINCT, come_back, delete_users, sent


async def test_everything_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines, members who come, read and go, channels and users deleted: no deadlock, and it all adds up."""
    monkeypatch.setattr(planning, "BATCH", 6)
    people = [f"u{number:02}" for number in range(36)]
    await add_users(database, ["sender", *people])
    for team in range(6):
        await add_channel(database, f"team:t{team}", [])
    shared = [f"team:t{team}" for team in range(6)]
    own = [f"messaging:{user_id}-news" for user_id in people]
    campaigns = await started(database, people, [*shared, *own[:30]])
    with capture_logs() as said:
        sending = asyncio.create_task(run(database, [campaign.campaign_id for campaign in campaigns]))
        await asyncio.gather(
            coming_and_going(database, shared, people, sending),
            reading_everywhere(database, [*shared, *own], people, sending),
            deleting_channels(database, [*own[::5], *shared[:2]], sending),
            deleting_users(database, people[::9], sending),
        )
        await sending
    assert [entry for entry in said if entry["log_level"] in ("warning", "error")] == []
    await forgetting.clear_deleted(database, AT_ONCE)
    for campaign in campaigns:
        assert (await books(database, campaign)).targets == len(people)
        async with database.read() as session:
            total = (await sums(session, [campaign.campaign_no]))[campaign.campaign_no]
        assert total.users_read <= total.users_sent
    assert await lonely_messages(database) == 0
    await recounted(database)


async def started(database: Database, people: Sequence[str], cids: Sequence[str]) -> list[Campaign]:
    templates = (
        {"type": "team", "id": "t{{ receiver.id[2:] | int % 6 }}"},
        campaigning.TO_RECEIVER,
        DISTINCT,
    )
    campaigns = []
    for number, template in enumerate(templates):
        mode = (None, "INCLUDE", "EXCLUDE")[number]
        given = {"channel_template": template, "user_ids": people, "sender_mode": mode}
        await campaigning.create(database, f"c{number}", **given)
        campaigns.append(await campaigning.start(database, f"c{number}"))
    given = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}
    audience = await add_list(database, 90, cids, "CHANNEL")
    await campaigning.create(database, "channels", segment_ids=[audience], **given)
    return [*campaigns, await campaigning.start(database, "channels")]


async def run(database: Database, campaign_ids: list[str]) -> None:
    async def one() -> None:
        worker = engine(database, seconds_to_confirm=1.0)  # what all three want is not broken
        while "IN_PROGRESS" in [(await campaigning.read(database, each)).status for each in campaign_ids]:
            await worker.turn()

    await asyncio.gather(*(one() for _ in range(3)))


async def coming_and_going(
    database: Database, cids: list[str], people: list[str], sending: asyncio.Task[None]
) -> None:
    turn = 0
    while not sending.done():
        turn += 1
        some = people[turn % 30 : turn % 30 + 6]
        await expected(database, add_members, cids[turn % 6], some)
        await expected(database, remove_members, cids[(turn + 3) % 6], some)
        inputs = [{"type": "team", "channel_id": f"t{each}", "name": str(turn)} for each in (5, 2, 4)]
        pair = {"type": "messaging", "members": ["sender", people[turn % 36]]}
        await expected(database, upsert_channels, [*inputs, pair])


async def reading_everywhere(
    database: Database, cids: list[str], people: list[str], sending: asyncio.Task[None]
) -> None:
    while not sending.done():
        for position, user_id in enumerate(people):
            for cid in (cids[position % 6], cids[6 + position]):
                await expected(database, reading.mark_read, cid, user_id)


async def deleting_channels(database: Database, cids: list[str], sending: asyncio.Task[None]) -> None:
    while not sending.done():
        await delete_channels(database, cids)
        await asyncio.sleep(0)


async def deleting_users(database: Database, user_ids: list[str], sending: asyncio.Task[None]) -> None:
    while not sending.done():
        await delete_users(database, *user_ids, erase_messages=True)
        await forgetting.clear_deleted(database, timedelta(seconds=1))
        await come_back(database, *user_ids)


async def expected(database: Database, change: Any, *given: Any) -> None:
    """The change, or that it is refused because somebody or something is deleted."""
    try:
        async with database.transaction() as session:
            await change(session, *given)
    except (AppError, Invalid) as failure:
        errors = failure.errors if isinstance(failure, Invalid) else (failure,)
        assert {error.code for error in errors} <= {"NOT_FOUND", "INVALID_INPUT"}


async def test_a_campaign_cleared_away_while_its_messages_are_read_and_deleted(database: Database) -> None:
    """Nothing of it is left, and nobody waits for another in a circle."""
    people = [f"u{number:02}" for number in range(60)]
    await add_users(database, ["sender", *people])
    campaigns = [await sent(database, f"c{number}", user_ids=people) for number in range(2)]
    async with database.transaction() as session:
        for campaign in campaigns:
            await service.remove(session, campaign.campaign_id)
            await capacity.release_unsent(session, campaign.campaign_no)

    async def read() -> None:
        for user_id in reversed(people):
            await expected(database, reading.mark_read, f"messaging:{user_id}-news", user_id)

    await asyncio.gather(
        read(),
        *(pruning.clear(database, campaign.campaign_no) for campaign in campaigns),
        delete_channels(database, [f"messaging:{user_id}-news" for user_id in reversed(people[::2])]),
    )
    async with database.read() as session:
        left = [await session.execute(select(table)) for table in (Recipient, BatchRead, Batch)]
        assert [rows.all() for rows in left] == [[], [], []]
    assert len(await messages(database)) == 60
    await recounted(database)


async def lonely_messages(database: Database) -> int:
    """Messages in channels that do not exist."""
    async with database.read() as session:
        counted = await session.execute(
            select(func.count())
            .select_from(Message)
            .outerjoin(Channel, col(Channel.cid) == col(Message.cid))
            .where(col(Channel.cid).is_(None))
        )
        return counted.scalar_one()

"""A slice that is settled all together comes out as if its entries had been settled one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from app.channels.models import Channel, Member
from app.database import Database
from app.messages.models import Message
from app.sending.blueprint import Blueprint
from app.sending.postgres import PostgresWriter
from app.sending.writing import Entries
from tests.integration.campaigning import (
    add_channel,
    add_users,
    books,
    create,
    outcomes,
    start,
    work,
)

PEOPLE = ["sender", "ann", "bob", "cid", "gone", "erased", "nobody"]
TEXT = "Hi {{ user.name }} (100 %), {{ sender.name }}\n"
TEMPLATES: list[dict[str, Any]] = [
    {"type": "messaging", "id": "{{ receiver.id }}-%s"},
    {"type": "%s"},
    {"type": "%s", "members": ["agent"], "custom": {"a": 1}, "team": "red"},
    {"type": "%s", "members": ["ann"]},
]


def of(template: dict[str, Any], name: str) -> dict[str, Any]:
    """The template, with channels that no other campaign has."""
    return {
        key: value.replace("%s", name) if isinstance(value, str) else value for key, value in template.items()
    }


async def written(database: Database, name: str) -> tuple[Any, ...]:
    """Outcomes, and all that stands in the channels, whose names have the campaign's."""
    async with database.read() as session:
        found = (await session.execute(select(Channel).order_by(col(Channel.cid)))).scalars().all()
        channels = [channel for channel in found if name in channel.cid]
        cids = [channel.cid for channel in channels]
        members = (
            select(Member).where(col(Member.cid).in_(cids)).order_by(col(Member.cid), col(Member.user_id))
        )
        messages = select(Message).where(col(Message.cid).in_(cids)).order_by(col(Message.cid))
        return (
            [
                (c.cid.replace(name, ""), c.team, c.custom, c.member_count, c.members_key, c.last_seq)
                for c in channels
            ],
            [
                (m.cid.replace(name, ""), m.user_id, m.channel_role, m.hidden, m.archived, m.read_seq)
                for m in (await session.execute(members)).scalars()
            ],
            [
                (
                    m.cid.replace(name, ""),
                    m.seq,
                    m.text,
                    m.attachments,
                    {**m.custom, "campaign_id": ""},
                    m.target_id,
                )
                for m in (await session.execute(messages)).scalars()
            ],
        )


async def population(database: Database) -> None:
    await add_users(database, ["sender", "ann", "agent"])
    await add_users(database, ["bob"], name=None)
    await add_users(database, ["cid"], name="Łucja\t\\N\n%s")
    await add_users(database, ["gone"], deactivated_at=datetime.now(UTC))
    await add_users(database, ["erased"], deleted_at=datetime.now(UTC))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("sender_mode", [None, "EXCLUDE"])
async def test_together_as_one_by_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, template: dict[str, Any], sender_mode: str | None
) -> None:
    await population(database)
    settled_together = 0
    settle = Entries.settle_alike

    def count(entries: Entries, *given: Any) -> None:
        nonlocal settled_together
        settled_together += 1
        settle(entries, *given)

    monkeypatch.setattr(Entries, "settle_alike", count)
    results = []
    for name in ("together", "single"):
        monkeypatch.setattr(Blueprint, "may_be_alike", name == "together")
        await create(
            database,
            name,
            user_ids=PEOPLE,
            message_template={"text": TEXT, "defaults": {"receiver.name": "you"}, "attachments": [{"a": 1}]},
            channel_template=of(template, name),
            sender_mode=sender_mode,
        )
        await start(database, name)
        campaign = await work(database, name)
        counted = await books(database, campaign)
        results.append((await outcomes(database, campaign), counted, await written(database, name)))
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1]
    if "id" in template:  # other ids of channels derive from the members alone
        assert results[0][2] == results[1][2]
    assert settled_together == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("frozen", [False, True])
async def test_somebody_is_faster_than_the_batch(
    database: Database, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    """A channel is created after the batch looked for it. (On SQLite nobody can come between.)"""
    await add_users(database, ["sender", "ann", "bob"])
    look, came = PostgresWriter.standing, False

    async def then_somebody_comes(writer: PostgresWriter, cids: Sequence[str]) -> Any:
        nonlocal came
        found = await look(writer, cids)
        if not came:
            came = True
            await add_channel(database, "messaging:ann-news", ["cid"], frozen=frozen)
        return found

    monkeypatch.setattr(PostgresWriter, "standing", then_somebody_comes)
    await create(database, user_ids=["ann", "bob"])
    await start(database)
    campaign = await work(database)
    expected = {"ann": "SKIPPED CHANNEL_FROZEN" if frozen else "SENT", "bob": "SENT"}
    assert await outcomes(database, campaign) == expected
    counted = await books(database, campaign)
    assert (counted.sent, counted.skipped) == ((1, 1) if frozen else (2, 0))
    async with database.read() as session:
        members = select(col(Member.user_id)).where(col(Member.cid) == "messaging:ann-news")
        found = set((await session.execute(members)).scalars())
        last_seq = (
            (await session.execute(select(col(Channel.last_seq)).order_by(col(Channel.cid)))).scalars().all()
        )
    assert found == ({"cid"} if frozen else {"cid", "ann"})
    assert last_seq == ([0, 1] if frozen else [1, 1])

"""SEMANTICS, "Deleting": eraseMessages erases "the messages sent to them in distinct channels", though they
have left, whenever it is asked, and no message to anybody else."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import capacity, pruning, service
from app.campaigns.models import Campaign
from app.channels.distinct import cid_of, distinct_id
from app.channels.service import add_members, remove_members
from app.database import Database
from app.ids import new_number
from app.ledger import forgetting
from app.ledger.erasing import Erased
from app.ledger.models import Plan
from app.messages.models import Message
from app.sending import planning, testing
from app.users.models import User
from tests.api.counting import statements
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
from tests.semantics.deleting import (
    AT_ONCE,
    DISTINCT,
    come_back,
    delete_users,
    erasures,
    sent,
    tombstone,
    unread,
)

PAIR = cid_of("messaging", distinct_id(["sender", "ann"]))


async def leave(database: Database, cid: str, *user_ids: str) -> None:
    async with database.transaction() as session:
        await remove_members(session, cid, user_ids)


async def to_channel(database: Database, campaign_id: str, cid: str, sender_id: str = "sender") -> Campaign:
    """A completed campaign to this channel."""
    audience = await add_list(database, new_number(), [cid], "CHANNEL")
    given = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}
    return await sent(database, campaign_id, sender_id=sender_id, segment_ids=[audience], **given)


async def prune(database: Database, campaign: Campaign) -> None:
    """The campaign and its ledger are gone."""
    async with database.transaction() as session:
        await service.remove(session, campaign.campaign_id)
        await capacity.release_unsent(session, campaign.campaign_no)
    await pruning.clear(database, campaign.campaign_no)
    async with database.read() as session:
        assert await session.get(Plan, campaign.campaign_no) is None


async def receivers(database: Database) -> list[str | None]:
    return sorted(str(message.target_id) for message in await messages(database))


async def test_who_had_left_the_channel_before(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    group = {"type": "support", "members": ["bob"]}
    cid = cid_of("support", distinct_id(["sender", "ann", "bob"]))
    campaigns = [
        await sent(database, "pair", channel_template=DISTINCT, user_ids=["ann", "bob"]),
        await sent(database, "group", channel_template=group, user_ids=["ann"]),
        await sent(database, "public", user_ids=["ann"]),
    ]
    await leave(database, PAIR, "ann")
    await leave(database, cid, "ann")
    await delete_users(database, "ann", erase_messages=True)
    left = [(message.cid, message.target_id) for message in await messages(database)]
    assert left == [
        (cid_of("messaging", distinct_id(["sender", "bob"])), "bob"),
        ("messaging:ann-news", "ann"),
    ]
    assert [(await books(database, campaign)).erased for campaign in campaigns] == [1, 1, 0]
    assert await unread(database, cid, "sender", "bob") == [0, 0]
    await recounted(database)


async def test_nothing_that_was_sent_is_erased_unless_that_was_asked_for(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await sent(database, channel_template=DISTINCT, user_ids=["ann", "bob"])
    await leave(database, PAIR, "ann")
    await delete_users(database, "ann", "bob")
    await forgetting.clear_deleted(database, AT_ONCE)
    assert await receivers(database) == ["ann", "bob"]


async def test_asked_for_when_the_user_was_deleted_already(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    campaign = await sent(database, channel_template=DISTINCT, user_ids=["ann", "bob"])
    assert await delete_users(database, "ann") == ["ann"]
    await forgetting.clear_deleted(database, AT_ONCE)
    buried = await tombstone(database, "ann")
    assert await delete_users(database, "ann") == []
    assert await receivers(database) == ["ann", "bob"]
    assert await erasures(database) == []
    for _ in range(2):
        assert await delete_users(database, "ann", "nobody", erase_messages=True) == ["ann"]
        assert await receivers(database) == ["bob"]
    assert await tombstone(database, "ann") == buried
    assert (await books(database, campaign)).erased == 1
    await forgetting.clear_deleted(database, AT_ONCE)
    assert await erasures(database) == []
    await recounted(database)


async def test_living_and_deleted_users_in_one_call(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await sent(database, channel_template=DISTINCT, user_ids=["ann", "bob"])
    await delete_users(database, "bob")
    assert await delete_users(database, "bob", "ann", erase_messages=True) == ["ann", "bob"]
    assert await messages(database) == []


async def test_a_message_to_another_member_stays(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    template = {"type": "support", "members": ["bob"]}
    campaign = await sent(database, channel_template=template, user_ids=["ann"])
    await delete_users(database, "bob", erase_messages=True)
    assert await receivers(database) == ["ann"]
    assert (await books(database, campaign)).erased == 0
    await delete_users(database, "ann", erase_messages=True)
    assert await messages(database) == []
    assert (await books(database, campaign)).erased == 1
    await recounted(database)


async def test_what_one_of_two_writes_to_their_channel_is_for_the_other(database: Database) -> None:
    """Not what a third person writes there, nor what is written to a channel of three."""
    await add_users(database, ["sender", "ann", "bob", "cid"])
    await sent(database, "private", channel_template=DISTINCT, user_ids=["ann"])
    await sent(database, "group", channel_template={**DISTINCT, "members": ["bob"]}, user_ids=["ann"])
    group = cid_of("messaging", distinct_id(["sender", "ann", "bob"]))
    async with database.transaction() as session:
        await add_members(session, PAIR, ["bob"])
    for campaign_id, cid, sender_id in (
        ("both", PAIR, "sender"),
        ("hers", PAIR, "ann"),
        ("third", PAIR, "cid"),
        ("three", group, "sender"),
    ):
        await to_channel(database, campaign_id, cid, sender_id)
    await delete_users(database, "bob", erase_messages=True)
    assert len(await messages(database)) == 6
    await delete_users(database, "ann", erase_messages=True)
    left = {(message.cid, message.sender_id) for message in await messages(database)}
    assert left == {(PAIR, "ann"), (PAIR, "cid"), (group, "sender")}
    assert await unread(database, PAIR, "sender") == [2]
    await recounted(database)


async def test_test_messages_to_them_too(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await campaigning.create(database, channel_template={**DISTINCT, "members": ["bob"]}, user_ids=["ann"])
    async with database.read() as session:
        trial = await testing.prepare(session, "news", ["ann"])
    async with database.transaction() as session:
        await testing.send(session, trial, capacity=None)
    await delete_users(database, "bob", erase_messages=True)
    assert await receivers(database) == ["ann"]
    await delete_users(database, "ann", erase_messages=True)
    assert await messages(database) == []


async def test_messages_of_a_campaign_that_was_deleted_since(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    template = {"type": "support", "members": ["bob"]}
    for campaign_id in ("gone", "half"):
        await sent(database, campaign_id, channel_template=template, user_ids=["ann"])
    await prune(database, await campaigning.read(database, "gone"))
    async with database.transaction() as session:
        await service.remove(session, "half")
    await delete_users(database, "bob", erase_messages=True)
    assert await receivers(database) == ["ann", "ann"]
    await delete_users(database, "ann", erase_messages=True)
    assert await messages(database) == []
    await recounted(database)


async def test_a_user_named_like_a_channel_is_not_the_channel(database: Database) -> None:
    await add_users(database, ["sender", "ann", PAIR])
    await add_channel(database, PAIR, ["sender", "ann"])
    await to_channel(database, "all", PAIR)
    await delete_users(database, PAIR, erase_messages=True)
    assert await receivers(database) == [PAIR]


async def test_who_came_back_keeps_what_came_after_the_deletion(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "SECONDS_AT_ONCE", 0.0)
    await add_users(database, ["sender", "ann"])
    old = await sent(database, "old", channel_template=DISTINCT, user_ids=["ann"])
    await leave(database, PAIR, "ann")
    await delete_users(database, "ann", erase_messages=True)
    await come_back(database, "ann")
    new = await sent(database, "new", channel_template=DISTINCT, user_ids=["ann"])
    assert len(await messages(database)) == 2
    await leave(database, PAIR, "ann")
    await forgetting.clear_deleted(database, AT_ONCE)
    assert [message.campaign_no for message in await messages(database)] == [new.campaign_no]
    assert [(await books(database, campaign)).erased for campaign in (old, new)] == [1, 0]
    assert await erasures(database) == []


async def test_who_comes_back_after_messages_were_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found is looked at again when it is erased: it may be another's by then."""
    await add_users(database, ["sender", "ann"])
    await delete_users(database, "ann", erase_messages=True)
    await come_back(database, "ann")
    campaign = await sent(database, channel_template=DISTINCT, user_ids=["ann"])
    found = [
        Erased(message.id, message.cid, message.seq, message.campaign_no, message.target_id)
        for message in await messages(database)
    ]
    await forgetting._erase_chunk(database, found)
    assert (await books(database, campaign)).messages == 1


@pytest.mark.usefixtures("small_chunks")
async def test_many_who_had_left_are_erased_in_chunks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "LEDGER_ROWS", 4)
    people = [f"u{number:02}" for number in range(10)]
    await add_users(database, ["sender", *people])
    campaigns = [
        await sent(database, f"c{number}", channel_template=DISTINCT, user_ids=people) for number in range(3)
    ]
    for user_id in people:
        await leave(database, cid_of("messaging", distinct_id(["sender", user_id])), user_id)
    await delete_users(database, *people[:9], erase_messages=True)
    assert len(await messages(database)) == 30
    await forgetting.clear_deleted(database)
    assert await receivers(database) == ["u09"] * 3
    assert [(await books(database, campaign)).erased for campaign in campaigns] == [9, 9, 9]
    await recounted(database)


async def test_thousands_of_campaigns_are_looked_up_in_few_statements(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await sent(database, "first", channel_template=DISTINCT, user_ids=["ann", "bob"])
    async with database.transaction() as session:
        usual = {"planned": True, "last_batch_no": 0, "targets": 0, "period": "2026-01", "reserved": 0}
        plans = [{"campaign_no": number, **usual} for number in range(1, 5_001)]
        await session.execute(insert(Plan), plans)
    await sent(database, "last", channel_template=DISTINCT, user_ids=["ann", "bob"])
    await leave(database, PAIR, "ann")
    with statements() as asked:
        await delete_users(database, "ann", erase_messages=True)
    assert len(asked) < 50, asked
    assert await receivers(database) == ["bob", "bob"]
    monkeypatch.setattr(forgetting, "LEDGER_ROWS", 1_000)
    await leave(database, cid_of("messaging", distinct_id(["sender", "bob"])), "bob")
    with statements() as asked:
        await delete_users(database, "bob", erase_messages=True)
    assert len(asked) < 100, asked
    assert await messages(database) == []


async def test_a_batch_that_had_read_the_user_commits_after_the_deletion(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await campaigning.create(database, channel_template=DISTINCT, user_ids=["ann"])
    await campaigning.start(database)
    await delete_users(database, "ann", erase_messages=True)
    buried = await tombstone(database, "ann")
    await seen_as_deleted_at(database, "ann", None)
    campaign = await campaigning.work(database)
    await seen_as_deleted_at(database, "ann", buried.deleted_at)
    await leave(database, PAIR, "ann")
    assert len(await messages(database)) == 1
    await forgetting.clear_deleted(database)
    assert await messages(database) == []
    assert (await books(database, campaign)).erased == 1
    assert await erasures(database) == ["ann"]


async def seen_as_deleted_at(database: Database, user_id: str, at: datetime | None) -> None:
    """What a batch reads whose transaction began before that."""
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == user_id).values(deleted_at=at))


async def test_the_note_of_who_was_not_deleted_long_enough_before_the_look_up_stays(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may still commit into a campaign that was looked up already, however long the others take."""
    monkeypatch.setattr(forgetting, "SECONDS_AT_ONCE", 0.0)
    await add_users(database, ["ann"])
    await delete_users(database, "ann", erase_messages=True)
    look_up = forgetting._campaigns

    async def deleted_meanwhile(session: AsyncSession, after: int, limit: int) -> list[int]:
        await delete_users(database, "ann", erase_messages=True)
        return await look_up(session, after, limit)

    monkeypatch.setattr(forgetting, "_campaigns", deleted_meanwhile)
    await forgetting.clear_deleted(database, timedelta(0))
    assert await erasures(database) == ["ann"]
    monkeypatch.setattr(forgetting, "_campaigns", look_up)
    await forgetting.clear_deleted(database, timedelta(0))
    assert await erasures(database) == []


async def test_while_engines_send_and_members_leave(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 5)
    people = [f"u{number:02}" for number in range(40)]
    await add_users(database, ["sender", *people])
    campaigns = []
    for number, template in enumerate([DISTINCT, {**DISTINCT, "members": ["u38"]}]):
        await campaigning.create(database, f"c{number}", channel_template=template, user_ids=people)
        campaigns.append(await campaigning.start(database, f"c{number}"))
    gone = people[::3]
    await asyncio.gather(
        *(send(database, [campaign.campaign_id for campaign in campaigns]) for _ in range(2)),
        *(leave_and_delete(database, gone[start::2]) for start in range(2)),
    )
    for user_id in gone:
        await leave_everything(database, user_id)
    await forgetting.clear_deleted(database, AT_ONCE)
    assert not set(gone) & set(await receivers(database))
    assert [(await books(database, campaign)).targets for campaign in campaigns] == [40, 40]
    assert len(await messages(database)) == 2 * (len(people) - len(gone))
    assert await erasures(database) == []
    await recounted(database)


async def send(database: Database, campaign_ids: Sequence[str]) -> None:
    worker = engine(database)
    while "IN_PROGRESS" in [(await campaigning.read(database, each)).status for each in campaign_ids]:
        await worker.turn()


async def leave_everything(database: Database, user_id: str) -> None:
    async with database.read() as session:
        rows = await session.execute(select(col(Message.cid)).where(col(Message.target_id) == user_id))
        cids = sorted(set(rows.scalars()))
    for cid in cids:
        await leave(database, cid, user_id)


async def leave_and_delete(database: Database, user_ids: Sequence[str]) -> None:
    for user_id in user_ids:
        await leave_everything(database, user_id)
        await delete_users(database, user_id, erase_messages=True)
        await leave_everything(database, user_id)

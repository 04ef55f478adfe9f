"""SEMANTICS, "Stats": `usersRead`, what is unread, and both while campaigns go on sending."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlmodel import col

from app.campaigns import reading, service
from app.campaigns.models import Campaign
from app.channels.models import Channel, Member
from app.channels.service import add_members, remove_members
from app.database import Database
from app.errors import AppError
from app.ledger.models import Recipient, RecipientStatus
from app.ledger.queries import Sums, sums
from app.messages.models import Message
from app.messages.queries import unread_counts
from app.sending import planning
from tests.integration import campaigning
from tests.integration.campaigning import (
    TO_RECEIVER,
    add_channel,
    add_list,
    add_users,
    books,
    engine,
    recounted,
    work,
)

SHARED = {"type": "team", "id": "{{ receiver.team_name }}"}


async def mark_read(database: Database, cid: str, user_id: str) -> tuple[int, ...]:
    """The campaigns that are told of it."""
    async with database.transaction() as session:
        return (await reading.mark_read(session, cid, user_id)).campaign_nos


async def sent(database: Database, campaign_id: str = "news", **given: Any) -> Campaign:
    """A completed campaign."""
    await campaigning.create(database, campaign_id, **given)
    await campaigning.start(database, campaign_id)
    campaign = await work(database, campaign_id)
    await books(database, campaign)
    return campaign


async def to_channels(database: Database, cids: Iterable[str], campaign_id: str = "news") -> Campaign:
    """A completed campaign whose targets are channels."""
    segment_no = 90 + len(campaign_id)
    audience = await add_list(database, segment_no, cids, "CHANNEL")
    template = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}
    return await sent(database, campaign_id, segment_ids=[audience], **template)


async def stats(database: Database, campaign: Campaign) -> Sums:
    async with database.read() as session:
        return (await sums(session, [campaign.campaign_no]))[campaign.campaign_no]


async def unread(database: Database, cid: str, user_id: str) -> int:
    async with database.read() as session:
        return (await unread_counts(session, [(cid, user_id)]))[cid, user_id]


async def read_at(database: Database, campaign: Campaign) -> dict[str, Any]:
    async with database.read() as session:
        rows = await session.execute(
            select(col(Recipient.target_id), col(Recipient.read_at)).where(
                col(Recipient.campaign_no) == campaign.campaign_no
            )
        )
        return {row.target_id: row.read_at for row in rows}


# ---------------------------------------------------------------- who counts


async def test_users_read_those_of_them_who_have_read_up_to_the_message(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    campaign = await sent(database, user_ids=["ann", "bob"])
    assert (await stats(database, campaign)).users_read == 0
    assert await mark_read(database, "messaging:ann-news", "ann") == (campaign.campaign_no,)
    found = await stats(database, campaign)
    assert (found.users_sent, found.users_read) == (2, 1)
    first = await read_at(database, campaign)
    assert first["ann"] is not None and first["bob"] is None
    assert await mark_read(database, "messaging:ann-news", "ann") == ()
    assert (await read_at(database, campaign)) == first
    assert (await stats(database, campaign)).users_read == 1


async def test_for_a_user_audience_only_the_receiver_reads_the_message(database: Database) -> None:
    """Not the sender, not another member, not another receiver of the same channel."""
    await add_users(database, ["sender", "guest"])
    await add_users(database, ["ann", "bob"], custom={"team_name": "red"})
    campaign = await sent(
        database, channel_template={**SHARED, "members": ["guest"]}, user_ids=["ann", "bob"]
    )
    assert await mark_read(database, "team:red", "sender") == ()
    assert await mark_read(database, "team:red", "guest") == ()
    assert await mark_read(database, "team:red", "ann") == (campaign.campaign_no,)
    assert (await stats(database, campaign)).users_read == 1


async def test_users_read_members_other_than_the_sender_for_channels(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob", "cid"])
    await add_channel(database, "team:red", ["sender", "ann", "bob"])
    campaign = await to_channels(database, ["team:red"])
    assert (await stats(database, campaign)).users_sent == 2
    assert await mark_read(database, "team:red", "sender") == ()
    assert await read_at(database, campaign) == {"team:red": None}
    await mark_read(database, "team:red", "ann")
    first = await read_at(database, campaign)
    assert first["team:red"] is not None
    await mark_read(database, "team:red", "bob")
    await mark_read(database, "team:red", "bob")
    assert await read_at(database, campaign) == first
    assert (await stats(database, campaign)).users_read == 2


async def test_who_joined_after_the_message_is_no_reader_of_it(database: Database) -> None:
    await add_users(database, ["sender", "ann", "late"])
    await add_channel(database, "team:red", ["sender", "ann"])
    campaign = await to_channels(database, ["team:red"])
    async with database.transaction() as session:
        await add_members(session, "team:red", ["late"])
    assert await unread(database, "team:red", "late") == 0
    assert await mark_read(database, "team:red", "late") == ()
    later = await to_channels(database, ["team:red"], "later")
    assert await mark_read(database, "team:red", "late") == (later.campaign_no,)
    assert (await stats(database, campaign)).users_read == 0
    assert (await stats(database, later)).users_read == 1


async def test_who_left_and_came_back_counts_once(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "team:red", ["sender", "ann"])
    campaign = await to_channels(database, ["team:red"])
    await mark_read(database, "team:red", "ann")
    async with database.transaction() as session:
        await remove_members(session, "team:red", ["ann"])
        await add_members(session, "team:red", ["ann"])
    await mark_read(database, "team:red", "ann")
    found = await stats(database, campaign)
    assert (found.users_sent, found.users_read) == (1, 1)


async def test_a_user_who_is_called_as_a_channel_is_no_channel(database: Database) -> None:
    """The target of a user audience is a user, whatever its id looks like."""
    await add_users(database, ["sender", "ann", "bob", "team:red"])
    await add_channel(database, "team:red", ["sender", "ann", "bob", "team:red"])
    template = {"type": "team", "id": "{{ receiver.id[5:] }}"}
    campaign = await sent(database, channel_template=template, user_ids=["team:red"])
    for user_id in ("ann", "bob", "team:red"):
        await mark_read(database, "team:red", user_id)
    found = await stats(database, campaign)
    assert (found.sent, found.users_sent, found.users_read) == (1, 1, 1)


async def test_reading_counts_for_each_campaign_that_wrote_there(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    campaigns = [await sent(database, f"news-{number}", user_ids=["ann"]) for number in range(3)]
    numbers = {campaign.campaign_no for campaign in campaigns}
    assert set(await mark_read(database, "messaging:ann-news", "ann")) == numbers
    assert [(await stats(database, campaign)).users_read for campaign in campaigns] == [1, 1, 1]


async def test_reading_after_the_campaign_was_deleted(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    campaign = await sent(database, user_ids=["ann"])
    async with database.transaction() as session:
        await service.remove(session, campaign.campaign_id)
        await session.execute(delete(Recipient))
    assert await mark_read(database, "messaging:ann-news", "ann") == ()
    assert await unread(database, "messaging:ann-news", "ann") == 0


# ---------------------------------------------------------------- what is unread


async def test_nothing_is_unread_after_it_was_read(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    for number in range(3):
        await sent(database, f"news-{number}", user_ids=["ann"])
    cid = "messaging:ann-news"
    assert [await unread(database, cid, who) for who in ("ann", "sender")] == [3, 0]
    await mark_read(database, cid, "ann")
    member = (await campaigning.channel(database, cid))[1]["ann"]
    assert await unread(database, cid, "ann") == 0
    assert (member.read_seq, member.last_read_at is not None) == (3, True)
    await sent(database, "more", user_ids=["ann"])
    assert await unread(database, cid, "ann") == 1


async def test_who_is_no_member_or_what_is_no_channel_is_not_found(database: Database) -> None:
    await add_users(database, ["ann"])
    await add_channel(database, "team:red", [])
    for cid, path in (("team:red", ("user_id",)), ("team:blue", ("cid",))):
        with pytest.raises(AppError) as failure:
            await mark_read(database, cid, "ann")
        assert (failure.value.code, failure.value.path) == ("NOT_FOUND", path)


async def test_unread_of_a_channel_with_erased_messages(database: Database) -> None:
    """For members who have read up to different places, erased messages before, between and behind them."""
    people = [f"u{number}" for number in range(8)]
    await add_users(database, ["sender", *people])
    for team in ("red", "blue"):
        await add_channel(database, f"team:{team}", ["sender", *people])
    for number in range(8):
        await to_channels(database, ["team:red", "team:blue"], "n" * (number + 1))
        await mark_read(database, "team:red", people[number])
        await mark_read(database, "team:blue", people[-number - 1])
    async with database.transaction() as session:
        erased = delete(Message).where(col(Message.cid) == "team:red", col(Message.seq).in_([1, 3, 4, 7]))
        await session.execute(erased)
        await session.execute(update(Channel).where(col(Channel.cid) == "team:red").values(erased_seq=7))
    keys = [(f"team:{team}", who) for team in ("red", "blue") for who in ("sender", *people)]
    left = {"team:red": [2, 5, 6, 8], "team:blue": list(range(1, 9))}
    async with database.read() as session:
        counts = await unread_counts(session, keys)
        rows = await session.execute(select(col(Member.cid), col(Member.user_id), col(Member.read_seq)))
    expected = {(cid, who): sum(seq > read for seq in left[cid]) for cid, who, read in rows}
    expected |= {(cid, "sender"): 0 for cid in left}
    assert counts == expected


# ---------------------------------------------------------------- races


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches, so that much can come between them."""
    monkeypatch.setattr(planning, "BATCH", 4)


async def run(database: Database, campaign_ids: list[str], engines: int = 2) -> None:
    """Several engines until none of the campaigns runs any more."""

    async def one() -> None:
        worker = engine(database)
        while "IN_PROGRESS" in [(await campaigning.read(database, each)).status for each in campaign_ids]:
            await worker.turn()

    await asyncio.gather(*(one() for _ in range(engines)))


async def keep_reading(
    database: Database, everyone: list[tuple[str, str]], sending: asyncio.Task[Any]
) -> None:
    """Marks whatever exists as read, again and again, until everything is sent."""
    while not sending.done():
        for cid, user_id in everyone:
            try:
                await mark_read(database, cid, user_id)
            except AppError as failure:
                assert failure.code == "NOT_FOUND"
            if sending.done():
                break
            await asyncio.sleep(0)


@pytest.fixture(params=["few unread", "many unread"])
def few_or_many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to find what is read: among the messages, or among the campaigns."""
    monkeypatch.setattr(reading, "FEW", 0 if request.param == "many unread" else reading.FEW)


@pytest.mark.usefixtures("small_batches", "few_or_many")
async def test_users_read_is_exact_under_races_with_sending_to_users(database: Database) -> None:
    """Channels of their own, and channels that ten receivers share: counted as members and messages say."""
    people = [f"u{number:02}" for number in range(40)]
    await add_users(database, ["sender"])
    for team in range(4):
        names = people[team::4]
        await add_users(database, names, custom={"team_name": f"team{team}"})
    for number in range(4):
        template = SHARED if number % 2 else TO_RECEIVER
        await campaigning.create(database, f"c{number}", channel_template=template, user_ids=people)
        await campaigning.start(database, f"c{number}")
    sending = asyncio.create_task(run(database, [f"c{number}" for number in range(4)]))
    shared = [(f"team:team{number % 4}", people[number]) for number in range(40)]
    own = [(f"messaging:{user_id}-news", user_id) for user_id in people]
    await asyncio.gather(keep_reading(database, shared, sending), keep_reading(database, own, sending))
    await sending
    for number in range(4):
        campaign = await campaigning.read(database, f"c{number}")
        await books(database, campaign)
        found = await stats(database, campaign)
        assert 0 < found.users_read == await read_by_receivers(database, campaign) <= found.users_sent
    await recounted(database)


async def read_by_receivers(database: Database, campaign: Campaign) -> int:
    """Counted anew: the receivers who have read up to their message."""
    statement = (
        select(func.count())
        .select_from(Recipient)
        .join(Message, col(Message.id) == col(Recipient.message_id))
        .join(
            Member,
            (col(Member.cid) == col(Message.cid)) & (col(Member.user_id) == col(Recipient.target_id)),
        )
        .where(
            col(Recipient.campaign_no) == campaign.campaign_no,
            col(Recipient.status) == RecipientStatus.SENT,
            col(Member.read_seq) >= col(Message.seq),
        )
    )
    async with database.read() as session:
        return (await session.execute(statement)).scalar_one()


@pytest.mark.usefixtures("small_batches", "few_or_many")
async def test_users_read_is_exact_under_races_with_sending_to_channels(database: Database) -> None:
    people = [f"u{number:02}" for number in range(12)]
    cids = [f"team:c{number:02}" for number in range(24)]
    await add_users(database, ["sender", *people])
    for number, cid in enumerate(cids):
        await add_channel(database, cid, ["sender", *people[number % 6 : number % 6 + 6]])
    for number in range(3):
        audience = await add_list(database, 90 + number, cids, "CHANNEL")
        template = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}
        await campaigning.create(database, f"c{number}", segment_ids=[audience], **template)
        await campaigning.start(database, f"c{number}")
    sending = asyncio.create_task(run(database, [f"c{number}" for number in range(3)]))
    everyone = [(cid, user_id) for cid in cids for user_id in people]
    await asyncio.gather(
        keep_reading(database, everyone[::2], sending), keep_reading(database, everyone[1::2], sending)
    )
    await sending
    for number in range(3):
        campaign = await campaigning.read(database, f"c{number}")
        await books(database, campaign)
        found = await stats(database, campaign)
        assert found.users_sent == 24 * 6
        assert 0 < found.users_read == await read_by_members(database, campaign) <= found.users_sent


async def read_by_members(database: Database, campaign: Campaign) -> int:
    """Counted anew: the members, other than the sender, who have read up to the message."""
    statement = (
        select(func.count())
        .select_from(Message)
        .join(Member, col(Member.cid) == col(Message.cid))
        .where(
            col(Message.campaign_no) == campaign.campaign_no,
            col(Member.user_id) != col(Message.sender_id),
            col(Member.read_seq) >= col(Message.seq),
        )
    )
    async with database.read() as session:
        return (await session.execute(statement)).scalar_one()

"""SEMANTICS, "Which channel": where a message goes, who becomes a member, what a channel audience means."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlmodel import col

from app.campaigns import service
from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.channels.distinct import cid_of, distinct_id, members_key
from app.channels.models import Channel, Member
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger import queries as ledger
from app.ledger.forgetting import delete_users
from app.ledger.queries import Sums
from app.segments import service as segments
from app.sending import outcomes as deciding
from app.sending.postgres import PostgresWriter
from app.users.service import upsert_users
from tests.integration import campaigning
from tests.integration.campaigning import (
    TO_RECEIVER,
    add_channel,
    add_list,
    add_users,
    books,
    channel,
    engine,
    messages,
    outcomes,
    work,
)

WITH_AGENT = {"type": "support", "members": ["agent"]}
REFUSED = (AppError, Invalid)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def sent(database: Database, receivers: list[str], **given: Any) -> Campaign:
    """A completed campaign to these users, which exist already."""
    campaign_id = given.pop("campaign_id", "news")
    await campaigning.create(database, campaign_id, user_ids=receivers, **given)
    await campaigning.start(database, campaign_id)
    campaign = await work(database, campaign_id)
    await books(database, campaign)
    return campaign


async def sent_to_channels(database: Database, cids: list[str], **given: Any) -> Campaign:
    """A completed campaign to these channels."""
    audience = await add_list(database, 90, cids, "CHANNEL")
    fields: dict[str, Any] = {
        "create_channels": False,
        "channel_template": None,
        "message_template": {"text": "Hi"},
        **given,
    }
    await campaigning.create(database, segment_ids=[audience], **fields)
    await campaigning.start(database)
    campaign = await work(database)
    await books(database, campaign)
    return campaign


async def stats(database: Database, campaign: Campaign) -> Sums:
    """The sums of a campaign."""
    async with database.read() as session:
        return (await ledger.sums(session, [campaign.campaign_no]))[campaign.campaign_no]


async def cids(database: Database) -> set[str]:
    """All channels that exist."""
    async with database.read() as session:
        return set((await session.execute(select(col(Channel.cid)))).scalars())


class TestWithAnId:
    """1. channelTemplate with `id`: the channel `type:<rendered id>`."""

    async def test_created_if_absent_and_create_channels(self, database: Database) -> None:
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, "messaging:ann-news", ["ann", "sender"])
        campaign = await sent(database, ["ann", "bob"])
        assert await cids(database) == {"messaging:ann-news", "messaging:bob-news"}
        assert (await stats(database, campaign)).channels_created == 1

    async def test_the_id_must_use_receiver(self, database: Database) -> None:
        await add_users(database, ["sender"])
        with pytest.raises(REFUSED, match="must use receiver"):
            await campaigning.create(database, channel_template={"type": "messaging", "id": "everybody"})

    async def test_two_receivers_whose_templates_render_the_same_id_share_the_channel(
        self, database: Database
    ) -> None:
        """It is created once; each gets a message."""
        await add_users(database, ["sender", "ann", "bob", "eve"], custom={"team": "red"})
        template = {"type": "messaging", "id": "team-{{ receiver.team }}"}
        campaign = await sent(database, ["ann", "bob", "eve"], channel_template=template)
        found, members = await channel(database, "messaging:team-red")
        assert set(members) == {"sender", "ann", "bob", "eve"}
        assert (found.member_count, found.members_key) == (4, members_key(members))
        assert [message.text for message in await messages(database)] == [
            "Hello Ann",
            "Hello Bob",
            "Hello Eve",
        ]
        assert (await stats(database, campaign)).channels_created == 1


class TestDistinct:
    """2. channelTemplate without `id`: the distinct channel of that type for sender, receiver and members."""

    async def test_a_key_fixed_when_the_channel_is_created_whatever_sender_mode_or_later_membership(
        self, database: Database
    ) -> None:
        await add_users(database, ["sender", "ann", "agent", "late"])
        await sent(database, ["ann"], channel_template=WITH_AGENT)
        cid = cid_of("support", distinct_id(["sender", "ann", "agent"]))
        assert await cids(database) == {cid}
        async with database.transaction() as session:
            session.add(Member(cid=cid, user_id="late", created_at=LONG_AGO))
            await session.execute(delete(Member).where(col(Member.user_id) == "agent"))
        for mode in (None, "EXCLUDE", "INCLUDE"):
            name = f"again-{mode}"
            await sent(database, ["ann"], campaign_id=name, channel_template=WITH_AGENT, sender_mode=mode)
        assert await cids(database) == {cid}
        assert len(await messages(database)) == 4

    async def test_created_if_absent_and_create_channels(self, database: Database) -> None:
        await add_users(database, ["sender", "ann"])
        campaign = await sent(database, ["ann"], channel_template={"type": "support"}, create_channels=False)
        assert await outcomes(database, campaign) == {"ann": "SKIPPED NO_CHANNEL"}
        assert await cids(database) == set()

    async def test_another_type_is_another_channel(self, database: Database) -> None:
        await add_users(database, ["sender", "ann"])
        for channel_type in ("support", "shop"):
            await sent(database, ["ann"], campaign_id=channel_type, channel_template={"type": channel_type})
        assert len(await cids(database)) == 2


class TestWithoutTemplate:
    """3. No channelTemplate: the distinct channel of any type for exactly sender and receiver."""

    async def test_the_most_recently_used_if_there_are_several(self, database: Database) -> None:
        await add_users(database, ["sender", "ann"])
        pair = distinct_id(["sender", "ann"])
        for age, channel_type in enumerate(("old", "new", "older")):
            used = LONG_AGO - timedelta(days=(5, 0, 9)[age])
            await add_channel(database, f"{channel_type}:{pair}", ["sender", "ann"], last_message_at=used)
        await add_channel(database, f"never:{pair}", ["sender", "ann"])
        await sent(database, ["ann"], channel_template=None, create_channels=False)
        assert [message.cid for message in await messages(database)] == [f"new:{pair}"]

    @pytest.mark.parametrize(
        ("cid", "members"),
        [
            pytest.param("messaging:plain", ["sender", "ann"], id="distinct"),
            pytest.param(
                f"messaging:{distinct_id(['sender', 'ann'])}", ["sender", "ann", "bob"], id="exactly"
            ),
            pytest.param(
                f"messaging:{distinct_id(['ann', 'bob'])}", ["ann", "bob"], id="sender and receiver"
            ),
        ],
    )
    async def test_the_distinct_channel_for_exactly_sender_and_receiver(
        self, database: Database, cid: str, members: list[str]
    ) -> None:
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, cid, members)
        campaign = await sent(database, ["ann"], channel_template=None, create_channels=False)
        assert await outcomes(database, campaign) == {"ann": "SKIPPED NO_CHANNEL"}


async def test_a_receiver_who_is_not_a_member_of_the_channel_found_is_added_to_it(database: Database) -> None:
    """Also one who had left; what was there before stays read, the message is unread."""
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "messaging:ann-news", ["sender"], last_seq=7)
    await sent(database, ["ann"])
    found, members = await channel(database, "messaging:ann-news")
    assert (found.member_count, found.members_key) == (2, members_key(["sender", "ann"]))
    assert (found.last_seq, members["ann"].read_seq) == (8, 7)


async def test_a_created_channel_gets_the_templates_team_and_custom_and_as_members(
    database: Database,
) -> None:
    """... the receiver, the sender unless EXCLUDE, and the template's members with roles and custom."""
    await add_users(database, ["sender", "ann", "agent"])
    template = {
        **TO_RECEIVER,
        "team": "red",
        "custom": {"topic": ["news"]},
        "members_template": [{"user_id": "agent", "channel_role": "moderator", "custom": {"desk": 7}}],
    }
    await sent(database, ["ann"], channel_template=template)
    found, members = await channel(database, "messaging:ann-news")
    assert (found.team, found.custom, found.created_by_id) == ("red", {"topic": ["news"]}, "sender")
    assert {(user_id, member.channel_role) for user_id, member in members.items()} == {
        ("ann", "channel_member"),
        ("sender", "channel_member"),
        ("agent", "moderator"),
    }
    assert members["agent"].custom == {"desk": 7}


async def test_members_of_the_template_who_were_deleted_join_nothing(database: Database) -> None:
    """The key of the distinct channel is fixed all the same; who comes back joins channels created later."""
    await add_users(database, ["sender", "ann", "bob", "agent"])
    await delete_users(database, ["agent"], erase_messages=False)
    await sent(database, ["ann"], campaign_id="without", channel_template=WITH_AGENT)
    cid = cid_of("support", distinct_id(["sender", "ann", "agent"]))
    found, members = await channel(database, cid)
    assert (set(members), found.members_key) == ({"sender", "ann"}, members_key(["sender", "ann"]))
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": "agent"}])
    await sent(database, ["ann", "bob"], campaign_id="with", channel_template=WITH_AGENT)
    assert set((await channel(database, cid))[1]) == {"sender", "ann"}
    other = cid_of("support", distinct_id(["sender", "bob", "agent"]))
    assert set((await channel(database, other))[1]) == {"sender", "bob", "agent"}
    await campaigning.recounted(database)


@pytest.mark.parametrize("given", [{"sender_mode": "INCLUDE"}, {"show_channels": True}])
async def test_large_channels_are_written_to_in_small_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setattr(deciding, "MEMBERS_AT_ONCE", 7)
    people = [f"u{number}" for number in range(5)]
    await add_users(database, ["sender", *people])
    cids = [f"messaging:c{number}" for number in range(4)]
    for cid in cids:
        await add_channel(database, cid, people)
    audience = await add_list(database, 90, cids, "CHANNEL")
    await campaigning.create(
        database, segment_ids=[audience], channel_template=None, create_channels=False,
        message_template={"text": "Hi"}, **given,
    )  # fmt: skip
    await campaigning.start(database)
    worker, counts = engine(database), []
    while (campaign := await campaigning.read(database)).status == Status.IN_PROGRESS:
        await worker.turn()
        counts.append((await stats(database, campaign)).sent)
    assert counts[:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("mode", "created", "existing"),
    [
        pytest.param("EXCLUDE", {"ann"}, {"bob"}, id="EXCLUDE adds the sender to no channel"),
        pytest.param(
            "INCLUDE", {"ann", "sender"}, {"bob", "sender"}, id="INCLUDE to every channel written to"
        ),
        pytest.param(None, {"ann", "sender"}, {"bob"}, id="null only to created ones"),
    ],
)
async def test_sender_mode(database: Database, mode: str, created: set[str], existing: set[str]) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:bob-news", ["bob"])
    await sent(database, ["ann", "bob"], sender_mode=mode)
    assert set((await channel(database, "messaging:ann-news"))[1]) == created
    found, members = await channel(database, "messaging:bob-news")
    assert set(members) == existing
    assert (found.member_count, found.members_key) == (len(existing), members_key(existing))


@pytest.mark.parametrize(
    ("visibility", "state"),
    [("HIDDEN", (True, False)), ("ARCHIVED", (False, True)), (None, (False, False))],
)
async def test_sender_visibility_sets_that_state_for_the_sender_in_created_channels(
    database: Database, visibility: str | None, state: tuple[bool, bool]
) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:bob-news", ["bob", "sender"])
    await sent(database, ["ann", "bob"], sender_visibility=visibility)
    _, members = await channel(database, "messaging:ann-news")
    assert (members["sender"].hidden, members["sender"].archived) == state
    assert (members["ann"].hidden, members["ann"].archived) == (False, False)
    _, members = await channel(database, "messaging:bob-news")
    assert (members["sender"].hidden, members["sender"].archived) == (False, False)


async def hide(database: Database, *users: str) -> None:
    """These users hide all of their channels."""
    async with database.transaction() as session:
        await session.execute(update(Member).where(col(Member.user_id).in_(users)).values(hidden=True))


@pytest.mark.parametrize("show", [False, True], ids=["stays hidden", "unless showChannels"])
async def test_an_existing_channel_that_the_receiver_has_hidden(database: Database, show: bool) -> None:
    await add_users(database, ["sender", "ann"])
    await add_channel(database, "messaging:ann-news", ["sender", "ann"])
    await hide(database, "sender", "ann")
    await sent(database, ["ann"], show_channels=show)
    _, members = await channel(database, "messaging:ann-news")
    assert (members["ann"].hidden, members["sender"].hidden) == (not show, True)


@pytest.mark.parametrize("show", [False, True], ids=["stays hidden", "shown to all members but the sender"])
async def test_for_a_channel_audience_show_channels(database: Database, show: bool) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
    await add_channel(database, "messaging:other", ["ann"])
    await hide(database, "sender", "ann", "bob")
    await sent_to_channels(database, ["messaging:three"], show_channels=show)
    _, members = await channel(database, "messaging:three")
    assert {name: member.hidden for name, member in members.items()} == {
        "ann": not show,
        "bob": not show,
        "sender": True,
    }
    assert (await channel(database, "messaging:other"))[1]["ann"].hidden


@pytest.mark.parametrize(("mode", "joins"), [("EXCLUDE", False), ("INCLUDE", True), (None, False)])
async def test_for_a_channel_audience_sender_mode(database: Database, mode: str | None, joins: bool) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await add_channel(database, "messaging:others", ["ann", "bob"])
    campaign = await sent_to_channels(database, ["messaging:others"], sender_mode=mode)
    found, members = await channel(database, "messaging:others")
    assert set(members) == {"ann", "bob"} | ({"sender"} if joins else set())
    assert (found.member_count, found.members_key) == (len(members), members_key(members))
    assert (await stats(database, campaign)).users_sent == 2


class TestChannelAudience:
    """The message goes to each channel."""

    async def test_receiver_exists_only_where_the_channel_has_exactly_two_members_one_of_them_the_sender(
        self, database: Database
    ) -> None:
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, "messaging:pair", ["sender", "ann"])
        await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
        template = {
            "text": "Hi {{ receiver.name }}{{ '!' if user.id else '?' }}",
            "defaults": {"receiver.name": "all", "receiver.id": "", "user.id": ""},
        }
        await sent_to_channels(database, ["messaging:pair", "messaging:three"], message_template=template)
        assert {message.cid: message.text for message in await messages(database)} == {
            "messaging:pair": "Hi Ann!",
            "messaging:three": "Hi all?",
        }

    async def test_users_sent_are_members_other_than_the_sender(self, database: Database) -> None:
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, "messaging:pair", ["sender", "ann"])
        await add_channel(database, "messaging:three", ["sender", "ann", "bob"])
        await add_channel(database, "messaging:others", ["ann", "bob"])
        await add_channel(database, "messaging:empty", [])
        await add_channel(database, "messaging:ice", ["ann", "bob"], frozen=True)
        every = ["messaging:pair", "messaging:three", "messaging:others", "messaging:empty", "messaging:ice"]
        campaign = await sent_to_channels(database, every)
        total = await stats(database, campaign)
        assert (total.users_sent, total.messages_sent, total.channels_created) == (5, 4, 0)

    @pytest.mark.parametrize(
        ("kind", "filter", "expected"),
        [
            ("FILTER", {"members": {"$in": ["ann"]}, "team": "red"}, {"messaging:red"}),
            ("FILTER", {"member_count": {"$gte": 2}}, {"messaging:red", "messaging:blue"}),
            ("ALL_SENDER_CHANNELS", None, {"messaging:blue", "messaging:own"}),
        ],
    )
    async def test_segments_of_channels(
        self, database: Database, kind: str, filter: dict[str, Any] | None, expected: set[str]
    ) -> None:
        """Filters over channels and members, allSenderChannels."""
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, "messaging:red", ["ann", "bob"], team="red")
        await add_channel(database, "messaging:blue", ["sender", "bob"], team="blue")
        await add_channel(database, "messaging:own", ["sender"])
        async with database.transaction() as session:
            given = {"segment_id": "them", "type": "CHANNEL"}
            given |= {"filter": filter} if filter else {"all_sender_channels": True}
            segment = await segments.create(session, given)
        assert segment.kind == kind
        await campaigning.create(
            database, segment_ids=["them"], message_template={"text": "Hi"}, channel_template=None,
            create_channels=False,
        )  # fmt: skip
        await campaigning.start(database)
        campaign = await work(database)
        assert await outcomes(database, campaign) == dict.fromkeys(expected, "SENT")

    async def test_who_joins_while_the_batch_is_made_does_not_read_a_message_for_two(
        self, postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The receiver is looked up before the channel is locked: if the members changed, it is done again.
        (On SQLite a batch holds the writer lock: nobody can come between.)"""
        database = Database(postgres_database_url, durable=False)
        await add_users(database, ["sender", "ann", "bob"])
        await add_channel(database, "messaging:pair", ["sender", "ann"])
        take, joined = PostgresWriter.take_existing, False

        async def after_somebody_joined(writer: Any, *given: Any) -> Any:
            nonlocal joined
            if not joined:
                joined = True
                three = members_key(["sender", "ann", "bob"])
                async with database.transaction() as session:
                    session.add(Member(cid="messaging:pair", user_id="bob", created_at=LONG_AGO))
                    await session.execute(update(Channel).values(member_count=3, members_key=three))
            return await take(writer, *given)

        monkeypatch.setattr(PostgresWriter, "take_existing", after_somebody_joined)
        campaign = await sent_to_channels(
            database, ["messaging:pair"], message_template={"text": "Hi {{ receiver.name }}"}
        )
        assert await outcomes(database, campaign) == {"messaging:pair": "SKIPPED NO_RECEIVER"}
        await database.close()


async def test_creation_raced_by_two_batches_two_campaigns_and_other_writers(database: Database) -> None:
    """Everybody shares a few channels; nothing deadlocks, each channel is created once, counts are exact."""
    people = [f"u{number:03}" for number in range(240)]
    await add_users(database, ["sender", "other"])
    for number in range(4):
        await add_users(database, people[number::4], custom={"team": str(number)})
    audience = await add_list(database, 1, people)
    template = {"type": "messaging", "id": "team-{{ receiver.team }}"}
    for name, sender_id in (("one", "sender"), ("two", "other")):
        await campaigning.create(
            database, name, segment_ids=[audience], channel_template=template, sender_id=sender_id,
            max_messages_per_second=200_000,
        )  # fmt: skip
        await campaigning.start(database, name)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(_until_completed(database, ["one", "two"]))
    for name in ("one", "two"):
        campaign = await campaigning.read(database, name)
        counted = await books(database, campaign)
        assert (campaign.status, counted.sent) == (Status.COMPLETED, 240)
    async with database.read() as session:
        found = (await session.execute(select(Channel))).scalars().all()
        counts = await session.execute(select(col(Member.cid), func.count()).group_by(col(Member.cid)))
        members = {row[0]: row[1] for row in counts}
    assert {each.cid: each.member_count for each in found} == members
    assert {each.last_seq for each in found} == {120}
    created = [
        (await stats(database, await campaigning.read(database, name))).channels_created
        for name in ("one", "two")
    ]
    assert sum(created) == 4


async def _until_completed(database: Database, names: list[str]) -> None:
    worker = engine(database)
    for _ in range(500):
        await worker.turn()
        rows = [await campaigning.read(database, name) for name in names]
        if all(row.status == Status.COMPLETED for row in rows):
            return
    raise AssertionError("still not completed")


async def test_user_and_channel_segments_do_not_mix_in_one_campaign(database: Database) -> None:
    await add_users(database, ["sender"])
    people = await add_list(database, 1, ["ann"])
    rooms = await add_list(database, 2, ["messaging:a"], "CHANNEL")
    with pytest.raises(REFUSED):
        await campaigning.create(database, segment_ids=[people, rooms])
    await campaigning.create(database, segment_ids=[people])
    with pytest.raises(REFUSED):
        async with database.transaction() as session:
            await service.update(session, "news", {"segment_ids": [rooms, people]})

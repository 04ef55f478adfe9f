"""SEMANTICS: audiences of users and of channels do not mix; deleting segments and campaigns."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from app.campaigns import pruning, queries
from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.campaigns.states import Status
from app.database import Database, now
from app.errors import AppError, Conflict, Invalid, InvalidInput
from app.ledger.models import Batch, BatchRead, BatchReason, BatchTargets, Plan, Rate, Recipient
from app.messages.models import Message
from app.segments import service as segments
from app.segments.models import Segment, SegmentTarget
from app.sending import planning, throttle
from app.sending.planning import Planning, plan_chunk
from tests.integration.campaigning import add_channel, add_list, add_users, books, create, read, start
from tests.semantics.acting import act, in_status, release, schedule


async def set_segment(database: Database, segment_no: int, **columns: Any) -> None:
    """Makes another kind of a list."""
    async with database.transaction() as session:
        await session.execute(update(Segment).where(col(Segment.segment_no) == segment_no).values(**columns))


async def delete(database: Database, segment_id: str) -> Segment:
    """Deletes it as the API does."""
    async with database.transaction() as session:
        return await segments.delete(session, segment_id, queries.naming_segment)


# ------------------------------------------------------------------ users or channels


async def test_user_and_channel_segments_do_not_mix_in_one_campaign(database: Database) -> None:
    await add_users(database, ["sender"])
    people, rooms = await add_list(database, 1, ["ann"]), await add_list(database, 2, ["a:b"], "CHANNEL")
    with pytest.raises(InvalidInput, match="list-2 holds channels, list-1 before it users") as raised:
        await create(database, segment_ids=[people, rooms])
    assert raised.value.path == ("segment_ids", "1")
    with pytest.raises(Invalid) as several:
        await create(database, segment_ids=[rooms, people, "none"])
    assert [error.path for error in several.value.errors] == [("segment_ids", "1"), ("segment_ids", "2")]
    await create(database, segment_ids=[people])
    with pytest.raises(InvalidInput, match="segments of one type"):
        await act(database, "update", given={"segment_ids": [people, rooms]})


async def test_the_audience_is_what_its_segments_are(database: Database) -> None:
    await add_users(database, ["sender"])
    people, rooms = await add_list(database, 1, ["ann"]), await add_list(database, 2, ["a:b"], "CHANNEL")
    assert (await create(database, segment_ids=[rooms])).audience == "CHANNEL"
    for given, audience in (
        ({"segment_ids": [people]}, "USER"),
        ({"segment_ids": [rooms]}, "CHANNEL"),
        ({"name": "Still"}, "CHANNEL"),
        ({"segment_ids": None, "user_ids": ["ann"]}, "USER"),
        ({"segment_ids": [rooms], "user_ids": []}, "CHANNEL"),
        ({"segment_ids": None}, "USER"),
    ):
        await act(database, "update", given=given)
        assert (await read(database)).audience == audience


async def test_channels_that_are_the_audience_need_no_template_to_create_them(database: Database) -> None:
    await add_users(database, ["sender"])
    rooms = await add_list(database, 1, ["a:b"], "CHANNEL")
    await create(database, segment_ids=[rooms], create_channels=True, channel_template=None)
    assert (await start(database)).status == "IN_PROGRESS"


CIDS = [f"messaging:{number:02}" for number in range(12)] + ["team:ä", "team:𝄞", "team:\uffff"]
CHANNEL_AUDIENCES: list[tuple[str, list[dict[str, Any]], set[str]]] = [
    ("manual cids, existing or not", [{}], {"messaging:00", "messaging:99", "team:𝄞", "team:\uffff"}),
    ("a filter over channels", [{"kind": "FILTER", "filter": {"type": "team"}}], set(CIDS[12:])),
    (
        "a filter over members",
        [{"kind": "FILTER", "filter": {"members": {"$in": ["bob"]}}}],
        set(CIDS[1::3]),
    ),
    ("allSenderChannels", [{"kind": "ALL_SENDER_CHANNELS"}], set(CIDS[::2])),
    (
        "all of them, overlapping",
        [{}, {"kind": "FILTER", "filter": {"type": "team"}}, {"kind": "ALL_SENDER_CHANNELS"}],
        {*CIDS[::2], *CIDS[12:], "messaging:99"},
    ),
]


@pytest.mark.parametrize(
    ("kinds", "audience"),
    [row[1:] for row in CHANNEL_AUDIENCES],
    ids=[row[0] for row in CHANNEL_AUDIENCES],
)
async def test_an_audience_of_channels_is_planned_by_cid(
    database: Database, monkeypatch: pytest.MonkeyPatch, kinds: list[dict[str, Any]], audience: set[str]
) -> None:
    for name, size in (("FIRST_CHUNK", 2), ("CHUNK", 3), ("BATCH", 2)):
        monkeypatch.setattr(planning, name, size)
    await add_users(database, ["sender", "ann", "bob"])
    for number, cid in enumerate(CIDS):
        members = [*(["sender"] if number % 2 == 0 else []), *(["bob"] if number % 3 == 1 else []), "ann"]
        await add_channel(database, cid, members)
    listed = ["messaging:00", "messaging:99", "team:𝄞", "team:\uffff"]
    named = [await add_list(database, number, listed, "CHANNEL") for number in range(len(kinds))]
    for number, columns in enumerate(kinds):
        if columns:
            await set_segment(database, number, **columns)
    await create(database, segment_ids=named, channel_template=None, create_channels=False)
    campaign = await start(database)
    while await plan_chunk(database, campaign.campaign_no, capacity=None) is Planning.STORED:
        pass
    async with database.read() as session:
        held = await session.execute(select(BatchTargets).order_by(col(BatchTargets.batch_no)))
        planned = [cid for batch in held.scalars() for cid in batch.target_ids]
    assert planned == sorted(audience)
    assert (await books(database, campaign)).pending == len(audience)


# ------------------------------------------------------------------ deleting segments


@pytest.mark.parametrize("status", list(Status))
async def test_deleting_a_segment_named_by_a_draft_scheduled_running_or_paused_campaign(
    database: Database, status: Status
) -> None:
    segment = await add_list(database, 1, ["ann"])
    campaign = await in_status(database, status, user_ids=None, segment_ids=[segment])
    if status in {Status.STOPPED, Status.COMPLETED}:
        assert (await delete(database, segment)).deleted_at is not None
        async with database.read() as session:
            seen = await queries.segments_of(session, [campaign.campaign_no])
        assert [row.segment_id for row in seen[campaign.campaign_no]] == [segment]
        return
    with pytest.raises(Conflict, match="news") as raised:
        await delete(database, segment)
    assert raised.value.details == {"campaignIds": ["news"]}


async def test_every_campaign_that_is_in_the_way_is_named(database: Database) -> None:
    await add_users(database, ["sender"])
    segment = await add_list(database, 1, ["ann"])
    for campaign_id in ("c", "a", "b"):
        await create(database, campaign_id, segment_ids=[segment])
    await act(database, "remove", "a")
    with pytest.raises(Conflict, match="b, c") as raised:
        await delete(database, segment)
    assert raised.value.details == {"campaignIds": ["b", "c"]}


@pytest.mark.parametrize("names_it", ["create", "update"])
async def test_a_segment_deleted_while_a_campaign_comes_to_name_it(database: Database, names_it: str) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, "other", user_ids=["ann"])

    async def name(segment_id: str, number: int) -> Campaign:
        if names_it == "create":
            return await create(database, f"c{number}", segment_ids=[segment_id])
        given = {"segment_ids": [segment_id], "user_ids": None}
        return await act(database, "update", "other", given=given)

    for number in range(8):
        segment_id = await add_list(database, number, ["ann"])
        results = await asyncio.gather(
            name(segment_id, number), delete(database, segment_id), return_exceptions=True
        )
        codes = [getattr(result, "code", "done") for result in results]
        assert codes in (["done", "CONFLICT"], ["INVALID_INPUT", "done"])
        assert all(isinstance(result, Campaign | Segment | AppError) for result in results)


async def test_a_segment_deleted_while_its_campaign_is_deleted_or_starts(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    for number, action in enumerate(("remove", "start", "remove", "start")):
        segment_id = await add_list(database, number, ["ann"])
        await create(database, f"c{number}", segment_ids=[segment_id])
        given = {} if action == "remove" else {"scheduled_for": None, "stop_at": None, "capacity": None}
        acted, deleted = await asyncio.gather(
            act(database, action, f"c{number}", **given), delete(database, segment_id), return_exceptions=True
        )
        assert isinstance(acted, Campaign)
        assert isinstance(deleted, Conflict) or action == "remove"


async def test_deleted_targets_are_cleared_in_the_background(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "PRUNED_AT_ONCE", 4)
    segment = await add_list(database, 1, [f"u{number}" for number in range(10)])
    await add_list(database, 2, ["stays"])
    await delete(database, segment)
    assert [await segments.prune(database) for _ in range(4)] == [4, 4, 2, 0]
    async with database.read() as session:
        assert list((await session.execute(select(SegmentTarget.target_id))).scalars()) == ["stays"]


# ------------------------------------------------------------------ deleting campaigns


async def test_deleting_removes_the_campaign_and_its_ledger_in_chunks_and_messages_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    monkeypatch.setattr(planning, "BATCH", 2)
    campaign = await in_status(
        database, Status.COMPLETED, user_ids=["ann", "odd", "nobody", "n2", "n3"], max_messages_per_second=9
    )
    async with database.transaction() as session:
        session.add(BatchRead(campaign_no=campaign.campaign_no, batch_no=1, users_read=1))
        session.add(Rate(scope=throttle.share_of(campaign.campaign_no), next_at=await now(session)))
    await act(database, "remove")
    async with database.read() as session:
        assert await queries.by_id(session, "news") is None  # at once
        assert (await session.execute(select(func.count()).select_from(Recipient))).scalar_one() == 5
    await release(database, campaign)
    await pruning.clear(database, campaign.campaign_no)
    async with database.read() as session:
        for table in (
            Campaign,
            CampaignSegment,
            CampaignTarget,
            Plan,
            Rate,
            Recipient,
            Batch,
            BatchTargets,
            BatchReason,
            BatchRead,
        ):
            left = await session.execute(select(func.count()).select_from(table))
            assert (table.__name__, left.scalar_one()) == (table.__name__, 0)
        assert (await session.execute(select(func.count()).select_from(Message))).scalar_one() == 1


async def test_clearing_goes_on_where_it_was_interrupted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 1)
    campaign = await in_status(database, Status.COMPLETED, user_ids=["ann", "odd", "nobody"])
    await act(database, "remove")
    await release(database, campaign)
    with monkeypatch.context() as patch:

        async def killed(*_: object) -> None:
            raise asyncio.CancelledError

        patch.setattr(database, "checkpoint_if_large", killed)
        with pytest.raises(asyncio.CancelledError):
            await pruning.clear(database, campaign.campaign_no)
    async with database.read() as session:
        assert await queries.deleted(session) == [campaign.campaign_no]
    await pruning.clear(database, campaign.campaign_no)
    async with database.read() as session:
        assert await queries.deleted(session) == []


async def test_the_same_id_may_be_used_again_at_once_and_does_not_meet_the_old_messages(
    database: Database,
) -> None:
    old = await in_status(database, Status.COMPLETED, user_ids=["ann"])
    await act(database, "remove")
    new = await create(database, user_ids=["ann"])
    await schedule(database)
    assert new.campaign_no != old.campaign_no
    assert (await books(database, new)).messages == 0

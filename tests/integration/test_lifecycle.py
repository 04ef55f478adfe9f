"""Schedules, ends, edits and deletions of campaigns, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import lifecycle, pruning, queries, service
from app.campaigns.models import Campaign
from app.campaigns.states import Action, Status, allowed_actions, move
from app.database import Database
from app.errors import AlreadyExists, AppError, Conflict, Invalid, InvalidInput, LimitExceeded, NotFound
from app.events.models import Event
from app.segments.models import Segment
from app.users.models import User
from tests.integration.campaigning import add_list, add_users, books, create, read, start, work

SOON = datetime.now(UTC) + timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def act(database: Database, action: str, campaign_id: str = "news", **given: Any) -> Campaign:
    """One of the service's changes in a transaction of its own."""
    async with database.transaction() as session:
        changed: Campaign = await getattr(service, action)(session, campaign_id, **given)
        return changed


async def schedule(database: Database, at: datetime = SOON, stop_at: datetime | None = None) -> Campaign:
    """Starts it later."""
    return await act(database, "start", scheduled_for=at, stop_at=stop_at, capacity=None)


async def come_due(database: Database, capacity: int | None = None, **columns: Any) -> Campaign:
    """Moves the campaign's times and lets housekeeping find it."""
    async with database.transaction() as session:
        await session.execute(update(Campaign).values(**columns))
    async with database.read() as session:
        due = await queries.due(session, datetime.now(UTC))
    assert len(due) == 1
    needed = await room.needed_when_due(database, due[0], capacity)
    async with database.transaction() as session:
        settled = await lifecycle.settle_due(session, due[0], capacity, needed)
        assert settled is not None
        return settled


async def events(database: Database) -> list[str]:
    """The types of what happened, in order."""
    async with database.read() as session:
        return list((await session.execute(select(col(Event.type)).order_by(col(Event.id)))).scalars())


@pytest.fixture
async def draft(database: Database) -> Campaign:
    """A campaign to ann."""
    await add_users(database, ["sender", "ann"])
    return await create(database, user_ids=["ann"])


@pytest.mark.usefixtures("draft")
async def test_a_scheduled_campaign_starts_when_it_is_due(database: Database) -> None:
    assert (await schedule(database)).status == "SCHEDULED"
    started = await come_due(database, scheduled_for=LONG_AGO)
    assert started.status == "IN_PROGRESS"
    assert (await work(database)).status == "COMPLETED"
    assert await events(database) == ["campaign.scheduled", "campaign.started", "campaign.completed"]


@pytest.mark.usefixtures("draft")
async def test_a_schedule_whose_end_has_passed_too_is_stopped(database: Database) -> None:
    await schedule(database, stop_at=SOON + timedelta(hours=1))
    stopped = await come_due(database, scheduled_for=LONG_AGO, stop_at=LONG_AGO + timedelta(hours=1))
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "STOP_AT_REACHED")


@pytest.mark.usefixtures("draft")
async def test_what_cannot_start_when_due_is_stopped_with_the_reason(database: Database) -> None:
    await schedule(database)
    async with database.transaction() as session:
        await session.execute(update(User).values(deactivated_at=LONG_AGO))
    stopped = await come_due(database, scheduled_for=LONG_AGO)
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "NOT_STARTABLE")
    assert stopped.status_message is not None
    assert "sender" in stopped.status_message


@pytest.mark.usefixtures("draft")
async def test_capacity_is_checked_again_when_due(database: Database) -> None:
    await schedule(database)
    stopped = await come_due(database, capacity=0, scheduled_for=LONG_AGO)
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "NOT_STARTABLE")
    assert "needs 1 messages" in str(stopped.status_message)


@pytest.mark.usefixtures("draft")
async def test_scheduled_for_in_the_past_means_now(database: Database) -> None:
    assert (await schedule(database, LONG_AGO)).status == "IN_PROGRESS"


@pytest.mark.usefixtures("draft")
async def test_an_end_before_the_start_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInput, match="after the start"):
        await schedule(database, stop_at=SOON - timedelta(minutes=1))


@pytest.mark.usefixtures("draft")
async def test_unschedule_goes_back_to_draft(database: Database) -> None:
    await schedule(database)
    assert (await act(database, "unschedule")).status == "DRAFT"
    with pytest.raises(Conflict, match="not scheduled"):
        await act(database, "unschedule")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"user_ids": None}, "no audience"),
        ({"channel_template": None}, "createChannels needs a channelTemplate"),
    ],
)
async def test_the_rules_of_a_start(database: Database, fields: dict[str, Any], sentence: str) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, **{"user_ids": ["ann"], **fields})
    with pytest.raises(InvalidInput, match=sentence):
        await start(database)
    assert (await read(database)).status == "DRAFT"


@pytest.mark.parametrize(
    ("fields", "error", "path"),
    [
        ({"sender_id": "nobody"}, InvalidInput, ("sender_id",)),
        ({"segment_ids": ["nowhere"]}, InvalidInput, ("segment_ids", "0")),
        ({"segment_ids": ["a"], "user_ids": ["b"]}, InvalidInput, ("user_ids",)),
        ({"user_ids": ["a b"]}, InvalidInput, ("user_ids", "0")),
        ({"user_ids": [f"u{n}" for n in range(10_001)]}, LimitExceeded, ("user_ids",)),
        ({"segment_ids": [f"s{n}" for n in range(26)]}, LimitExceeded, ("segment_ids",)),
        ({"max_messages_per_second": 0}, InvalidInput, ("max_messages_per_second",)),
        ({"name": "x" * 129}, LimitExceeded, ("name",)),
        ({"message_template": {"text": "{{ receiver.name"}}, InvalidInput, ("message_template", "text")),
        ({"channel_template": {"type": "a b"}}, InvalidInput, ("channel_template", "type")),
        ({"channel_template": {"type": "a", "id": "all"}}, InvalidInput, ("channel_template", "id")),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    database: Database, fields: dict[str, Any], error: type[AppError], path: tuple[str, ...]
) -> None:
    await add_users(database, ["sender"])
    with pytest.raises((AppError, Invalid)) as raised:
        await create(database, **fields)
    found = raised.value.errors[0] if isinstance(raised.value, Invalid) else raised.value
    assert (type(found), found.path) == (error, path)
    async with database.read() as session:
        assert await queries.by_id(session, "news") is None


@pytest.mark.usefixtures("draft")
async def test_a_campaign_id_is_taken_until_it_is_deleted(database: Database) -> None:
    with pytest.raises(AlreadyExists):
        await create(database)
    await act(database, "remove")
    with pytest.raises(NotFound):
        await act(database, "stop")
    assert (await create(database)).status == "DRAFT"


@pytest.mark.usefixtures("draft")
async def test_content_is_fixed_once_it_runs_and_the_pace_is_not(database: Database) -> None:
    await act(database, "update", given={"message_template": {"text": "Bye {{ receiver.name }}"}})
    await start(database)
    with pytest.raises(Conflict) as raised:
        await act(database, "update", given={"message_template": {"text": "Late"}})
    assert raised.value.path == ("message_template",)
    assert (await act(database, "update", given={"max_messages_per_second": 5})).max_messages_per_second == 5
    await work(database)
    assert (await act(database, "update", given={"name": "Done"})).name == "Done"
    with pytest.raises(Conflict):
        await act(database, "update", given={"max_messages_per_second": None})


async def test_segments_and_user_ids_are_exchanged_only_explicitly(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    segment_id = await add_list(database, 1, ["bob"])
    await create(database, user_ids=["ann"])
    with pytest.raises(InvalidInput, match="clear userIds too"):
        await act(database, "update", given={"segment_ids": [segment_id]})
    await act(database, "update", given={"segment_ids": [segment_id], "user_ids": None})
    await start(database)
    counted = await books(database, await work(database))
    assert (counted.targets, counted.sent) == (1, 1)


async def test_a_definition_changed_after_the_start_does_not_matter(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, segment_ids=[await add_list(database, 1, ["ann"])])
    await start(database)
    async with database.transaction() as session:
        await session.execute(update(Segment).values(kind="FILTER", filter={"id": "nobody"}))
    assert (await books(database, await work(database))).sent == 1


@pytest.mark.usefixtures("draft")
async def test_a_deleted_campaign_leaves_its_messages_and_nothing_else(database: Database) -> None:
    await start(database)
    campaign = await work(database)
    async with database.transaction() as session:
        await room.release_unsent(session, campaign.campaign_no)
    await act(database, "remove")
    await pruning.clear(database, campaign.campaign_no)
    async with database.read() as session:
        for table, rows in {
            "campaigns": 0,
            "campaign_targets": 0,
            "recipients": 0,
            "batches": 0,
            "plans": 0,
            "messages": 1,
        }.items():
            counted = await session.execute(text(f"SELECT count(*) FROM {table}"))
            assert (table, counted.scalar_one()) == (table, rows)


@pytest.mark.parametrize("status", list(Status))
def test_allowed_actions_are_what_the_table_allows(status: Status) -> None:
    for action in Action:
        if action == Action.RETRY:
            continue
        try:
            moved = move(action, status)
        except Conflict as conflict:
            assert action not in allowed_actions(status)
            assert action.value not in (conflict.details or {})["allowed"]
        else:
            changes = moved is not None or action in {Action.EDIT, Action.DELETE}
            assert (action in allowed_actions(status)) == changes

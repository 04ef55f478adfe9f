"""Events, sentence by sentence of what they promise."""

import re
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from app.campaigns import service as campaigns
from app.campaigns.states import Status
from app.channels.upserting import upsert_channels
from app.database import Database
from app.events.models import Event
from app.events.service import TYPES
from app.users.models import User
from tests.integration.campaigning import add_list, add_users, create, start, work
from tests.integration.hearing import hear, listen, types
from tests.semantics.acting import act, come_due, in_status, people, resume, retry, schedule

ON_THE_WAY = {
    "campaign.scheduled": Status.SCHEDULED,
    "campaign.started": Status.IN_PROGRESS,
    "campaign.paused": Status.PAUSED,
    "campaign.stopped": Status.STOPPED,
    "campaign.completed": Status.COMPLETED,
}
INTERNAL = {"campaign_no", "final_stats", "faults", "resume_at", "deleted_at", "batch_no", "plan"}
STATS = {
    "targets", "pending", "sent", "skipped", "failed", "messages_sent", "channels_created", "users_sent",
    "users_read", "planned", "reasons",
}  # fmt: skip


@pytest.mark.parametrize("kind", ON_THE_WAY)
async def test_each_change_of_status_is_told_with_the_status_that_it_led_to(
    database: Database, kind: str
) -> None:
    endpoint = await listen(database)
    status = ON_THE_WAY[kind]
    await in_status(database, status)
    told = (await hear(database, endpoint))[-1]
    assert (told["type"], told["campaign"]["status"]) == (kind, status.value.lower())


async def test_resuming_and_retrying_and_every_kind_of_change(database: Database) -> None:
    endpoint = await listen(database, *(kind for kind in TYPES if kind.startswith("campaign.")))
    await in_status(database, Status.PAUSED)
    await resume(database)
    await act(database, "update", given={"name": "Renamed", "max_messages_per_second": 500})
    await work(database)
    await retry(database)
    await work(database)
    assert await types(database, endpoint) == [
        "campaign.started",
        "campaign.paused",
        "campaign.resumed",
        "campaign.updated",
        "campaign.completed",
        "campaign.started",
        "campaign.completed",
    ]


async def test_a_schedule_that_is_taken_back_and_one_that_cannot_start(database: Database) -> None:
    endpoint = await listen(database)
    await in_status(database, Status.SCHEDULED)
    await act(database, "unschedule")
    await schedule(database)
    async with database.transaction() as session:
        sender = await session.get(User, "sender")
        assert sender is not None
        sender.deactivated_at = sender.created_at
    await come_due(database, scheduled_for=sender.created_at)
    told = await hear(database, endpoint)
    assert [each["type"] for each in told] == [
        "campaign.scheduled",
        "campaign.updated",
        "campaign.scheduled",
        "campaign.stopped",
    ]
    stopped = told[-1]["campaign"]
    assert (stopped["status_reason"], stopped["started_at"]) == ("NOT_STARTABLE", None)
    assert "sender" in stopped["status_message"]


async def test_the_whole_campaign_with_its_stats_and_nothing_internal(database: Database) -> None:
    endpoint = await listen(database, "campaign.completed")
    await people(database)
    audience = await add_list(database, 1, ["ann", "odd", "nobody"])
    await create(
        database,
        segment_ids=[audience],
        name="News",
        description="What is new",
        message_template={"text": "{{ 1 // receiver.number }}", "custom": {"Kept": {"asIs": 1}}},
    )
    await start(database)
    await work(database)
    (told,) = await hear(database, endpoint)
    assert list(told) == ["type", "created_at", "campaign"]
    campaign = told["campaign"]
    assert (campaign["status"], campaign["name"], campaign["description"]) == (
        "completed",
        "News",
        "What is new",
    )
    assert (campaign["sender_id"], campaign["segment_ids"]) == ("sender", [audience])
    assert campaign["message_template"]["custom"] == {"Kept": {"asIs": 1}}
    assert campaign["channel_template"]["id"] == "{{ receiver.id }}-news"
    assert set(campaign["stats"]) == STATS
    counts = {"targets": 3, "sent": 1, "skipped": 1, "failed": 1, "pending": 0, "messages_sent": 1}
    assert {name: campaign["stats"][name] for name in counts} == counts
    assert {each["reason"]: (each["count"], each["samples"]) for each in campaign["stats"]["reasons"]} == {
        "UNKNOWN_USER": (1, ["nobody"]),
        "RENDER_ERROR": (1, ["odd"]),
    }
    assert not INTERNAL & set(campaign)
    assert all(re.fullmatch("[a-z_]+", name) for name in _names({**campaign, "message_template": {}}))


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(name for each in value.values() for name in _names(each))]
    return [name for each in value for name in _names(each)] if isinstance(value, list) else []


async def test_messages_and_channels_unless_skip_webhook(database: Database) -> None:
    endpoint = await listen(database)
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"], skip_webhook=True)
    await start(database)
    await work(database)
    assert await types(database, endpoint) == ["campaign.started", "campaign.completed"]
    async with database.read() as session:
        written = await session.execute(select(col(Event.type)).where(col(Event.type).not_like("campaign.%")))
        assert written.all() == []
    await create(
        database, "loud", user_ids=["ann"], channel_template={"type": "team", "id": "{{ receiver.id }}"}
    )
    await start(database, "loud")
    await work(database, "loud")
    assert (await types(database, endpoint))[2:] == [
        "campaign.started",
        "channel.created",
        "message.new",
        "campaign.completed",
    ]


async def test_channels_that_people_create_are_told_of_too(database: Database) -> None:
    endpoint = await listen(database, "channel.created")
    async with database.transaction() as session:
        await upsert_channels(
            session, [{"type": "team", "channel_id": "a"}, {"type": "team", "channel_id": "b"}]
        )
    told = await hear(database, endpoint)
    assert [each["channel"]["cid"] for each in told] == ["team:a", "team:b"]
    assert all(list(each) == ["type", "created_at", "channel"] for each in told)


async def test_started_comes_first_and_completed_after_the_last_message(database: Database) -> None:
    """Though everything is dispatched and expanded while it is sent, slice by slice."""
    endpoint = await listen(database)
    names = [f"u{number:02}" for number in range(40)]
    await add_users(database, ["sender", *names])
    await create(database, user_ids=names, max_messages_per_second=10_000)
    await start(database)
    await hear(database, endpoint)
    await work(database)
    told = await types(database, endpoint)
    assert (told[0], told[-1]) == ("campaign.started", "campaign.completed")
    assert sorted(told[1:-1]) == ["channel.created"] * 40 + ["message.new"] * 40


async def test_what_is_refused_or_rolled_back_is_no_event(database: Database) -> None:
    """The event is in the transaction that makes it true."""
    endpoint = await listen(database)
    await in_status(database, Status.DRAFT)
    with pytest.raises(RuntimeError, match="power"):
        async with database.transaction() as session:
            await campaigns.start(session, "news", scheduled_for=None, stop_at=None, capacity=None, needed=0)
            raise RuntimeError("power cut")
    assert await hear(database, endpoint) == []

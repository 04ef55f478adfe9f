"""Campaigns from their start to their end: status, stats and recipients as clients see them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from app.campaigns import lifecycle, queries
from app.database import Database
from app.settings import Settings, load
from app.users.models import User
from tests.api.campaigns import COUNTS, RECIPIENTS, Campaigns, engine, people, send_everything
from tests.api.conftest import Client

DIRECT: dict[str, Any] = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
AUDIENCE = ["sender", "nobody", *(f"u{number:02}" for number in range(5))]


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    await people(database, 5)
    return Campaigns(client)


def counts(campaign: Any) -> dict[str, int]:
    return {name: campaign["stats"][name] for name in COUNTS}


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_a_whole_campaign(campaigns: Campaigns, database: Database, valkey_url: str) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    started = await campaigns.done("start", campaignId="c")
    assert (started["status"], started["allowedActions"]) == ("IN_PROGRESS", ["STOP", "PAUSE"])
    assert started["stats"]["startedAt"] <= started["stats"]["asOf"]
    assert started["stats"]["progress"] == 0

    await send_everything(database, valkey_url)

    campaign = await campaigns.read("c")
    stats = campaign["stats"]
    assert (campaign["status"], campaign["allowedActions"]) == ("COMPLETED", ["DELETE", "RETRY"])
    assert counts(campaign) == {"targets": 7, "pending": 0, "sent": 5, "skipped": 2, "failed": 0}
    assert (stats["messagesSent"], stats["channelsCreated"], stats["usersSent"]) == (5, 5, 5)
    assert (stats["planned"], stats["progress"], stats["messagesPerSecond"]) == (True, 1, 0)
    assert stats["startedAt"] <= stats["completedAt"] <= campaign["statusChangedAt"] <= stats["asOf"]
    assert stats["reasons"] == [
        {"reason": "SENDER", "count": 1, "sampleTargetIds": ["sender"]},
        {"reason": "UNKNOWN_USER", "count": 1, "sampleTargetIds": ["nobody"]},
    ]


async def test_every_target_has_its_row(campaigns: Campaigns, database: Database, valkey_url: str) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)

    page = await campaigns.recipients("c")
    assert page["totalCount"] == 7
    assert [(row["targetId"], row["status"], row["reason"]) for row in page["nodes"]] == [
        ("nobody", "SKIPPED", "UNKNOWN_USER"),
        ("sender", "SKIPPED", "SENDER"),
        *((f"u{number:02}", "SENT", None) for number in range(5)),
    ]
    sent = page["nodes"][2]
    assert sent["user"] == {"name": "User 0"}
    assert sent["channel"] == {"cid": sent["cid"]}
    assert sent["message"] == {
        "text": "Hello User 0",
        "campaignId": "c",
        "campaign": {"campaignId": "c", "status": "COMPLETED"},
    }
    assert sent["sentAt"] is not None
    assert (
        page["nodes"][0].items() >= {"sentAt": None, "message": None, "channel": None, "user": None}.items()
    )

    nodes = await campaigns.client.data(
        """query ($ids: [ID!]!) { nodes(ids: $ids) {
          ... on Recipient { targetId campaign { campaignId stats { sent } } } } }""",
        ids=[sent["id"]],
    )
    assert nodes["nodes"] == [{"targetId": "u00", "campaign": {"campaignId": "c", "stats": {"sent": 5}}}]
    await campaigns.delete("c")
    gone = await campaigns.client.data("query ($id: ID!) { node(id: $id) { id } }", id=sent["id"])
    assert gone["node"] is None


SENT = [f"u{number:02}" for number in range(5)]
FILTERS: list[tuple[Any, list[str], list[str]]] = [  # what it finds once sent, and while all are pending
    ({}, sorted(AUDIENCE), sorted(AUDIENCE)),
    ({"status": {"eq": "SENT"}}, SENT, []),
    ({"status": {"in": ["SKIPPED", "FAILED"]}}, ["nobody", "sender"], []),
    ({"status": {"eq": "PENDING"}}, [], sorted(AUDIENCE)),
    ({"status": {"in": ["PENDING", "SKIPPED"]}, "targetId": {"lt": "o"}}, ["nobody"], ["nobody"]),
    ({"reason": {"eq": "SENDER"}}, ["sender"], []),
    ({"reason": {"in": ["SENDER", "UNKNOWN_USER"]}, "status": {"eq": "FAILED"}}, [], []),
    ({"targetId": {"eq": "u03"}}, ["u03"], ["u03"]),
    ({"targetId": {"in": ["u03", "sender", "else"], "gt": "t"}}, ["u03"], ["u03"]),
    ({"targetId": {"gte": "u01", "lt": "u03"}}, ["u01", "u02"], ["u01", "u02"]),
    ({"targetId": {"autocomplete": "U0"}}, SENT, SENT),
    ({"targetId": {"lte": "sender", "exists": True}, "reason": {"eq": "SENDER"}}, ["sender"], []),
    ({"targetId": {"exists": False}}, [], []),
    ({"status": {}, "targetId": {"gt": "u03"}}, ["u04"], ["u04"]),
]


async def test_recipients_are_filtered_settled_and_pending(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    await campaigns.done("start", campaignId="c")
    await campaigns.done("pause", campaignId="c")
    async with engine(database, valkey_url) as worker:
        await worker.turn()  # plans, and sends nothing
    for filter, _, pending in FILTERS:
        assert await _found(campaigns, filter) == (pending, len(pending)), filter
    await campaigns.done("resume", campaignId="c")
    await send_everything(database, valkey_url)
    for filter, settled, _ in FILTERS:
        assert await _found(campaigns, filter) == (settled, len(settled)), filter


async def _found(campaigns: Campaigns, filter: Any) -> tuple[list[str], int]:
    page = await campaigns.recipients("c", filter=filter)
    return [row["targetId"] for row in page["nodes"]], page["totalCount"]


async def test_recipients_are_paged_both_ways(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)
    first = await campaigns.recipients("c", "first: 4")
    rest = await campaigns.recipients("c", "first: 4", after=first["pageInfo"]["endCursor"])
    assert [row["targetId"] for page in (first, rest) for row in page["nodes"]] == sorted(AUDIENCE)
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    last = await campaigns.recipients("c", "last: 2")
    assert [row["targetId"] for row in last["nodes"]] == ["u03", "u04"]


async def test_filters_of_recipients_that_mean_nothing(campaigns: Campaigns) -> None:
    await campaigns.draft("c")
    for filter in (
        {"status": None},
        {"reason": {"eq": None}},
        {"targetId": None},
        {"targetId": {"in": None}},
    ):
        error = await campaigns.client.error(RECIPIENTS, id="c", filter=filter)
        assert error["extensions"]["code"] == "INVALID_INPUT", filter


async def test_paused_it_is_planned_and_resumed_it_ends(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    await campaigns.done("start", campaignId="c")
    paused = await campaigns.done("pause", campaignId="c")
    assert (paused["status"], paused["allowedActions"]) == ("PAUSED", ["STOP", "RESUME"])
    assert (await campaigns.done("pause", campaignId="c"))["statusChangedAt"] == paused["statusChangedAt"]
    async with engine(database, valkey_url) as worker:
        await worker.turn()
    seen = await campaigns.read("c")
    assert counts(seen) == {"targets": 7, "pending": 7, "sent": 0, "skipped": 0, "failed": 0}
    assert (seen["stats"]["planned"], seen["stats"]["progress"]) == (True, 0)
    assert await campaigns.refused("update", campaignId="c", senderId="u00") == [("CONFLICT", ["senderId"])]
    assert (await campaigns.done("update", campaignId="c", maxMessagesPerSecond=9))["name"] is None
    assert (await campaigns.done("resume", campaignId="c"))["status"] == "IN_PROGRESS"
    await campaigns.done("update", campaignId="c", maxMessagesPerSecond=None)
    await send_everything(database, valkey_url)
    assert (await campaigns.read("c"))["status"] == "COMPLETED"


async def test_stopped_what_is_planned_stays_pending(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    await campaigns.done("start", campaignId="c")
    await campaigns.done("pause", campaignId="c")
    async with engine(database, valkey_url) as worker:
        await worker.turn()
    stopped = await campaigns.done("stop", campaignId="c")
    assert (stopped["status"], stopped["stats"]["pending"], stopped["stats"]["targets"]) == ("STOPPED", 7, 7)
    assert (await campaigns.done("stop", campaignId="c"))["updatedAt"] == stopped["updatedAt"]
    pending = await campaigns.recipients("c", filter={"status": {"eq": "PENDING"}})
    assert pending["totalCount"] == 7
    for mutation in ("start", "pause", "resume", "unschedule"):
        assert await campaigns.refused(mutation, campaignId="c") == [("CONFLICT", ["campaignId"])]
    named = await campaigns.done("update", campaignId="c", name="Over")
    assert (named["name"], named["status"]) == ("Over", "STOPPED")
    assert await campaigns.refused("update", campaignId="c", stopAt=None) == [("CONFLICT", ["stopAt"])]


async def test_it_starts_once_however_many_ask(campaigns: Campaigns) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    payloads = await asyncio.gather(*(campaigns.change("start", campaignId="c") for _ in range(4)))
    assert sorted(len(payload["errors"]) for payload in payloads) == [0, 1, 1, 1]
    refused = next(payload["errors"][0] for payload in payloads if payload["errors"])
    assert refused["code"] == "CONFLICT"
    assert refused["details"] == {"status": "IN_PROGRESS", "allowed": ["STOP", "PAUSE"]}


async def test_what_a_start_needs(campaigns: Campaigns, database: Database) -> None:
    await campaigns.draft("c", createChannels=True)
    async with database.transaction() as session:
        await session.execute(
            update(User).where(User.id == "sender").values(deactivated_at=datetime.now(UTC))  # type: ignore[arg-type]
        )
    payload = await campaigns.change("start", campaignId="c", stopAt="2020-01-01T00:00:00Z")
    assert [(error["code"], *error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", "stopAt"),
        *[("INVALID_INPUT", "campaignId")] * 3,
    ]
    told = " ".join(error["message"] for error in payload["errors"])
    for word in ("stopAt", "segmentIds or userIds", "channelTemplate", "sender"):
        assert word in told
    assert (await campaigns.read("c"))["status"] == "DRAFT"
    assert await campaigns.refused("start", campaignId="nobody") == [("NOT_FOUND", ["campaignId"])]


async def test_a_schedule_comes_goes_and_keeps_its_rules(campaigns: Campaigns) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    later = datetime.now(UTC) + timedelta(days=1)
    given = {"scheduledFor": later.isoformat(), "stopAt": (later + timedelta(hours=1)).isoformat()}
    scheduled = await campaigns.done("start", campaignId="c", **given)
    assert (scheduled["status"], instant(scheduled["scheduledFor"])) == ("SCHEDULED", later)
    assert scheduled["allowedActions"] == ["START", "UNSCHEDULE", "STOP", "EDIT", "DELETE"]
    assert await campaigns.refused("update", campaignId="c", userIds=None) == [
        ("INVALID_INPUT", ["segmentIds"])
    ]
    assert await campaigns.refused("update", campaignId="c", stopAt=later.isoformat()) == [
        ("INVALID_INPUT", ["stopAt"])
    ]
    again = await campaigns.done("start", campaignId="c", scheduledFor=given["stopAt"])
    assert (again["stopAt"], instant(again["scheduledFor"])) == (None, later + timedelta(hours=1))
    draft = await campaigns.done("unschedule", campaignId="c")
    assert (draft["status"], draft["scheduledFor"], draft["stopAt"]) == ("DRAFT", None, None)
    past = await campaigns.done("start", campaignId="c", scheduledFor="2020-01-01T00:00:00Z")
    assert (past["status"], past["scheduledFor"]) == ("IN_PROGRESS", None)


async def test_a_due_campaign_that_cannot_start_says_why(campaigns: Campaigns, database: Database) -> None:
    await campaigns.draft("c", userIds=AUDIENCE, **DIRECT)
    later = datetime.now(UTC) + timedelta(days=1)
    await campaigns.done("start", campaignId="c", scheduledFor=later.isoformat())
    async with database.transaction() as session:
        row = await queries.locked(session, "c")
        assert row is not None
        row.scheduled_for = datetime.now(UTC) - timedelta(seconds=1)
        row.channel_template = None
        await session.execute(
            update(User).where(User.id == "sender").values(deactivated_at=datetime.now(UTC))  # type: ignore[arg-type]
        )
    async with database.transaction() as session:
        await lifecycle.settle_due(session, row.campaign_no, None)
    stopped = await campaigns.read("c")
    assert (stopped["status"], stopped["statusReason"]) == ("STOPPED", "NOT_STARTABLE")
    assert "channelTemplate" in stopped["statusMessage"]
    assert "sender" in stopped["statusMessage"]
    assert counts(stopped) == dict.fromkeys(COUNTS, 0)


async def test_who_sent_nothing_says_why(campaigns: Campaigns, database: Database, valkey_url: str) -> None:
    await campaigns.draft("c", userIds=["u00", "u01"])
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)
    done = await campaigns.read("c")
    assert done["statusMessage"] == "all 2 skipped: NO_CHANNEL; createChannels is false"
    await campaigns.draft("empty", segmentIds=[], userIds=["sender"])
    await campaigns.done("start", campaignId="empty")
    await send_everything(database, valkey_url)
    assert (await campaigns.read("empty"))["statusMessage"] == "all 1 skipped: SENDER"


class TestCapacity:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return load(database_url=settings.database_url, data_dir=settings.data_dir, monthly_messages=8)

    async def test_a_start_that_does_not_fit_is_refused(self, campaigns: Campaigns) -> None:
        await campaigns.draft("one", userIds=AUDIENCE, **DIRECT)
        await campaigns.draft("two", userIds=["u00", "u01"], **DIRECT)
        await campaigns.done("start", campaignId="one")
        refused = (await campaigns.change("start", campaignId="two"))["errors"]
        assert [(error["code"], error["path"]) for error in refused] == [("QUOTA_EXCEEDED", ["campaignId"])]
        assert refused[0]["details"].items() >= {"needed": 2, "left": 1}.items()
        assert (await campaigns.read("two"))["status"] == "DRAFT"
        usage = await campaigns.client.data("{ usage { messagesSent messageCapacity } }")
        assert usage["usage"] == {"messagesSent": 7, "messageCapacity": 8}

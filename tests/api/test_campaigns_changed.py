"""campaignsChanged: what is going on, then everything that happens to campaigns, once each."""

import asyncio
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import update

from app.campaigns import models, overview, queries, stats
from app.campaigns.overview import Change, Overview
from app.campaigns.stats import Snapshot
from app.database import Database, now
from app.onlookers import Shown
from app.progress import Listener, Publisher
from tests.api.campaigns import STATS, Campaigns, engine, people, send_everything, somebody
from tests.api.conftest import PATIENCE, Client, Subscription, eventually

WATCH = f"""subscription ($ids: [String!]) {{ campaignsChanged(campaignIds: $ids) {{
  deletedId campaign {{ id campaignId name status sender {{ userId }} {STATS} }} }} }}"""
QUIET = 1.5 * overview.LOOK_EVERY_SECONDS
AUDIENCE = {"userIds": ["u00", "u01"], "createChannels": True, "channelTemplate": {"type": "messaging"}}


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    """One of each status: draft, scheduled, running, paused, stopped."""
    await people(database, 2)
    campaigns = Campaigns(client)
    for name in ("draft", "scheduled", "running", "paused", "stopped"):
        await campaigns.draft(name, **AUDIENCE)
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await campaigns.done("start", campaignId="scheduled", scheduledFor=later)
    for name in ("running", "paused", "stopped"):
        await campaigns.done("start", campaignId=name)
    await campaigns.done("pause", campaignId="paused")
    await campaigns.done("stop", campaignId="stopped")
    return campaigns


async def change(watched: Subscription, within: float = PATIENCE) -> Any:
    return (await watched.next(within))["campaignsChanged"]


async def snapshot(watched: Subscription, count: int) -> dict[str, str]:
    """The statuses of so many campaigns that are shown first."""
    shown = [(await change(watched))["campaign"] for _ in range(count)]
    return {campaign["campaignId"]: campaign["status"] for campaign in shown}


async def silent(watched: Subscription) -> None:
    with pytest.raises(TimeoutError):
        raise AssertionError(await watched.message(QUIET))


async def test_first_what_is_going_on_and_then_every_change(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(WATCH) as watched:
        going_on = {"scheduled": "SCHEDULED", "running": "IN_PROGRESS", "paused": "PAUSED"}
        assert await snapshot(watched, 3) == going_on
        created = await campaigns.draft("new")
        assert (await change(watched))["campaign"]["campaignId"] == "new"
        await campaigns.done("update", campaignId="draft", name="Changed")
        changed = (await change(watched))["campaign"]
        assert (changed["campaignId"], changed["name"]) == ("draft", "Changed")
        await campaigns.done("resume", campaignId="paused")
        assert (await change(watched))["campaign"]["status"] == "IN_PROGRESS"
        await campaigns.delete("new")
        assert await change(watched) == {"deletedId": created["id"], "campaign": None}
        await campaigns.delete("stopped")
        assert (await change(watched))["campaign"] is None
        await silent(watched)


async def test_a_campaign_that_ends_is_shown_as_it_ended(
    client: Client, campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with client.subscribed(WATCH) as watched:
        await snapshot(watched, 3)
        await send_everything(database, valkey_url)
        completed = await _ended(watched, "running")
        assert (completed["status"], completed["stats"]["sent"]) == ("COMPLETED", 2)
        await campaigns.done("stop", campaignId="paused")
        assert (await _ended(watched, "paused"))["status"] == "STOPPED"


async def _ended(watched: Subscription, campaign_id: str) -> Any:
    """The first state of this campaign in which it has ended."""
    while True:
        campaign = (await change(watched))["campaign"]
        if campaign["campaignId"] == campaign_id and campaign["status"] in ("STOPPED", "COMPLETED"):
            return campaign


async def test_those_that_are_named_whatever_their_status(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(WATCH, ids=["draft", "stopped", "paused", "coming"]) as watched:
        statuses = {"draft": "DRAFT", "stopped": "STOPPED", "paused": "PAUSED"}
        assert await snapshot(watched, 3) == statuses
        await campaigns.done("update", campaignId="running", name="Not asked for")
        await campaigns.draft("other")
        await campaigns.delete("other")
        coming = await campaigns.draft("coming")
        assert (await change(watched))["campaign"]["campaignId"] == "coming"
        await campaigns.delete("coming")
        assert await change(watched) == {"deletedId": coming["id"], "campaign": None}
        again = await campaigns.draft("coming")
        assert (await change(watched))["campaign"]["id"] == again["id"] != coming["id"]
        await silent(watched)


async def test_null_is_all_of_them(viewer: Client, campaigns: Campaigns) -> None:
    async with viewer.subscribed(WATCH, ids=None) as watched:
        assert len(await snapshot(watched, 3)) == 3


@pytest.mark.parametrize(
    ("ids", "code"), [([], "INVALID_INPUT"), ([str(n) for n in range(101)], "LIMIT_EXCEEDED")]
)
async def test_one_to_a_hundred_can_be_named(client: Client, ids: list[str], code: str) -> None:
    async with client.subscribed(WATCH, ids=ids) as watched:
        message = await watched.message()
    errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
    assert [error["extensions"]["code"] for error in errors] == [code]


async def test_a_snapshot_knows_what_its_client_did(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(WATCH) as first:
        await snapshot(first, 3)
        for mutation, status in (("pause", "PAUSED"), ("resume", "IN_PROGRESS")) * 2:
            await campaigns.done(mutation, campaignId="running")
            async with client.subscribed(WATCH) as second:
                assert (await snapshot(second, 3))["running"] == status


async def test_what_nobody_told_is_seen_all_the_same(
    client: Client, campaigns: Campaigns, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By looking every two seconds; here more often."""
    assert overview.LOOK_EVERY_SECONDS == 2
    monkeypatch.setattr(overview, "LOOK_EVERY_SECONDS", 0.1)
    async with client.subscribed(WATCH) as watched:
        await snapshot(watched, 3)
        await silent(watched)
        for quietly in ({"name": "Quietly"}, {"deleted_at": datetime.now(UTC)}):
            async with database.transaction() as session:
                mine = models.Campaign.campaign_id == "draft"
                values = {"updated_at": await now(session), **quietly}
                await session.execute(update(models.Campaign).where(mine).values(values))
            seen = await change(watched)
            assert (seen["campaign"] or {"name": None})["name"] == quietly.get("name")


async def test_what_has_not_changed_is_not_repeated(
    client: Client, campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with client.subscribed(WATCH) as watched, engine(database, valkey_url) as worker:
        await snapshot(watched, 3)
        for name in ("running", "paused", "scheduled"):
            await worker.publisher.publish(await _number(database, name))
        await silent(watched)


async def test_watching_one_campaign_is_no_change_of_it(client: Client, campaigns: Campaigns) -> None:
    one = 'subscription { campaignUpdated(campaignId: "draft") { status } }'
    async with client.subscribed(WATCH) as watched:
        await snapshot(watched, 3)
        async with client.subscribed(one) as other, client.subscribed(WATCH, ids=["draft"]) as named:
            await other.next()
            await change(named)
            await silent(watched)


async def test_many_followers_cost_one_read_and_five_a_second_at_most(
    client: Client,
    campaigns: Campaigns,
    database: Database,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    snapshots = stats.snapshots

    async def counted(*arguments: Any) -> Any:
        looks.append(time.monotonic())
        return await snapshots(*arguments)

    monkeypatch.setattr(stats, "snapshots", counted)
    async with asyncio.TaskGroup() as group:
        all_there = asyncio.Barrier(11)  # who comes once the others have gone has a reader of his own
        followers = [group.create_task(_names_until(client, "39", all_there)) for _ in range(10)]
        await all_there.wait()
        for name in range(40):
            await campaigns.done("update", campaignId="draft", name=str(name))
            await campaigns.done("update", campaignId="running", name=str(name))
    for follower in followers:
        names = [int(name) for name in follower.result()]
        assert names == sorted(names)
    assert min(later - earlier for earlier, later in pairwise(looks)) >= overview.PAUSE_SECONDS * 0.9


async def _names_until(client: Client, last: str, all_there: asyncio.Barrier) -> list[str]:
    """The names of the running campaign that are seen, up to the last."""
    names: list[str] = []
    async with client.subscribed(WATCH) as watched:
        await snapshot(watched, 3)
        await all_there.wait()
        while last not in names:
            campaign = (await change(watched))["campaign"]
            names += [campaign["name"]] if campaign["campaignId"] == "running" and campaign["name"] else []
    return names


async def test_nothing_piles_up_for_who_does_not_read(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with _heard(valkey_url) as listener:
        followed = Overview(database, listener)
        async with aclosing(followed.changes(None, somebody())) as changes:
            first = [await anext(changes) for _ in range(3)]
            assert followed._reader is not None
            (follower,) = followed._reader._followers
            for name in range(5):
                for campaign_id in ("running", "draft"):
                    await campaigns.done("update", campaignId=campaign_id, name=str(name))
                both = {"running": str(name), "draft": str(name)}
                await eventually(partial(_waits, follower.waiting, both))
            newest: dict[str, str | None] = {}
            async with asyncio.timeout(PATIENCE):
                while newest != {"running": "4", "draft": "4"}:
                    _note(newest, await anext(changes))
        assert (followed._reader, listener._ears) == (None, set())
        assert len({each.campaign_no for each in first}) == 3


async def _waits(waiting: dict[int, tuple[Snapshot | None, Shown]], names: dict[str, str]) -> bool:
    """Whether just these states wait to be read."""
    states = [snapshot.campaign for snapshot, _ in waiting.values() if snapshot is not None]
    return len(waiting) == len(names) and {state.campaign_id: state.name for state in states} == names


def _note(newest: dict[str, str | None], change: Change) -> None:
    assert change.snapshot is not None
    newest[change.snapshot.campaign.campaign_id] = change.snapshot.campaign.name


class _heard:
    """A listener that listens while the block lasts."""

    def __init__(self, url: str) -> None:
        self.listener = Listener(url)

    async def __aenter__(self) -> Listener:
        self.task = asyncio.create_task(self.listener.listen())
        return self.listener

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_database_that_was_away_hides_nothing(
    campaigns: Campaigns, database: Database, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots, failures = stats.snapshots, 0

    async def away(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        monkeypatch.setattr(stats, "snapshots", snapshots)
        raise OSError("away")

    async with _heard(valkey_url) as listener:
        followed = Overview(database, listener)
        monkeypatch.setattr(stats, "snapshots", away)
        async with aclosing(followed.changes(None, somebody())) as changes:
            assert len({(await anext(changes)).campaign_no for _ in range(3)}) == 3
            monkeypatch.setattr(stats, "snapshots", away)
            await campaigns.done("update", campaignId="draft", name="Meanwhile")
            async with asyncio.timeout(PATIENCE):
                change = await anext(changes)
            assert change.snapshot is not None and change.snapshot.campaign.name == "Meanwhile"
    assert failures == 2


async def test_a_fault_reaches_every_follower_and_is_over(
    campaigns: Campaigns, database: Database, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a fault")

    followed = Overview(database, Listener(valkey_url))
    with monkeypatch.context() as patched:
        patched.setattr(stats, "snapshots", broken)
        faults = await asyncio.gather(
            *(anext(followed.changes(None, somebody())) for _ in range(2)), return_exceptions=True
        )
        assert [type(fault) for fault in faults] == [RuntimeError, RuntimeError]
    async with aclosing(followed.changes(None, somebody())) as again:
        assert (await anext(again)).snapshot is not None


async def test_more_than_is_remembered(
    campaigns: Campaigns, database: Database, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended campaigns are forgotten; then a change of theirs may be shown twice, never not at all."""
    monkeypatch.setattr(overview, "MOST_REMEMBERED", 3)
    publisher = Publisher(valkey_url)
    async with _heard(valkey_url) as listener:
        followed = Overview(database, listener)
        async with aclosing(followed.changes(None, somebody())) as changes:
            for _ in range(3):
                await anext(changes)
            number = await _number(database, "stopped")
            for _ in range(2):
                await publisher.publish(number)
                assert (await anext(changes)).campaign_no == number
            assert followed._reader is not None and len(followed._reader._told) == 3
    await publisher.close()


async def _number(database: Database, campaign_id: str) -> int:
    async with database.read() as session:
        row = await queries.by_id(session, campaign_id)
    assert row is not None
    return row.campaign_no

"""campaignUpdated: a snapshot, then every change, each once, and an end."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from app.campaigns import stats, watching
from app.database import Database
from app.progress import Listener
from tests.api.campaigns import STATS, Campaigns, engine, people, send_everything, somebody
from tests.api.conftest import PATIENCE, Client, Subscription

AUDIENCE = [f"u{number:02}" for number in range(5)]
WATCH = f"""subscription ($id: String!, $follow: Boolean! = false) {{
  campaignUpdated(campaignId: $id, follow: $follow) {{ id campaignId name status {STATS} }} }}"""
COMPLETE = {"id": "1", "type": "complete"}


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    await people(database, 5)
    campaigns = Campaigns(client)
    await campaigns.draft("c", userIds=AUDIENCE, createChannels=True, channelTemplate={"type": "messaging"})
    return campaigns


async def state(watched: Subscription, within: float = PATIENCE) -> Any:
    return (await watched.next(within))["campaignUpdated"]


async def states(watched: Subscription) -> list[Any]:
    """What still comes, up to the end."""
    found = []
    while (message := await watched.message())["type"] == "next":
        found.append(message["payload"]["data"]["campaignUpdated"])
    assert message == COMPLETE
    return found


async def test_a_whole_campaign_is_watched(
    client: Client, campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with client.subscribed(WATCH, id="c") as watched:
        assert (await state(watched))["status"] == "DRAFT"
        await campaigns.done("start", campaignId="c")
        assert (await state(watched))["status"] == "IN_PROGRESS"
        await send_everything(database, valkey_url)
        seen = await states(watched)
    assert seen[-1]["status"] == "COMPLETED"
    assert (seen[-1]["stats"]["sent"], seen[-1]["stats"]["pending"]) == (5, 0)
    for each in seen:
        numbers = each["stats"]
        assert numbers["targets"] == sum(numbers[name] for name in ("pending", "sent", "skipped", "failed"))
        assert (numbers["progress"] == 1) == (numbers["planned"] and numbers["pending"] == 0)
    assert [each["stats"]["asOf"] for each in seen] == sorted(each["stats"]["asOf"] for each in seen)


async def test_ended_it_is_one_snapshot_and_the_end(client: Client, campaigns: Campaigns) -> None:
    await campaigns.done("start", campaignId="c")
    await campaigns.done("stop", campaignId="c")
    async with client.subscribed(WATCH, id="c") as watched:
        assert [each["status"] for each in await states(watched)] == ["STOPPED"]


async def test_who_follows_stays_until_it_is_deleted(client: Client, campaigns: Campaigns) -> None:
    await campaigns.done("start", campaignId="c")
    async with client.subscribed(WATCH, id="c", follow=True) as watched:
        await state(watched)
        await campaigns.done("stop", campaignId="c")
        assert (await state(watched))["status"] == "STOPPED"
        await campaigns.done("update", campaignId="c", name="Over")
        assert (await state(watched))["name"] == "Over"
        await campaigns.delete("c")
        assert await watched.message() == COMPLETE


async def test_a_deleted_campaign_ends_its_watchers(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(WATCH, id="c") as watched:
        await state(watched)
        await campaigns.delete("c")
        assert await watched.message() == COMPLETE


async def test_an_unknown_id_is_not_found(client: Client) -> None:
    async with client.subscribed(WATCH, id="nobody") as watched:
        message = await watched.message()
    errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
    assert [error["extensions"]["code"] for error in errors] == ["NOT_FOUND"]


async def test_a_snapshot_knows_what_its_client_did(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(WATCH, id="c") as first:
        await state(first)
        for mutation, status in (("start", "IN_PROGRESS"), ("pause", "PAUSED"), ("resume", "IN_PROGRESS")):
            await campaigns.done(mutation, campaignId="c")
            async with client.subscribed(WATCH, id="c") as second:
                assert (await state(second))["status"] == status


async def test_what_nobody_told_is_seen_all_the_same(
    client: Client, campaigns: Campaigns, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By looking every two seconds; here more often."""
    assert watching.LOOK_EVERY_SECONDS == 2
    monkeypatch.setattr(watching, "LOOK_EVERY_SECONDS", 0.1)
    async with client.subscribed(WATCH, id="c") as watched:
        await state(watched)
        async with database.transaction() as session:
            row = await stats.queries.locked(session, "c")
            assert row is not None
            await stats.queries.locked_by_no(session, row.campaign_no)
            row.name, row.updated_at = "Quietly", await stats.now(session)
        assert (await state(watched))["name"] == "Quietly"


async def test_an_unchanged_state_is_not_repeated(
    client: Client, campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with client.subscribed(WATCH, id="c") as watched, engine(database, valkey_url) as worker:
        draft = await state(watched)
        number = await _number(database)
        for _ in range(5):
            await worker.publisher.publish(number)
        with pytest.raises(TimeoutError):
            await watched.message(1.5 * watching.LOOK_EVERY_SECONDS)
        assert draft["status"] == "DRAFT"


async def test_many_watchers_cost_one_read_and_five_a_second_at_most(
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
    number = await _number(database)
    async with asyncio.TaskGroup() as group, engine(database, valkey_url) as worker:
        all_there = asyncio.Barrier(11)  # who comes once the others have gone has a reader of his own
        watchers = [group.create_task(_until_stopped(client, all_there)) for _ in range(10)]
        await all_there.wait()
        await campaigns.done("start", campaignId="c")
        for name in range(60):
            await worker.publisher.publish(number)
            await campaigns.done("update", campaignId="c", name=str(name))
        await campaigns.done("stop", campaignId="c")
    assert {watcher.result()[-1]["status"] for watcher in watchers} == {"STOPPED"}
    between = [later - earlier for earlier, later in pairwise(looks)]
    assert min(between) >= watching.PAUSE_SECONDS * 0.9


async def _until_stopped(client: Client, all_there: asyncio.Barrier) -> list[Any]:
    async with client.subscribed(WATCH, id="c") as watched:
        await state(watched)
        await all_there.wait()
        return await states(watched)


async def _number(database: Database) -> int:
    async with database.read() as session:
        row = await stats.queries.by_id(session, "c")
    assert row is not None
    return row.campaign_no


async def test_nothing_is_left_of_the_last_watcher(
    campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    listener = Listener(valkey_url)
    watched = watching.Watching(database, listener)
    number = await _number(database)
    one, other = watched.states(number, somebody()), watched.states(number, somebody())
    assert (await anext(one)).campaign.campaign_id == (await anext(other)).campaign.campaign_id == "c"
    await one.aclose()
    assert number in watched._watches
    await other.aclose()
    assert (watched._watches, dict(listener._waiting)) == ({}, {})


async def test_a_fault_of_the_reader_reaches_its_watchers_and_is_over(
    campaigns: Campaigns, database: Database, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watching.Watching(database, Listener(valkey_url))
    number = await _number(database)

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(stats, "snapshots", broken)
        states = watched.states(number, somebody())
        with pytest.raises(RuntimeError):
            await anext(states)
    again = watched.states(number, somebody())
    assert (await anext(again)).campaign.campaign_id == "c"
    await again.aclose()


async def test_a_database_that_was_away_is_read_later(
    campaigns: Campaigns, database: Database, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(valkey_url)
    watched = watching.Watching(database, listener)
    number = await _number(database)
    snapshots = stats.snapshots

    async def away_once(*arguments: Any) -> Any:
        monkeypatch.setattr(stats, "snapshots", snapshots)
        raise OSError("away")

    monkeypatch.setattr(stats, "snapshots", away_once)
    states = watched.states(number, somebody())
    assert (await anext(states)).campaign.campaign_id == "c"
    await states.aclose()

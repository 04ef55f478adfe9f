"""What is posted tells of exactly what was committed, as it is by now."""

from collections.abc import Iterable
from random import Random
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel
from app.channels.upserting import upsert_channels
from app.database import Database
from app.events.models import Event
from app.ledger.erasing import delete_channels
from app.messages.models import Message
from app.sending import testing
from app.users.models import User
from app.webhooks import bodies, dispatching, expanding
from app.webhooks.models import Endpoint
from tests.integration.campaigning import add_channel, add_list, add_users, create, messages, start, work
from tests.integration.hearing import deliveries, expand, hear, listen, posts, types
from tests.semantics.acting import BREAKS_FOR_ODD, retry
from tests.semantics.test_books_balance import Round, WatchedDatabase, small_steps

__all__ = ["small_steps"]

STEPS = 40


class Ear:
    """Notes after every commit what is there, and lets endpoints hear of it now and then."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.random = Random(seed)
        self.endpoints: list[Endpoint] = []
        self.messages: dict[str, dict[str, Any]] = {}
        self.channels: set[tuple[str, Any]] = set()

    async def listen(self) -> None:
        """Three endpoints that want messages and channels, one by one, in pairs and in heaps."""
        for size in (1, 2, 500):
            endpoint = await listen(self.database, "message.new", "channel.created", batch_size=size)
            self.endpoints.append(endpoint)

    async def note(self, watched: Database) -> None:
        if not self.endpoints:
            return
        async with watched.read() as session:
            rows = await session.execute(select(Message))
            self.messages |= {row.id: row.model_dump(mode="json") for row in rows.scalars()}
            channels = await session.execute(select(col(Channel.cid), col(Channel.created_at)))
            self.channels |= {(cid, created_at) for cid, created_at in channels}
        if self.random.random() < 0.2:
            await dispatching.dispatch(self.database)
            async with self.database.transaction() as session:
                await expanding.expand(session, self.random.choice(self.endpoints), self.random.randint(1, 9))


async def _now(session: AsyncSession) -> tuple[dict[str, Any], set[tuple[str, Any]]]:
    rows = {row.id: row for row in (await session.execute(select(Message))).scalars()}
    channels = await session.execute(select(col(Channel.cid), col(Channel.created_at)))
    return rows, {(cid, created_at) for cid, created_at in channels}


@pytest.mark.parametrize("seed", range(4))
async def test_events_are_exactly_what_was_committed(
    database_url: str, database: Database, seed: int, small_steps: None
) -> None:
    """Whatever is killed, throttled, halved, retried, isolated, deleted, for users and for channels: each
    message that ever was is told once, those of batches that were rolled back never."""
    ear = Ear(database, seed)
    watched = WatchedDatabase(database_url, ear.note)
    world = Round(100 + seed, watched)
    try:
        await world.build()
        before = {(cid, at) for cid, at in (await _read(database))[1]}
        await ear.listen()
        for _ in range(STEPS):
            await world.step()
        await world.finish()
    finally:
        await watched.close()
    assert ear.messages
    present, channels = await _read(database)
    for endpoint in ear.endpoints:
        told = [event for event in await hear(database, endpoint) if event is not None]
        ids = [event["message"]["id"] for event in told if event["type"] == "message.new"]
        assert sorted(ids) == sorted(present)
        cids = [event["channel"]["cid"] for event in told if event["type"] == "channel.created"]
        assert sorted(cids) == sorted(cid for cid, at in channels - before)
        held = await _held(database, endpoint)
        assert held == (len(ear.messages), len(ear.channels - before))
        _in_order(told)
        for event in told:
            if event["type"] == "message.new":
                _same(event["message"], present[event["message"]["id"]])


async def _read(database: Database) -> tuple[dict[str, Any], set[tuple[str, Any]]]:
    async with database.read() as session:
        return await _now(session)


async def _held(database: Database, endpoint: Endpoint) -> tuple[int, int]:
    """How many messages and channels its deliveries tell of, deleted since or not."""
    async with database.read() as session:
        kinds = dict((await session.execute(select(col(Event.id), col(Event.type)))).all())
    parts = [part for each in await deliveries(database, endpoint) for part in each.holds]
    counts = {"message.new": 0, "channel.created": 0}
    for event_id, _, count in parts:
        counts[kinds[event_id]] += count
    return counts["message.new"], counts["channel.created"]


def _in_order(told: Iterable[dict[str, Any]]) -> None:
    """A channel's messages come in the order of the channel, and not before it is told of."""
    seen: dict[str, int] = {}
    for event in told:
        if event["type"] == "channel.created":
            assert event["channel"]["cid"] not in seen
        else:
            message = event["message"]
            assert seen.get(message["cid"], 0) < message["seq"]
            seen[message["cid"]] = message["seq"]


def _same(told: dict[str, Any], row: Message) -> None:
    stored = row.model_dump(mode="json", exclude={"campaign_no"})
    assert told == stored | {"campaign_id": row.custom["campaign_id"]}


async def test_what_was_deleted_since_is_left_out_and_the_rest_stays_in_place(database: Database) -> None:
    single, batched = (
        await listen(database, "message.new"),
        await listen(database, "message.new", batch_size=500),
    )
    await add_users(database, ["sender", "ann", "bob", "cid"])
    await create(database, user_ids=["ann", "bob", "cid"])
    await start(database)
    await work(database)
    await dispatching.dispatch(database)
    for endpoint in (single, batched):
        await expand(database, endpoint)
    await delete_channels(database, ["messaging:bob-news"])
    told = await posts(database, single)
    assert [body and body["message"]["target_id"] for body in told] == ["ann", None, "cid"]
    (batch,) = await posts(database, batched)
    assert [event["message"]["target_id"] for event in batch["events"]] == ["ann", "cid"]
    await delete_channels(database, ["messaging:ann-news", "messaging:cid-news"])
    assert await posts(database, batched) == [None]


async def test_a_channel_is_told_of_once_as_it_is(database: Database) -> None:
    """Also when its first message was erased; but one that was deleted and created again is another one."""
    endpoint = await listen(database, "channel.created")
    await add_users(database, ["sender", "ann"])
    given = {"type": "team", "channel_id": "red", "name": "Red", "custom": {"a": [1]}, "members": ["ann"]}
    for fields in (given, {**given, "name": "Redder"}):
        async with database.transaction() as session:
            await upsert_channels(session, [fields, {"type": "team", "channel_id": "blue"}])
    (red, blue) = await hear(database, endpoint)
    assert red["channel"] | {"created_at": red["created_at"]} == {
        "id": "red",
        "cid": "team:red",
        "type": "team",
        "name": "Redder",
        "team": None,
        "custom": {"a": [1]},
        "created_by_id": None,
        "member_count": 1,
        "created_at": red["created_at"],
    }
    assert blue["channel"]["cid"] == "team:blue"
    await delete_channels(database, ["team:red"])
    async with database.transaction() as session:
        await upsert_channels(session, [given])
    told = await hear(database, endpoint)
    assert [each and each["channel"]["cid"] for each in told] == [None, "team:blue", "team:red"]


async def test_a_created_channel_is_told_of_though_its_first_message_is_gone(database: Database) -> None:
    endpoint = await listen(database, "channel.created")
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    await start(database)
    await work(database)
    async with database.transaction() as session:
        await session.execute(delete(Message))
    assert await types(database, endpoint) == ["channel.created"]


async def test_test_messages_are_told_without_a_campaign(database: Database) -> None:
    endpoint = await listen(database)
    await add_users(database, ["sender", "ann", "bob"])
    await create(database, user_ids=["ann"])
    await create(database, "silent", user_ids=["ann"], skip_webhook=True)
    for name in ("news", "silent"):
        async with database.read() as session:
            trial = await testing.prepare(session, name, ["ann", "nobody", "bob"])
        async with database.transaction() as session:
            await testing.send(session, trial, capacity=None)
    told = await hear(database, endpoint)
    assert [each["type"] for each in told] == ["channel.created"] * 2 + ["message.new"] * 2
    assert [each["message"]["target_id"] for each in told[2:]] == ["ann", "bob"]
    assert {each["message"]["campaign_id"] for each in told[2:]} == {None}
    assert all(each["message"]["custom"] == {"test": True} for each in told[2:])


async def test_a_slice_that_is_rolled_back_tells_of_nothing(database: Database) -> None:
    """Rendering fails for odd; what is retried later is told when it is sent."""
    endpoint = await listen(database, "message.new")
    await add_users(database, ["sender", "ann"], custom={"number": 1})
    await add_users(database, ["odd"], custom={"number": 0})
    await create(database, user_ids=["ann", "odd"], message_template={"text": BREAKS_FOR_ODD})
    await start(database)
    await work(database)
    assert len(await hear(database, endpoint)) == 1
    async with database.transaction() as session:
        await session.execute(update(User).values(custom={"number": 1}))
    await retry(database)
    await work(database)
    told = await hear(database, endpoint)
    assert [each["message"]["target_id"] for each in told] == ["ann", "odd"]


async def test_a_channel_audience_is_told_of_message_by_message(database: Database) -> None:
    endpoint = await listen(database, "message.new", "channel.created")
    await add_users(database, ["sender", "ann", "bob"])
    for name in ("red", "blue"):
        await add_channel(database, f"team:{name}", ["sender", "ann", "bob"])
    audience = await add_list(database, 1, ["team:red", "team:blue", "team:gone"], "CHANNEL")
    plain = {"create_channels": False, "channel_template": None, "message_template": {"text": "Hi"}}
    await create(database, segment_ids=[audience], **plain)
    await start(database)
    await work(database)
    told = await hear(database, endpoint)
    assert [(each["message"]["cid"], each["message"]["target_id"]) for each in told] == [
        ("team:blue", "team:blue"),
        ("team:red", "team:red"),
    ]


async def test_text_of_every_kind_arrives_as_it_is(database: Database) -> None:
    endpoint = await listen(database, "message.new", batch_size=2)
    text = 'Grüße "an" \\ alle\n\t\u2028 🎉 </script> {{ receiver.name }}'
    template = {
        "text": text,
        "attachments": [{"n": 1.5, "s": "é", "z": None}],
        "custom": {"deep": {"x": [True]}},
    }
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"], message_template={**template, "poll_id": "p1"})
    await start(database)
    await work(database)
    (told,) = await hear(database, endpoint)
    (stored,) = await messages(database)
    assert told["message"]["text"] == stored.text == text.replace("{{ receiver.name }}", "Ann")
    assert told["message"]["attachments"] == template["attachments"]
    assert told["message"]["custom"] == {"deep": {"x": [True]}, "campaign_id": "news"}
    assert told["message"]["poll_id"] == "p1"


async def test_bodies_are_compact_utf_8_with_times_in_utc(database: Database) -> None:
    endpoint = await listen(database, "campaign.started")
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"], name="Grüße")
    await start(database)
    (told,) = await hear(database, endpoint)
    async with database.read() as session:
        built = await bodies.build(session, await deliveries(database, endpoint))
    (body,) = built.values()
    assert body is not None and "Grüße".encode() in body and orjson.loads(body) == told
    assert all(
        str(told["campaign"][name]).endswith("Z") for name in ("created_at", "started_at", "updated_at")
    )
    assert told["created_at"].endswith("Z") and list(told) == ["type", "created_at", "campaign"]

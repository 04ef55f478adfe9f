"""Plain texts into channels that stand come out set-based as if each entry had been settled by itself."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, insert, select, update
from sqlmodel import SQLModel, col
from structlog.testing import capture_logs

from app.campaigns.models import Campaign
from app.channels.distinct import cid_of, distinct_id
from app.channels.models import Channel, Member
from app.database import Database
from app.events.models import Event, Listener
from app.ledger.models import Batch, BatchReason, Recipient
from app.messages.models import Message
from app.sending import batches, planning
from app.sending import outcomes as deciding
from app.sending.blueprint import Blueprint
from app.sending.postgres import PostgresWriter
from app.sending.sqlite import SqliteWriter
from app.sending.writing import ChannelsTaken, Entries
from tests.integration.campaigning import (
    TO_RECEIVER,
    add_channel,
    add_users,
    books,
    channel,
    create,
    messages,
    outcomes,
    read,
    recounted,
    start,
    work,
)

TOLD = ("cids", "first", "last")  # by events
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
PEOPLE = [f"u{number:02d}" for number in range(24)]
NAMED: dict[str, Any] = {"channel_template": TO_RECEIVER}
DISTINCT: dict[str, Any] = {"channel_template": {"type": "support"}}
PAIRS: dict[str, Any] = {"channel_template": None, "create_channels": False}
CAMPAIGNS: list[dict[str, Any]] = [
    NAMED,
    {**NAMED, "create_channels": False, "show_channels": True},
    {**NAMED, "sender_mode": "INCLUDE", "show_channels": True},
    {"channel_template": {**TO_RECEIVER, "members": ["u03", "agent"]}, "sender_mode": "EXCLUDE"},
    DISTINCT,
    {**DISTINCT, "create_channels": False, "sender_mode": "INCLUDE"},
    {"channel_template": {"type": "support", "members": ["agent"]}, "sender_visibility": "HIDDEN"},
    PAIRS,
    {**PAIRS, "sender_mode": "INCLUDE", "show_channels": True},
]
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database as workers have it: on SQLite they look ahead."""
    opened = Database(database_url, durable=False, inline=True)
    yield opened
    await opened.close()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every slice that is settled together, how many get a message in a channel that stood."""
    settle, found = Entries.settle_alike, list[int]()

    def told(entries: Entries, sending: Any, *rest: Any) -> None:
        found.append(len(sending.cids) - sending.into_created)
        settle(entries, sending, *rest)

    monkeypatch.setattr(Entries, "settle_alike", told)
    return found


def cids_of(campaign: dict[str, Any], user_id: str) -> list[str]:
    """Channels in which the campaign may find this user, the one to be found last."""
    template = campaign["channel_template"]
    if template is None:
        pair = distinct_id(["sender", user_id])
        return [cid_of("messaging", pair), cid_of("support", pair)]
    if "id" in template:
        return [f"messaging:{user_id}-news"]
    return [cid_of("support", distinct_id({"sender", user_id, *template.get("members", ())}))]


async def populate(database: Database, campaign: dict[str, Any], seed: int) -> None:
    """Users, some of whom get nothing, and channels of some of them, in all kinds of states."""
    rolls = random.Random(seed)
    fates: dict[str, list[str]] = {}
    for user_id in PEOPLE:
        fate = rolls.choices(["lives", "absent", "deactivated_at", "deleted_at"], [17, 1, 1, 1])[0]
        fates.setdefault(fate, []).append(user_id)
    for fate in fates.keys() & {"deactivated_at", "deleted_at"}:
        await add_users(database, fates[fate], **{fate: LONG_AGO})
    await add_users(database, ["sender", "agent", *fates["lives"]])
    for user_id in PEOPLE:
        for number, cid in enumerate(cids_of(campaign, user_id)):
            members = rolls.choice([["sender", user_id], [user_id], [], ["sender"], ["agent", "u05"]])
            if campaign["channel_template"] is None:
                members = ["sender", user_id]
            if rolls.random() < 0.7:
                await add_channel(
                    database,
                    cid,
                    members,
                    last_seq=rolls.randrange(3),
                    frozen=rolls.random() < 0.15,
                    last_message_at=LONG_AGO.replace(day=1 + number) if rolls.random() < 0.7 else None,
                )
    async with database.transaction() as session:
        hidden = [user_id for user_id in [*PEOPLE, "sender"] if rolls.random() < 0.3]
        await session.execute(update(Member).where(col(Member.user_id).in_(hidden)).values(hidden=True))
        await session.execute(insert(Listener).values(event_type="*", listener_id="all"))


async def sent(database: Database, **given: Any) -> Campaign:
    """A campaign, when it is over and its books balance."""
    targets = given.pop("user_ids", [*PEOPLE, "sender"])
    await create(database, user_ids=targets, **given)
    await start(database)
    campaign = await work(database)
    await books(database, campaign)
    await recounted(database)
    return campaign


async def written(database: Database) -> dict[str, list[Any]]:
    """All rows that sending writes, without the instants and numbers that differ from run to run."""
    leave_out = {"campaign_no", "created_at", "updated_at", "settled_at", "id", "message_id", "dispatched_at"}
    found: dict[str, list[Any]] = {}
    async with database.read() as session:
        for table in (Channel, Member, Message, Recipient, Batch, BatchReason, Event):
            keys = [table.__table__.c.id] if table in (Message, Event) else table.__table__.primary_key  # type: ignore[attr-defined]
            rows = (await session.execute(select(table).order_by(*keys))).scalars()
            found[table.__name__] = [row.model_dump(exclude=leave_out) for row in rows]
        places = dict((await session.execute(select(col(Message.id), col(Message.cid)))).all())
        sent_as = await session.execute(select(col(Recipient.message_id)).order_by(col(Recipient.target_id)))
    found["sent as"] = [places.get(message_id) for message_id in sent_as.scalars()]
    for row in found["Channel"]:
        row["last_message_at"] = row["last_message_at"] and row["last_message_at"].year == LONG_AGO.year
    for row in found["Event"]:
        row["data"] = [places.get(str(row["data"].get(name)), row["data"].get(name)) for name in TOLD]
    return found


async def clear(database: Database) -> None:
    """Nothing is left."""
    async with database.transaction() as session:
        for table in reversed(SQLModel.metadata.sorted_tables):
            await session.execute(delete(table))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("given", CAMPAIGNS)
async def test_together_as_one_by_one(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    together: list[int],
    given: dict[str, Any],
    seed: int,
) -> None:
    monkeypatch.setattr(planning, "BATCH", 10)
    results = []
    for alike in (True, False):
        with monkeypatch.context() as patch:
            if not alike:
                patch.setattr(Blueprint, "may_be_alike", False)
            await populate(database, given, seed)
            await sent(database, **given)
            results.append(await written(database))
            await clear(database)
    for name, rows in results[0].items():
        assert rows == results[1][name], name
    assert len(together) >= 3 and sum(together) > 0  # never one by one, unless that was asked for
    assert len(results[0]["Message"]) > 0


async def freeze(database: Database) -> None:
    """Ann's channel is frozen."""
    async with database.transaction() as session:
        await session.execute(update(Channel).where(col(Channel.cid).like("%ann%")).values(frozen=True))


async def remove(database: Database) -> None:
    """Ann's channel is gone."""
    async with database.transaction() as session:
        for table in (Member, Channel):
            await session.execute(delete(table).where(col(table.cid).like("%ann%")))


async def make_again(database: Database) -> None:
    """Ann's channel is gone, and another one has its place."""
    await remove(database)
    await add_channel(database, "messaging:ann-news", ["bob"], last_seq=7)


async def make_new(database: Database) -> None:
    """Cid, who had no channel, has one."""
    await add_channel(database, "messaging:cid-news", ["cid"], last_seq=5)


async def make_frozen(database: Database) -> None:
    """And it is frozen."""
    await add_channel(database, "messaging:cid-news", ["cid"], last_seq=5, frozen=True)


async def write_into(database: Database) -> None:
    """Somebody writes to Ann."""
    async with database.transaction() as session:
        await session.execute(update(Channel).where(col(Channel.cid).like("%ann%")).values(last_seq=9))


FROZEN, NO_CHANNEL = "SKIPPED CHANNEL_FROZEN", "SKIPPED NO_CHANNEL"
# What happens between look and lock; what becomes of Ann, who has a channel, and of Cid, who has none; the
# numbers of their messages; how often the batch begins.
RACES: list[tuple[dict[str, Any], Callable[[Database], Any], list[str], dict[str, int], int]] = [
    (NAMED, freeze, [FROZEN, "SENT"], {"cid": 1}, 2),
    (NAMED, remove, ["SENT", "SENT"], {"ann": 1, "cid": 1}, 2),
    (NAMED, make_again, ["SENT", "SENT"], {"ann": 8, "cid": 1}, 1),
    (NAMED, make_new, ["SENT", "SENT"], {"ann": 3, "cid": 6}, 2),
    (NAMED, make_frozen, ["SENT", FROZEN], {"ann": 3}, 2),
    (NAMED, write_into, ["SENT", "SENT"], {"ann": 10, "cid": 1}, 1),
    ({**NAMED, "create_channels": False}, freeze, [FROZEN, NO_CHANNEL], {}, 2),
    ({**NAMED, "create_channels": False}, remove, [NO_CHANNEL, NO_CHANNEL], {}, 2),
    ({**NAMED, "create_channels": False}, make_again, ["SENT", NO_CHANNEL], {"ann": 8}, 1),
    ({**NAMED, "create_channels": False}, write_into, ["SENT", NO_CHANNEL], {"ann": 10}, 1),
    (PAIRS, freeze, [FROZEN, NO_CHANNEL], {}, 2),
    (PAIRS, remove, [NO_CHANNEL, NO_CHANNEL], {}, 2),
    (PAIRS, write_into, ["SENT", NO_CHANNEL], {"ann": 10}, 1),
]


@on_postgresql
@pytest.mark.parametrize(("given", "race", "expected", "numbers", "tries"), RACES)
async def test_what_happens_between_look_and_lock(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    together: list[int],
    given: dict[str, Any],
    race: Callable[[Database], Any],
    expected: Sequence[str],
    numbers: dict[str, int],
    tries: int,
) -> None:
    """On SQLite nobody can come between. Bob's message is not lost or doubled over it."""
    await add_users(database, ["sender", "ann", "bob", "cid"])
    for user_id in ("ann", "bob"):
        await add_channel(database, cids_of(given, user_id)[0], ["sender", user_id], last_seq=2)
    look_name = "standing_pairs" if given["channel_template"] is None else "standing"
    look, came = getattr(PostgresWriter, look_name), False

    async def then_somebody_comes(writer: PostgresWriter, names: Sequence[str]) -> Any:
        nonlocal came
        found = await look(writer, names)
        if not came:
            came = True
            await race(database)
        return found

    opened, tried = batches.open_batch, 0

    async def told(*given: Any) -> Any:
        nonlocal tried
        tried += 1
        return await opened(*given)

    monkeypatch.setattr(PostgresWriter, look_name, then_somebody_comes)
    monkeypatch.setattr(batches, "open_batch", told)
    campaign = await sent(database, user_ids=["ann", "bob", "cid"], **given)
    assert await outcomes(database, campaign) == dict(zip(["ann", "cid"], expected, strict=True)) | {
        "bob": "SENT"
    }
    found = {message.target_id: message.seq for message in await messages(database)}
    assert found == {**numbers, "bob": 3}
    assert (len(together), tried) == (1, tries), "then one by one"
    for user_id, seq in found.items():
        stands, _ = await channel(database, cids_of(given, user_id or "")[0])
        assert stands.last_seq == seq


@on_postgresql
@pytest.mark.parametrize("given", [NAMED, {**NAMED, "create_channels": False}, PAIRS])
async def test_channels_that_change_without_end_hold_no_batch_up(
    database: Database, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """The second try settles each by what it is when its row is locked."""
    await add_users(database, ["sender", "ann", "bob"])
    for user_id in ("ann", "bob"):
        await add_channel(database, cids_of(given, user_id)[0], ["sender", user_id], last_seq=2)
    looks = 0

    def then_turned(look_name: str) -> Any:
        look = getattr(PostgresWriter, look_name)

        async def turning(writer: PostgresWriter, names: Sequence[str]) -> Any:
            nonlocal looks
            looks += 1
            found = await look(writer, names)
            async with database.transaction() as session:
                ann = update(Channel).where(col(Channel.cid).like("%ann%"))
                await session.execute(ann.values(frozen=~col(Channel.frozen)))
            return found

        return turning

    for look_name in ("standing", "standing_pairs", "channels", "pair_channels"):
        monkeypatch.setattr(PostgresWriter, look_name, then_turned(look_name))
    campaign = await sent(database, user_ids=["ann", "bob"], **given)
    assert looks == 2
    assert await outcomes(database, campaign) == {"ann": "SKIPPED CHANNEL_FROZEN", "bob": "SENT"}


async def held_up(database: Database, cid: str) -> None:
    """Whoever comes to this channel waits there a moment, for those who come from the other side."""
    while True:
        async with database.transaction() as session:
            await session.execute(select(Channel).where(col(Channel.cid) == cid).with_for_update())
            await asyncio.sleep(0.05)


@on_postgresql
async def test_campaigns_that_meet_in_the_same_channels(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets of one are in the order of cid, those of the other in reverse. They wait for each other,
    nobody is the victim of a deadlock, and every message has its own number."""
    with psycopg.connect(database_url, autocommit=True) as connection:  # before a lock is waited for too long
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET deadlock_timeout = '5ms'".encode())
    monkeypatch.setattr(planning, "BATCH", 100)
    people = [f"p{number:03d}" for number in range(100)]
    await add_users(database, ["sender", *people])
    for number, user_id in enumerate(people):
        await add_users(database, [f"q{999 - number}"], name=user_id)
        if number % 2:
            await add_channel(database, f"messaging:{user_id}-news", ["sender", user_id])
    by_name = {"type": "messaging", "id": "{{ receiver.name }}-news"}
    await create(database, "up", user_ids=people)
    await create(database, "down", user_ids=[f"q{999 - n}" for n in range(100)], channel_template=by_name)
    with capture_logs() as logs:
        for name in ("up", "down"):
            await start(database, name)
        meeting = asyncio.ensure_future(held_up(database, "messaging:p051-news"))
        await asyncio.gather(*(work(database, name) for name in ("up", "down")))
        meeting.cancel()
        await asyncio.wait([meeting])
    assert [told for told in logs if told["log_level"] in ("warning", "error")] == []
    for name in ("up", "down"):
        assert (await books(database, await read(database, name))).sent == 100
    await recounted(database)
    expected = [(f"messaging:{user_id}-news", seq) for user_id in people for seq in (1, 2)]
    assert [(message.cid, message.seq) for message in await messages(database)] == expected


@on_sqlite
async def test_two_slices_into_the_same_channels(
    database: Database, monkeypatch: pytest.MonkeyPatch, together: list[int]
) -> None:
    """The second is made ready before the first has written: its numbers would be taken."""
    monkeypatch.setattr(planning, "BATCH", 2)
    taken, write = list[str](), batches.deliver

    async def told(*given: Any) -> Any:
        try:
            return await write(*given)
        except ChannelsTaken:
            taken.append("taken")
            raise

    monkeypatch.setattr(batches, "deliver", told)
    await add_users(database, ["sender"])
    for role in ("red", "sea"):
        await add_channel(database, f"messaging:{role}-room", ["sender"], last_seq=4)
        await add_users(database, [f"{number}-{role}" for number in range(3)], role=role)
    people = sorted(f"{number}-{role}" for number in range(3) for role in ("red", "sea"))
    room = {"type": "messaging", "id": "{{ receiver.role }}-room"}
    await sent(database, user_ids=people, channel_template=room)
    assert [(message.cid, message.seq, message.target_id) for message in await messages(database)] == [
        (f"messaging:{role}-room", 5 + number, f"{number}-{role}")
        for role in ("red", "sea")
        for number in range(3)
    ]
    assert taken == ["taken"]
    assert len(together) == 4  # two ahead in vain; then the second one by one, the third in its transaction


@pytest.mark.parametrize("given", [NAMED, DISTINCT, PAIRS])
async def test_channels_of_many_members_are_not_taken_together(
    database: Database, monkeypatch: pytest.MonkeyPatch, together: list[int], given: dict[str, Any]
) -> None:
    """Who joins a channel renews the key of all of its members: that is done in small transactions."""
    await add_users(database, ["sender", *PEOPLE[:4]])
    for user_id in PEOPLE[:4]:
        await add_channel(database, cids_of(given, user_id)[0], ["sender", user_id])
    monkeypatch.setattr(deciding, "MEMBERS_AT_ONCE", 7)
    campaign = await sent(database, user_ids=PEOPLE[:4], **given)
    assert await outcomes(database, campaign) == dict.fromkeys(PEOPLE[:4], "SENT")
    assert together == [1]  # three in the first slice, one is left


@pytest.mark.parametrize("template", ["{{ receiver.role }}-room", "{{ receiver.name }}"])
async def test_who_shares_a_channel_or_has_no_name_for_it(
    database: Database, together: list[int], template: str
) -> None:
    """Then it is done one by one."""
    await add_users(database, ["sender", "ann", "bob"])
    await add_users(database, ["eve"], name="not one word")
    await add_channel(database, "messaging:user-room", ["ann"], last_seq=1)
    await add_channel(database, "messaging:Ann", ["ann"], last_seq=1)
    to = {"type": "messaging", "id": template}
    campaign = await sent(
        database, user_ids=["ann", "bob", "eve"], channel_template=to, create_channels=False
    )
    rooms = "room" in template
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "bob": "SENT" if rooms else NO_CHANNEL,
        "eve": "SENT" if rooms else NO_CHANNEL,
    }
    assert [message.seq for message in await messages(database)] == ([2, 3, 4] if rooms else [2])
    assert together == []


@pytest.mark.parametrize("given", [NAMED, DISTINCT, PAIRS])
async def test_no_channel_is_read_one_by_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """That is what this is for."""

    async def never(*_: Any) -> None:
        raise AssertionError("read one by one")

    for writer in (SqliteWriter, PostgresWriter):
        for name in ("channels", "pair_channels", "take_existing", "take_or_create"):
            monkeypatch.setattr(writer, name, never)
    await add_users(database, ["sender", *PEOPLE])
    for user_id in PEOPLE[:12]:
        await add_channel(database, cids_of(given, user_id)[0], ["sender", user_id])
    counted = await books(database, await sent(database, user_ids=PEOPLE, **given))
    assert (counted.sent, counted.skipped) == ((12, 12) if given is PAIRS else (24, 0))

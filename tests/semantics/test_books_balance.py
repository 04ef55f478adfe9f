"""The books balance: after every commit, counted from ledger rows and messages in one snapshot, whatever
happens in whatever order.

A round is one seed: a random audience, templates and channels, and then people, workers and crashes that
interleave at random. `CARILLON_ROUNDS=1000 scripts/test tests/semantics/test_books_balance.py` runs more.
"""

import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries as campaigns
from app.campaigns import reading, service, stats
from app.campaigns.models import Campaign
from app.campaigns.states import RUNNING, Action, Status, allowed_actions
from app.channels import service as channels
from app.channels.models import Channel, Member
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger.erasing import MESSAGE_DELETED, delete_channels
from app.ledger.forgetting import delete_users
from app.ledger.models import BatchTargets, Plan, Recipient, RecipientStatus
from app.ledger.queries import Sums
from app.ledger.recipients import UNSENT
from app.messages.models import Message
from app.segments import service as segments
from app.segments.kinds import SegmentType
from app.sending import planning, retrying
from app.sending.engine import Engine
from app.users.service import upsert_users
from tests.integration import campaigning
from tests.integration.campaigning import add_channel, add_list, add_users

ROUNDS = int(os.environ.get("CARILLON_ROUNDS", "8"))
STEPS = 40
PEOPLE = [f"u{number:02}" for number in range(30)]
ROOMS = [f"team:room-{number}" for number in range(6)]
TEXTS = [
    "Hello",
    "Hello {{ receiver.name }}",
    "{{ 12 // receiver.number }} for {{ receiver.name }}",
    "{% for word in receiver.words %}{{ loop.index }} {{ word }} {% endfor %}in {{ channel.cid }}",
    "{{ receiver.words|join(' ') }}{{ 'x' * (receiver.number * 3000) }}",
]
TEMPLATES = [
    None,
    {"type": "messaging"},
    {"type": "messaging", "members": ["u07", "agent"]},
    {"type": "messaging", "id": "{{ receiver.id }}-news"},
    {"type": "team", "id": "room-{{ receiver.number }}"},
    {"type": "messaging", "id": "{{ receiver.room }}"},
]


class Killed(BaseException):
    """The process is gone in the middle of a statement."""


class WatchedDatabase(Database):
    """A database whose every commit is followed by an audit."""

    def __init__(self, url: str, audited: Callable[["WatchedDatabase"], Awaitable[None]]) -> None:
        super().__init__(url, durable=False)
        self.commits = 0
        self.statements_to_live: int | None = None
        self._audited = audited
        event.listen(self._writer.sync_engine, "before_cursor_execute", self._count_down)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """See `Database`."""
        async with super().transaction() as session:
            yield session
        self.commits += 1
        await self._audited(self)

    def _count_down(self, *_: Any) -> None:
        if self.statements_to_live is None:
            return
        self.statements_to_live -= 1
        if self.statements_to_live < 0:
            self.statements_to_live = None
            raise Killed


class Round:
    """A small world and what happens in it."""

    def __init__(self, seed: int, database: Database) -> None:
        self.random = Random(seed)
        self.database = database
        self.engines: list[Engine] = []
        self.names: list[str] = []
        self.done: Counter[str] = Counter()

    async def build(self) -> None:
        """People, channels, segments."""
        random = self.random
        await add_users(self.database, ["s1", "s2", "agent"])
        for user_id in PEOPLE:
            custom: dict[str, Any] = {
                "number": random.randrange(4),
                "words": ["a", "b"][: random.randrange(3)],
            }
            if random.random() < 0.5:
                custom["room"] = random.choice(["red", "blue", "", "no room", "x" * 300])
            await add_users(self.database, [user_id], custom=custom)
        for cid in ROOMS:
            members = random.sample([*PEOPLE, "s1", "s2"], random.choice([0, 1, 2, 2, 5]))
            if random.random() < 0.6:
                members = sorted({*members[1:], "s1"})
            await add_channel(self.database, cid, members, frozen=random.random() < 0.15)
        await add_list(self.database, 1, random.sample([*PEOPLE, "s1", "nobody", "no-one"], 20))
        await add_list(self.database, 2, random.sample(PEOPLE, 12))
        await add_list(self.database, 3, random.sample([*ROOMS, "team:gone", "odd"], 5), "CHANNEL")
        for given in (
            {"segment_id": "some", "type": "USER", "filter": {"number": {"$gte": 1}}},
            {"segment_id": "all", "type": "USER", "all_users": True},
            {"segment_id": "rooms", "type": "CHANNEL", "filter": {"member_count": {"$gte": 1}}},
            {"segment_id": "own", "type": "CHANNEL", "all_sender_channels": True},
        ):
            async with self.database.transaction() as session:
                await segments.create(session, given)
        for name in ("one", "two"):
            await self._create(name)

    async def _create(self, name: str) -> None:
        random = self.random
        of_users, of_channels = ["list-1", "list-2", "some", "all"], ["list-3", "rooms", "own"]
        pool = of_users if random.random() < 0.65 else of_channels
        audience: dict[str, Any] = {"segment_ids": random.sample(pool, random.randint(1, 3))}
        if random.random() < 0.15:
            audience = {"user_ids": random.sample([*PEOPLE, "s1", "nobody"], 10)}
        template = random.choice(TEMPLATES)
        await campaigning.create(
            self.database,
            name,
            sender_id=random.choice(["s1", "s2"]),
            message_template={"text": random.choice(TEXTS)},
            channel_template=template,
            create_channels=template is not None and random.random() < 0.7,
            sender_mode=random.choice([None, "INCLUDE", "EXCLUDE"]),
            show_channels=random.random() < 0.5,
            max_messages_per_second=random.choice([None, None, 100_000]),
            **audience,
        )
        self.names.append(name)

    async def step(self) -> None:
        """One thing happens."""
        happening = self.random.choices(
            [self._turn, self._killed_turn, self._act, self._change_user, self._change_channel, self._read],
            weights=[10, 3, 5, 4, 4, 4],
        )[0]
        try:
            await happening()
        except (AppError, Invalid):
            self.done["refused"] += 1
        else:
            self.done[happening.__name__] += 1

    async def _turn(self) -> None:
        if not self.engines or (len(self.engines) < 3 and self.random.random() < 0.1):
            self.engines.append(campaigning.engine(self.database))
        await self.random.choice(self.engines).turn()

    async def _killed_turn(self) -> None:
        assert isinstance(self.database, WatchedDatabase)
        self.database.statements_to_live = self.random.randrange(25)
        worker = campaigning.engine(self.database)
        try:
            await worker.turn()
        except Killed:
            self.done["killed"] += 1
        finally:
            self.database.statements_to_live = None

    async def _act(self) -> None:
        name = self.random.choice(self.names)
        campaign = await campaigning.read(self.database, name)
        possible = [each for each in allowed_actions(Status(campaign.status)) if each in _ACTS]
        if possible:
            await _ACTS[self.random.choice(possible)](self.database, name, self.random)

    async def _change_user(self) -> None:
        user_id = self.random.choice([*PEOPLE, "s1"] if self.random.random() < 0.2 else PEOPLE)
        if self.random.random() < 0.3 and user_id != "s1":
            await delete_users(self.database, [user_id], erase_messages=self.random.random() < 0.5)
            return
        given = {"user_id": user_id, "deactivated": self.random.random() < 0.4 and user_id != "s1"}
        async with self.database.transaction() as session:
            await upsert_users(session, [given])

    async def _change_channel(self) -> None:
        async with self.database.read() as session:
            cids = list((await session.execute(select(col(Channel.cid)))).scalars())
        cid, user_id = self.random.choice(cids), self.random.choice([*PEOPLE, "s1", "s2"])
        match self.random.randrange(4):
            case 0:
                await delete_channels(self.database, [cid])
            case 1:
                async with self.database.transaction() as session:
                    await channels.add_members(session, cid, [user_id])
            case 2:
                async with self.database.transaction() as session:
                    await channels.remove_members(session, cid, [user_id])
            case _:
                async with self.database.transaction() as session:
                    frozen = update(Channel).where(col(Channel.cid) == cid)
                    await session.execute(frozen.values(frozen=self.random.random() < 0.5))

    async def _read(self) -> None:
        async with self.database.read() as session:
            found = (await session.execute(select(col(Member.cid), col(Member.user_id)))).all()
        if found:
            cid, user_id = self.random.choice(found)
            async with self.database.transaction() as session:
                await reading.mark_read(session, cid, user_id)

    async def finish(self) -> None:
        """Everything that runs comes to its end."""
        async with self.database.transaction() as session:
            await upsert_users(session, [{"user_id": each, "deactivated": False} for each in ("s1", "s2")])
        await self._all(Action.RESUME, Status.PAUSED)
        await self._until_ended()
        await self._all(Action.RETRY, Status.COMPLETED)
        await self._until_ended()

    async def _all(self, action: Action, status: Status) -> None:
        for name in self.names:
            if (await campaigning.read(self.database, name)).status == status:
                with contextlib.suppress(AppError):  # nothing to retry
                    await _ACTS[action](self.database, name, self.random)

    async def _until_ended(self) -> None:
        for _ in range(300):
            await self._turn()
            rows = [await campaigning.read(self.database, name) for name in self.names]
            if not any(row.status in RUNNING for row in rows):
                return
        raise AssertionError("it does not come to its end")


async def _start(database: Database, name: str, _: Random) -> None:
    await campaigning.start(database, name)


async def _resume(database: Database, name: str, _: Random) -> None:
    async with database.transaction() as session:
        await service.resume(session, name, capacity=None)


async def _pause(database: Database, name: str, _: Random) -> None:
    async with database.transaction() as session:
        await service.pause(session, name)


async def _stop(database: Database, name: str, random: Random) -> None:
    if random.random() < 0.3:  # or nothing would be left to do
        async with database.transaction() as session:
            await service.stop(session, name)


async def _retry(database: Database, name: str, random: Random) -> None:
    reasons = random.choice([None, ["NO_CHANNEL", "RENDER_ERROR"], ["USER_DEACTIVATED", "CHANNEL_FROZEN"]])
    async with database.transaction() as session:
        await service.retry(session, name, reasons=reasons, capacity=None)


_ACTS: dict[Action, Callable[[Database, str, Random], Awaitable[None]]] = {
    Action.START: _start,
    Action.PAUSE: _pause,
    Action.RESUME: _resume,
    Action.STOP: _stop,
    Action.RETRY: _retry,
}


async def balanced(database: Database) -> None:
    """Counts everything of every campaign in one snapshot; the stats say the same."""
    async with database.read() as session:
        living = (await session.execute(campaigns.living())).scalars().all()
        said = await stats.of(session, living)
        ledger = (await session.execute(select(*_LEDGER))).all()
        messages = (await session.execute(select(*_MESSAGE))).all()
        held = (await session.execute(select(*_HELD))).all()
        planned = dict((await session.execute(select(col(Plan.campaign_no), col(Plan.targets)))).all())
    for campaign in living:
        number = campaign.campaign_no
        rows = {row.target_id: row for row in ledger if row.campaign_no == number}
        pending = [target_id for of, target_ids in held if of == number for target_id in target_ids]
        _agree(campaign, said[number].sums, rows, pending, planned.get(number, 0))
        _one_message_each(rows, [row for row in messages if row.campaign_no == number])


_LEDGER = (
    col(Recipient.campaign_no),
    col(Recipient.target_id),
    col(Recipient.status),
    col(Recipient.reason),
    col(Recipient.message_id),
    col(Recipient.detail),
    col(Recipient.read_at),
)
_HELD = (col(BatchTargets.campaign_no), col(BatchTargets.target_ids))
_MESSAGE = (col(Message.id), col(Message.campaign_no), col(Message.target_id))


def _agree(campaign: Campaign, sums: Sums, rows: dict[str, Any], pending: list[str], planned: int) -> None:
    statuses = Counter(row.status for row in rows.values())
    sent, skipped, failed = (statuses[each] for each in (RecipientStatus.SENT, *UNSENT))
    assert (sums.sent, sums.skipped, sums.failed, sums.pending) == (sent, skipped, failed, len(pending))
    assert sums.targets == planned == sent + skipped + failed + len(pending)
    assert len({*pending, *rows}) == planned
    assert {each.reason: each.count for each in sums.reasons} == Counter(
        row.reason for row in rows.values() if row.reason is not None
    )
    assert all(rows[each].reason == reason.reason for reason in sums.reasons for each in reason.samples)
    read = sum(row.read_at is not None for row in rows.values())
    if campaign.audience == SegmentType.USER:
        assert (sums.users_read, sums.users_sent) == (read, sent)
    else:
        assert read <= sums.users_read <= sums.users_sent


def _one_message_each(rows: dict[str, Any], messages: Sequence[Any]) -> None:
    """One message per SENT target, or word that it was deleted; none otherwise."""
    sent = {row.target_id: row for row in rows.values() if row.status == RecipientStatus.SENT}
    assert {each.target_id: each.id for each in messages} == {
        target_id: row.message_id for target_id, row in sent.items() if row.message_id is not None
    }
    assert len({each.id for each in messages}) == len(messages)
    assert all(row.detail == MESSAGE_DELETED for row in sent.values() if row.message_id is None)
    assert all(row.message_id is None for row in rows.values() if row.target_id not in sent)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and batches so small that there are many commits to interleave with."""
    for module, name, size in (
        (planning, "FIRST_CHUNK", 4),
        (planning, "CHUNK", 7),
        (planning, "BATCH", 3),
        (planning, "SMALLEST_BATCH", 3),
        (retrying, "CHUNK", 5),
    ):
        monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_after_every_commit(database_url: str, seed: int, small_steps: None) -> None:
    """targets = sent + skipped + failed + pending, one message per SENT target, none otherwise; stats equal
    to the counts; users read at most those sent; every channel's members counted."""
    database = WatchedDatabase(database_url, balanced)
    world = Round(seed, database)
    try:
        await world.build()
        for _ in range(STEPS):
            await world.step()
        await world.finish()
        await campaigning.recounted(database)
        for name in world.names:
            await campaigning.books(database, await campaigning.read(database, name))
    finally:
        await database.close()
    print(seed, database.commits, "commits:", dict(world.done))  # shown where it fails, or with -s

"""Following all campaigns: one reader a process, whoever many follow.

It reads the campaigns that it heard of, and every two seconds those that changed whatever was heard. Each
follower stands for onlookers who ask the same, and has at most the newest state of each campaign waiting, so
that nothing piles up for a slow one.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import queries, stats
from app.campaigns.states import ACTIVE
from app.campaigns.stats import Snapshot
from app.campaigns.watching import LOOK_EVERY_SECONDS, PAUSE_SECONDS
from app.database import Database, is_infrastructure, now
from app.onlookers import Onlookers, Shown
from app.progress import Ear, Listener

log = structlog.get_logger(__name__)

# A change is stamped before it is committed, which may take as long as a transaction may.
LONGEST_COMMIT = timedelta(seconds=60)
MOST_REMEMBERED = 5_000  # states of campaigns that have ended, to tell a change from a repetition


@dataclass(frozen=True, slots=True)
class Change:
    """A campaign as it is now; without a snapshot it is deleted."""

    campaign_no: int
    snapshot: Snapshot | None


@dataclass(eq=False)
class _Follower:
    """Onlookers who follow all campaigns, or those of some ids, and what waits for them."""

    ids: frozenset[str] | None
    onlookers: Onlookers
    greeted: int = 0  # so many of the onlookers know how things were
    waiting: dict[int, tuple[Snapshot | None, Shown]] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    _named: set[int] = field(default_factory=set)

    def tell(self, campaign_no: int, snapshot: Snapshot | None, shown: Shown) -> None:
        """Puts the newest state where the one before waits, if it still does."""
        if self.ids is not None and snapshot is not None and snapshot.campaign.campaign_id in self.ids:
            self._named.add(campaign_no)
        if self.ids is None or campaign_no in self._named:
            before = self.waiting.get(campaign_no)
            self.waiting[campaign_no] = (snapshot, shown if before is None else shown.and_also(before[1]))
            self.news.set()

    def tell_news(self, campaign_no: int, snapshot: Snapshot | None) -> None:
        """To those who know how things were."""
        if self.greeted:
            self.tell(campaign_no, snapshot, Shown(campaign_no, 1, self.greeted))

    def fail(self, failure: Exception) -> None:
        """Ends it."""
        self.failure = failure
        self.news.set()


class Overview:
    """Whatever happens to campaigns, for all followers of this process."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._reader: _Reader | None = None

    async def changes(
        self, campaign_ids: Collection[str] | None, onlookers: Onlookers
    ) -> AsyncGenerator[Change, None]:
        """Every scheduled, running or paused campaign, or those of these ids, as they are whenever somebody
        has come, for these alone; and for all whatever is created, changed or deleted, for ever.
        `onlookers.shown` says for whom. Close it."""
        follower = _Follower(None if campaign_ids is None else frozenset(campaign_ids), onlookers)
        reader = self._joined(follower)
        try:
            while True:
                await follower.news.wait()
                follower.news.clear()
                if follower.failure is not None:
                    raise follower.failure
                while follower.waiting:
                    campaign_no = next(iter(follower.waiting))
                    snapshot, onlookers.shown = follower.waiting.pop(campaign_no)
                    yield Change(campaign_no, snapshot)
        finally:
            await self._left(reader, follower)

    def _joined(self, follower: _Follower) -> "_Reader":
        """The reader, which is started for the first follower; a fault may have ended the one before."""
        if self._reader is None or self._reader.task.done():
            self._reader = _Reader(self._database, self._listener)
            self._reader.task = asyncio.create_task(self._reader.run())
        self._reader.join(follower)
        return self._reader

    async def _left(self, reader: "_Reader", follower: _Follower) -> None:
        """The reader ends with the last follower."""
        if reader.leave(follower):
            return
        if self._reader is reader:
            self._reader = None
        await asyncio.shield(reader.task)


class _Reader:
    """Reads for all followers, from the first who comes to the last who leaves."""

    task: asyncio.Task[None]

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._followers: list[_Follower] = []
        self._wake = asyncio.Event()
        self._deserted = asyncio.Event()
        self._told: dict[int, Snapshot | None] = {}
        self._swept: dict[int, datetime] | None = None  # what changed lately, as it was at the last sweep
        self._swept_at: datetime | None = None
        self._sweep_due = 0.0

    def join(self, follower: _Follower) -> None:
        """Has whoever comes told how things are by a look that begins after that."""
        self._followers.append(follower)
        follower.onlookers.on_arrival(self._wake.set)
        self._wake.set()

    def leave(self, follower: _Follower) -> bool:
        """Whether anybody is left."""
        self._followers.remove(follower)
        if self._followers:
            return True
        self._deserted.set()
        self._wake.set()
        return False

    async def run(self) -> None:
        """Until the last follower has left, or a fault ends all of them."""
        with self._listener.hearing_all(self._wake) as ear:
            while not self._deserted.is_set():
                self._wake.clear()
                try:
                    await self._look(ear)
                except Exception as error:
                    if not is_infrastructure(error):
                        self._fail(error)
                        return
                    log.warning("campaigns not read for their followers", error=str(error))
                    await _first_of(self._deserted, LOOK_EVERY_SECONDS)
                    continue
                await _first_of(self._deserted, PAUSE_SECONDS)
                await _first_of(self._wake, self._seconds_to_sweep())

    def _fail(self, error: Exception) -> None:
        log.error("campaigns cannot be read for their followers", exc_info=error)
        for follower in self._followers:
            follower.fail(error)

    def _seconds_to_sweep(self) -> float:
        return max(0.0, self._sweep_due - asyncio.get_running_loop().time())

    async def _look(self, ear: Ear) -> None:
        """One look. If it fails, what was heard is kept for the next one."""
        come = {each: each.onlookers.come for each in self._followers if each.onlookers.come > each.greeted}
        changed, ear.heard = ear.heard, set()  # what is heard from here on may be newer than what is seen
        try:
            async with self._database.read() as session:
                changed |= await self._sweep(session)
                active = set(await queries.active(session)) if come else set()
                named = await _numbers_of(session, come)
                found = await stats.snapshots(session, sorted(changed | active | named))
        except Exception:
            ear.heard |= changed
            raise
        for campaign_no in changed | active | named:
            self._tell(campaign_no, found.get(campaign_no), certain=campaign_no in changed | active)
        for follower, number in come.items():
            _greet(follower, number, active, found)
        self._forget()

    async def _sweep(self, session: AsyncSession) -> set[int]:
        """Campaigns that have changed, whatever was heard, and those whose stats may have: every two seconds;
        at the first time it only looks how things are."""
        if self._seconds_to_sweep() > 0:
            return set()
        at = await now(session)
        since = (self._swept_at or at) - LONGEST_COMMIT
        before, swept = self._swept, await queries.updated_since(session, since)
        working = {campaign.campaign_no for campaign in await queries.working(session)}
        self._swept, self._swept_at = swept, at
        self._sweep_due = asyncio.get_running_loop().time() + LOOK_EVERY_SECONDS
        if before is None:
            return set()
        return working | {number for number, updated_at in swept.items() if before.get(number) != updated_at}

    def _tell(self, campaign_no: int, snapshot: Snapshot | None, *, certain: bool) -> None:
        """Tells everybody what is new. Of a campaign that was only looked up by its id nobody knows whether
        it has changed, unless it was told of before."""
        known = campaign_no in self._told
        before = self._told.get(campaign_no)
        self._told[campaign_no] = snapshot
        is_new = not (known and before is None) if snapshot is None else not snapshot.same_as(before)
        if is_new and (certain or known):
            for follower in self._followers:
                follower.tell_news(campaign_no, snapshot)

    def _forget(self) -> None:
        if len(self._told) > MOST_REMEMBERED:
            self._told = {
                campaign_no: snapshot
                for campaign_no, snapshot in self._told.items()
                if snapshot is not None and snapshot.campaign.status in ACTIVE
            }


def _greet(follower: _Follower, come: int, active: Iterable[int], found: dict[int, Snapshot]) -> None:
    """Shows those who had come before the look began how things are."""
    first, follower.greeted = follower.greeted + 1, come
    for campaign_no, snapshot in found.items():
        if follower.ids is not None or campaign_no in active:
            follower.tell(campaign_no, snapshot, Shown(campaign_no, first, come))


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, or so long."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _numbers_of(session: AsyncSession, followers: Iterable[_Follower]) -> set[int]:
    """The campaigns that followers name."""
    ids = sorted({each for follower in followers for each in follower.ids or ()})
    return {row.campaign_no for row in (await queries.by_ids(session, ids)).values()} if ids else set()

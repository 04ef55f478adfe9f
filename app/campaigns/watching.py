"""Watching campaigns: one reader for each watched campaign and process, whoever many look on.

The reader looks when a change was heard or somebody came, and every two seconds whatever was heard. Onlookers
get the newest state; what a slow one missed is skipped, so that nothing piles up.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

import structlog

from app.campaigns import stats
from app.campaigns.stats import Snapshot
from app.database import Database, is_infrastructure
from app.onlookers import Onlookers, Shown
from app.progress import Listener

log = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS = 2.0
PAUSE_SECONDS = 0.2  # between two looks: at most five a second


class _Watch:
    """One campaign's reader and what it saw last."""

    def __init__(self, campaign_no: int) -> None:
        self.campaign_no = campaign_no
        self.onlookers: dict[Onlookers, int] = {}  # how many of each had come before the last look began
        self.newest: Snapshot | None = None
        self.changes = 0  # how often what it saw was new
        self.gone = False
        self.failure: Exception | None = None
        self.left = asyncio.Event()
        self.reader: asyncio.Task[None]
        self._looked = asyncio.Event()

    def saw(self, snapshot: Snapshot | None, asked: dict[Onlookers, int]) -> None:
        """A look that began when so many had come."""
        if snapshot is None:
            self.gone = True
        elif not snapshot.same_as(self.newest):
            self.changes += 1
        self.newest = snapshot
        self.onlookers.update({each: come for each, come in asked.items() if each in self.onlookers})
        self.tell()

    def tell(self) -> None:
        """Wakes everybody who waits for a look."""
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    async def looked(self) -> None:
        """Waits for a look. Raises what made it impossible."""
        if self.failure is None and not self.gone:
            await self._looked.wait()
        if self.failure is not None:
            raise self.failure


class Watching:
    """Everything that is watched in this process."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._watches: dict[int, _Watch] = {}

    async def states(self, campaign_no: int, onlookers: Onlookers) -> AsyncGenerator[Snapshot, None]:
        """The campaign as it is whenever somebody has come, for these alone, and for all whenever it has
        changed, until it is deleted; `onlookers.shown` says for whom. Close it."""
        async with self._joined(campaign_no, onlookers) as watch:
            greeted = changes = 0
            while not watch.gone:
                come, is_new = watch.onlookers[onlookers], watch.changes != changes
                if watch.newest is not None and come and (is_new or come > greeted):
                    onlookers.shown = Shown(campaign_no, 1 if is_new else greeted + 1, come)
                    greeted, changes = come, watch.changes
                    yield watch.newest
                else:
                    await watch.looked()

    @contextlib.asynccontextmanager
    async def _joined(self, campaign_no: int, onlookers: Onlookers) -> AsyncIterator[_Watch]:
        """The campaign's watch, whose reader ends with those who look on."""
        watch = self._watches.get(campaign_no)
        if watch is None:
            watch = self._watches[campaign_no] = _Watch(campaign_no)
            watch.reader = asyncio.create_task(self._read(watch))
        watch.onlookers[onlookers] = 0
        onlookers.on_arrival(partial(self._listener.wake, campaign_no))
        self._listener.wake(campaign_no)  # a look that has begun already may not know what they know
        try:
            yield watch
        finally:
            del watch.onlookers[onlookers]
            if not watch.onlookers:
                if self._watches.get(campaign_no) is watch:
                    del self._watches[campaign_no]
                watch.left.set()
                self._listener.wake(campaign_no)
                await asyncio.shield(watch.reader)

    async def _read(self, watch: _Watch) -> None:
        changes = self._listener.changes(watch.campaign_no, at_least_every=LOOK_EVERY_SECONDS)
        async with contextlib.aclosing(changes):
            async for _ in changes:
                if watch.left.is_set():
                    return
                await self._look(watch)
                if watch.gone or watch.failure is not None:
                    self._watches.pop(watch.campaign_no, None)
                    return
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(watch.left.wait(), PAUSE_SECONDS)

    async def _look(self, watch: _Watch) -> None:
        asked = {each: each.come for each in watch.onlookers}
        try:
            async with self._database.read() as session:
                found = (await stats.snapshots(session, [watch.campaign_no])).get(watch.campaign_no)
        except Exception as error:
            if not is_infrastructure(error):
                watch.failure = error
                watch.tell()
            log.warning("campaign not read for its watchers", campaign_no=watch.campaign_no, error=str(error))
            return
        watch.saw(found, asked)

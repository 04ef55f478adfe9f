"""Watching campaigns: one reader for each watched campaign and process, whoever many look on.

The reader looks when a change was heard, and every two seconds whatever was heard. Watchers get the newest
state; what a slow one missed is skipped, so that nothing piles up.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import structlog

from app.campaigns import stats
from app.campaigns.stats import Snapshot
from app.database import Database, is_infrastructure
from app.progress import Listener

log = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS = 2.0
PAUSE_SECONDS = 0.1  # between two looks: at most ten a second


class _Watch:
    """One campaign's reader and what it saw last."""

    def __init__(self, campaign_no: int) -> None:
        self.campaign_no = campaign_no
        self.watchers = 0
        self.begun = 0  # looks begun
        self.done = 0  # the number of the last look that is done
        self.newest: Snapshot | None = None
        self.gone = False
        self.failure: Exception | None = None
        self.left = asyncio.Event()
        self.reader: asyncio.Task[None]
        self._news = asyncio.Event()

    def tell(self) -> None:
        """Wakes everybody who waits for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def after(self, look: int, seen: Snapshot | None) -> Snapshot | None:
        """The newest state of this look or a later one, once it is not `seen`; None if deleted."""
        while not self.gone:
            if self.failure is not None:
                raise self.failure
            if self.done >= look and self.newest is not seen:
                return self.newest
            await self._news.wait()
        return None


class Watching:
    """Everything that is watched in this process."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._watches: dict[int, _Watch] = {}

    async def states(self, campaign_no: int) -> AsyncGenerator[Snapshot, None]:
        """The campaign as it is now, and then whenever it has changed, until it is deleted. Close it."""
        async with self._joined(campaign_no) as watch:
            look = watch.begun + 1  # one that has begun already may not know what the watcher knows
            self._listener.wake(campaign_no)
            seen = await watch.after(look, None)
            while seen is not None:
                yield seen
                seen = await watch.after(look, seen)

    @contextlib.asynccontextmanager
    async def _joined(self, campaign_no: int) -> AsyncIterator[_Watch]:
        """The campaign's watch, whose reader ends with its last watcher."""
        watch = self._watches.get(campaign_no)
        if watch is None:
            watch = self._watches[campaign_no] = _Watch(campaign_no)
            watch.reader = asyncio.create_task(self._read(watch))
        watch.watchers += 1
        try:
            yield watch
        finally:
            watch.watchers -= 1
            if not watch.watchers:
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
        watch.begun += 1
        try:
            async with self._database.read() as session:
                found = (await stats.snapshots(session, [watch.campaign_no])).get(watch.campaign_no)
        except Exception as error:
            if not is_infrastructure(error):
                watch.failure = error
                watch.tell()
            log.warning("campaign not read for its watchers", campaign_no=watch.campaign_no, error=str(error))
            return
        watch.done = watch.begun
        if found is None:
            watch.gone = True
        elif not found.same_as(watch.newest):
            watch.newest = found
        watch.tell()

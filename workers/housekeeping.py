"""Housekeeping: finds whatever is due in the rows, so that no wake-up has to arrive.

Each step is a guarded change of its own, so any number of workers may do it at once, and a failing step
keeps no other from its turn.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

import structlog

from app.campaigns import capacity, lifecycle, pruning, queries
from app.database import Database, is_infrastructure, now
from app.events import service as events
from app.idempotency import service as idempotency
from app.ledger import forgetting
from app.progress import Publisher
from app.segments import service as segments
from app.settings import Settings
from app.webhooks import pruning as webhooks
from app.webhooks.queries import QUEUED
from workers.outlook import Outlook, look
from workers.segments import count_due
from workers.sending import SendingLoop

log = structlog.get_logger(__name__)

LONGEST_SLEEP_SECONDS = 2.0
SECONDS_WHILE_COUNTING = 0.2  # what is being counted is still due, which says nothing of when the next one is
COUNTED_AT_ONCE = 2  # of the four connections that a worker has
SECONDS_BETWEEN_PRUNINGS = 30.0


class SettlingFailed(Exception):
    """A due campaign could not be started or stopped; the log above says why. Tried again in two seconds."""


class Housekeeping:
    """The housekeeping of one worker."""

    def __init__(
        self, settings: Settings, database: Database, publisher: Publisher, sending: SendingLoop
    ) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher
        self._sending = sending
        self._bell = asyncio.Event()
        self._expected: datetime | None = None  # what was to come due next when it looked last
        self._to_count, self._to_clear = asyncio.Event(), asyncio.Event()
        self._counting: dict[int, asyncio.Task[bool]] = {}
        self._free_to_count = asyncio.Semaphore(COUNTED_AT_ONCE)

    def wake(self) -> None:
        """Something may be due earlier than it was: look now."""
        self._bell.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set. What may take long runs beside what has to be in time."""
        await asyncio.gather(
            self._in_time(stopping),
            self._whenever(self._to_count, self._count_segments, stopping),
            self._whenever(self._to_clear, self._clear_deleted_users, stopping),
            self._every(SECONDS_BETWEEN_PRUNINGS, self._prune, stopping),
            self._every(SECONDS_BETWEEN_PRUNINGS, self._forget_requests, stopping),
        )

    async def _in_time(self, stopping: asyncio.Event) -> None:
        """A round at the next due time, and one every two seconds at least."""
        try:
            while not stopping.is_set():
                self._bell.clear()
                seconds = await self._round()
                await self._step(self._database.checkpoint_if_large)  # what the API wrote, not only batches
                await self._step(self._keep_reserve)
                await _wait(self._bell, seconds)
        finally:
            self._to_count.set()  # whoever waits for work sees that it is to stop
            self._to_clear.set()
            for count in self._counting.values():
                count.cancel()
            await asyncio.gather(*self._counting.values(), return_exceptions=True)

    async def _round(self) -> float:
        """Looks, does what is due, and has the rest done; how long to sleep then."""
        outlook = await self._look()
        if outlook is None:
            return LONGEST_SLEEP_SECONDS
        if outlook.computing:
            self._to_count.set()
        if outlook.erasing:
            self._to_clear.set()
        settled = not outlook.is_due or await self._step(self._settle_due)
        if outlook.is_due or outlook.has_come(self._expected):  # which another worker may have settled
            self._sending.wake()
        if outlook.unreleased:
            await self._step(self._release_capacity)
        self._expected = outlook.next_due
        return self._seconds_after(outlook) if settled else LONGEST_SLEEP_SECONDS

    async def _look(self) -> Outlook | None:
        try:
            async with self._database.read() as session:
                return await look(session)
        except Exception as error:
            log.warning("housekeeping could not look", error=str(error))
            return None

    def _seconds_after(self, outlook: Outlook) -> float:
        """Until the next due time, as it was before what was due was settled."""
        if outlook.next_due is None:
            return LONGEST_SLEEP_SECONDS
        if self._counting:
            return SECONDS_WHILE_COUNTING
        return min(LONGEST_SLEEP_SECONDS, max(0.01, (outlook.next_due - outlook.at).total_seconds()))

    async def _whenever(
        self, found: asyncio.Event, step: Callable[[], Awaitable[None]], stopping: asyncio.Event
    ) -> None:
        """A step when something is found for it, and then not before two seconds are over."""
        while await found.wait() and not stopping.is_set():
            found.clear()
            await self._step(step)
            await _wait(stopping, LONGEST_SLEEP_SECONDS)

    async def _every(
        self, seconds: float, step: Callable[[], Awaitable[None]], stopping: asyncio.Event
    ) -> None:
        while not stopping.is_set():
            await self._step(step)
            await _wait(stopping, seconds)

    async def _step(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether it went well; a step that fails keeps no other from its turn."""
        try:
            await step()
        except Exception as error:
            if isinstance(error, SettlingFailed):
                return False
            if is_infrastructure(error):
                log.warning("housekeeping could not reach the database", error=str(error))
            else:
                log.exception("housekeeping step failed")
            return False
        return True

    async def _settle_due(self) -> None:
        """Starts and stops campaigns whose time has come. With a monthly capacity an audience is counted
        before it starts: that goes on beside, so that no other start or stop comes late."""
        async with self._database.read() as session:
            due = await queries.due(session, await now(session))
            starting = set(await queries.to_start(session, due)) if self._settings.monthly_messages else set()
        for campaign_no in starting - self._counting.keys():
            count = asyncio.create_task(self._step(partial(self._count_and_settle, campaign_no)))
            self._counting[campaign_no] = count
        settled = [
            await self._step(partial(self._settle, campaign_no, 0))
            for campaign_no in due
            if campaign_no not in starting
        ]
        if not all(settled):
            raise SettlingFailed

    async def _count_and_settle(self, campaign_no: int) -> None:
        limit = self._settings.monthly_messages
        try:
            async with self._free_to_count:
                needed = await capacity.needed_when_due(self._database, campaign_no, limit)
            await self._settle(campaign_no, needed)
            self._sending.wake()
        except Exception:
            await asyncio.sleep(LONGEST_SLEEP_SECONDS)  # and only then may it be tried again
            raise
        finally:
            del self._counting[campaign_no]

    async def _settle(self, campaign_no: int, needed: int) -> None:
        limit = self._settings.monthly_messages
        async with self._database.transaction() as session:
            campaign = await lifecycle.settle_due(session, campaign_no, limit, needed)
        if campaign is None:
            return
        log.info(
            "campaign came due",
            campaign=campaign.campaign_id,
            status=campaign.status,
            reason=campaign.status_reason,
        )
        await self._publisher.publish(campaign_no)

    async def _keep_reserve(self) -> None:
        if self._database.reserve is not None:
            self._database.reserve.keep()

    async def _release_capacity(self) -> None:
        async with self._database.read() as session:
            waiting = await capacity.unreleased(session)
        for campaign_no in waiting:
            await self._step(partial(capacity.give_back, self._database, campaign_no))

    async def _count_segments(self) -> None:
        await count_due(self._database)

    async def _clear_deleted_users(self) -> None:
        await forgetting.clear_deleted(self._database)

    async def _prune(self) -> None:
        async with self._database.read() as session:
            deleted = await queries.deleted(session)
        for campaign_no in deleted:
            await pruning.clear(self._database, campaign_no)
        while await segments.prune(self._database):
            await self._database.checkpoint_if_large()
        await self._prune_webhooks()

    async def _prune_webhooks(self) -> None:
        deliveries = timedelta(days=self._settings.delivery_retention_days)
        await webhooks.clear_deleted(self._database)
        await webhooks.expire_disabled(self._database)
        await webhooks.prune(self._database, deliveries)
        events_kept = timedelta(days=self._settings.event_retention_days)
        needed = max(events_kept, webhooks.events_needed_for(deliveries))
        await events.prune(self._database, needed, QUEUED)

    async def _forget_requests(self) -> None:
        await idempotency.prune(self._database)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return

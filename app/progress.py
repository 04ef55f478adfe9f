"""Progress: "campaign X changed", published after each commit and heard once in every API process.

The message is a campaign's number and nothing else: whoever hears it reads the rows.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import after_commit
from app.hearing import hear

log = structlog.get_logger(__name__)

CHANNEL = "carillon:progress"
SILENT_SECONDS = 5.0  # after a failure: a queue that hangs must not slow every batch down by a second


class Publisher:
    """Tells the API processes that a campaign changed. Never raises: readers look again by themselves."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
        self._silent_until = 0.0

    async def publish(self, campaign_no: int) -> None:
        """Says that the campaign's status or stats changed."""
        if time.monotonic() < self._silent_until:
            return
        try:
            await self._redis.publish(CHANNEL, str(campaign_no))
        except (RedisError, OSError) as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            log.debug("progress not published", campaign_no=campaign_no, error=str(error))

    def publish_after_commit(self, session: AsyncSession, campaign_no: int) -> None:
        """Says so once the surrounding transaction has committed."""
        after_commit(session, lambda: self.publish(campaign_no))

    async def close(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()


@dataclass(eq=False)
class Ear:
    """Campaigns that were heard of and not looked at yet; `wake` is set with each."""

    wake: asyncio.Event
    heard: set[int] = field(default_factory=set)


class Listener:
    """One ear for all subscribers of a process: `listen()` runs for its life, `changes()` is for each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: defaultdict[int, set[asyncio.Event]] = defaultdict(set)
        self._ears: set[Ear] = set()

    async def listen(self) -> None:
        """Hears for ever; reconnects while the queue is away. Cancel it to stop."""
        # Whatever was said while it was away was missed: everybody looks.
        await hear(self._url, CHANNEL, lambda said: self._heard(int(said)), self._wake_all)

    def _heard(self, campaign_no: int) -> None:
        for ear in self._ears:
            ear.heard.add(campaign_no)
            ear.wake.set()
        self.wake(campaign_no)

    def wake(self, campaign_no: int) -> None:
        """Whoever waits for changes of this campaign looks now."""
        for event in self._waiting.get(campaign_no, ()):
            event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()

    @contextlib.contextmanager
    def hearing_all(self, wake: asyncio.Event) -> Iterator[Ear]:
        """Collects every campaign that is heard of while the block lasts. What is said while the queue is
        away is missed: look at the rows as well, every now and then."""
        ear = Ear(wake)
        self._ears.add(ear)
        try:
            yield ear
        finally:
            self._ears.discard(ear)

    @contextlib.contextmanager
    def _ear(self, campaign_no: int) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting[campaign_no].add(event)
        try:
            yield event
        finally:
            self._waiting[campaign_no].discard(event)
            if not self._waiting[campaign_no]:
                del self._waiting[campaign_no]

    async def changes(self, campaign_no: int, *, at_least_every: float) -> AsyncGenerator[None, None]:
        """Yields at once, then whenever the campaign changed, and every `at_least_every` seconds whatever
        was heard. Changes during a slow reader's step fold into one."""
        with self._ear(campaign_no) as event:
            while True:
                yield
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(event.wait(), at_least_every)
                event.clear()

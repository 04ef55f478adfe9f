"""Open streams (WebSockets, event streams): how many a key has, and that they end with it or with us."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from app.auth import Authenticator, Viewer
from app.errors import LimitExceeded

log = structlog.get_logger(__name__)

SECONDS_BETWEEN_CHECKS = 3.0


@dataclass
class _Stream:
    """A connection, and as how many it counts: as its operations, and as one without any."""

    key_id: str
    weight: int = 1


class OpenStreams:
    """The streams of this process."""

    def __init__(self, authenticator: Authenticator, max_per_key: int) -> None:
        self._authenticator = authenticator
        self._max_per_key = max_per_key
        self._open: dict[asyncio.Event, _Stream] = {}
        self._counts: Counter[str] = Counter()
        self.stopping = False

    @contextlib.contextmanager
    def opened(self, viewer: Viewer) -> Iterator[asyncio.Event]:
        """Counts a stream while it is open and gives the event that is set when it has to end.

        Raises LimitExceeded when the key has too many.
        """
        self._count(viewer.key_id, 1)
        end = asyncio.Event()
        if self.stopping:
            end.set()
        self._open[end] = _Stream(viewer.key_id)
        try:
            yield end
        finally:
            stream = self._open.pop(end)
            self._count(stream.key_id, -stream.weight)

    def carry(self, end: asyncio.Event, operations: int) -> None:
        """An open stream has so many operations now, and counts as so many; without any as one.

        Raises LimitExceeded when the key has too many.
        """
        stream, weight = self._open.get(end), max(operations, 1)
        if stream is not None:
            self._count(stream.key_id, weight - stream.weight)
            stream.weight = weight

    def _count(self, key_id: str, more: int) -> None:
        given = self._counts[key_id] + more
        if more > 0 and given > self._max_per_key:
            raise LimitExceeded(
                f"This key has {self._max_per_key:,} open connections and subscriptions, which is the limit.",
                details={"limit": self._max_per_key, "given": given},
            )
        self._counts[key_id] = given
        if not given:
            del self._counts[key_id]

    @property
    def count(self) -> int:
        """How many connections and subscriptions are open."""
        return self._counts.total()

    def stop(self) -> None:
        """Ends every stream: this process stops. Clients are told so that they connect again."""
        self.stopping = True
        for end in self._open:
            end.set()

    async def watch(self) -> None:
        """Ends the streams of revoked keys, for ever. Cancel it to stop."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_CHECKS)
            try:
                await self.end_revoked()
            except Exception as error:  # the database is away: the next round asks again
                log.warning("keys of open connections were not checked", error=str(error))

    async def end_revoked(self) -> None:
        """Ends the streams of keys that are revoked by now."""
        if not self._open:
            return
        asked = {stream.key_id for stream in self._open.values()}
        revoked = asked - await self._authenticator.still_valid(asked)
        for end, stream in self._open.items():
            if stream.key_id in revoked:
                end.set()

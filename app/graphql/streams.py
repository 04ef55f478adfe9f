"""Open streams (WebSockets, event streams): how many a key has, and that they end with it or with us."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

import structlog

from app.auth import Authenticator, Viewer
from app.errors import LimitExceeded

log = structlog.get_logger(__name__)

SECONDS_BETWEEN_CHECKS = 3.0


class OpenStreams:
    """The streams of this process."""

    def __init__(self, authenticator: Authenticator, max_per_key: int) -> None:
        self._authenticator = authenticator
        self._max_per_key = max_per_key
        self._open: dict[asyncio.Event, str] = {}
        self._counts: Counter[str] = Counter()
        self.stopping = False

    @contextlib.contextmanager
    def opened(self, viewer: Viewer) -> Iterator[asyncio.Event]:
        """Counts a stream while it is open and gives the event that is set when it has to end.

        Raises LimitExceeded when the key has too many.
        """
        if self._counts[viewer.key_id] >= self._max_per_key:
            raise LimitExceeded(
                f"This key has {self._max_per_key:,} open connections, which is the limit.",
                details={"limit": self._max_per_key, "given": self._max_per_key + 1},
            )
        end = asyncio.Event()
        if self.stopping:
            end.set()
        self._open[end] = viewer.key_id
        self._counts[viewer.key_id] += 1
        try:
            yield end
        finally:
            del self._open[end]
            self._counts -= Counter({viewer.key_id: 1})

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
        asked = set(self._open.values())
        revoked = asked - await self._authenticator.still_valid(asked)
        for end, key_id in self._open.items():
            if key_id in revoked:
                end.set()

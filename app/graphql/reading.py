"""How long an operation may read, and how many connections one key may read with at a time.

A read that is over its time is cancelled where it waits: for its turn, for a connection, or for a statement,
which the database then interrupts.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database
from app.errors import LimitExceeded

FOR_EVERYBODY = 2  # connections that no key's reads take: key look-ups and shared subscriptions need them


class Turns:
    """Turns to read: a key has half of the connections at a time at most, all keys together all but two.
    Whoever waits gets its turn in the order of arrival."""

    def __init__(self, connections: int) -> None:
        self._most_of_a_key = max(1, connections // 2)
        self._all = asyncio.Semaphore(max(1, connections - FOR_EVERYBODY))
        self._keys: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Waits for a turn of this key and holds it for the block."""
        of_key = self._keys.get(key_id)
        if of_key is None:
            of_key = self._keys[key_id] = asyncio.Semaphore(self._most_of_a_key)
        async with of_key, self._all:
            yield


class ReadingDatabase(Database):
    """The database as one operation reads it. Writing is as ever.

    `seconds` is what the operation may take from its first read on; or each of its reads, if `each`, since a
    subscription lives on; None: as long as it takes. Without a `key_id` nobody's turn is waited for.
    """

    def __init__(
        self, database: Database, turns: Turns, key_id: str, seconds: float | None, *, each: bool = False
    ) -> None:
        vars(self).update(vars(database))
        self._plain = database
        self._turns = turns
        self._key_id = key_id
        self._seconds = seconds
        self._each = each
        self._deadline: float | None = None
        self._under_way: set[asyncio.Timeout] = set()

    def for_everybody(self) -> "ReadingDatabase":
        """The same for an execution that is shared by all who ask for it."""
        return ReadingDatabase(self._plain, self._turns, "", self._seconds, each=True)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A read-only session on one snapshot. Raises LimitExceeded when the time is over."""
        until = self._until()
        if until is not None and until <= asyncio.get_running_loop().time():
            raise self._over()  # a statement that is cancelled before it began is not heard of by PostgreSQL
        limit = asyncio.timeout_at(until)
        try:
            async with limit:
                self._under_way.add(limit)
                try:
                    async with self._session() as session:
                        yield session
                finally:
                    self._under_way.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._over() from None

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncSession]:
        if self._key_id:
            async with self._turns.turn(self._key_id), super().read() as session:
                yield session
        else:
            async with super().read() as session:
                yield session

    def _until(self) -> float | None:
        if self._deadline is not None or self._seconds is None:
            return self._deadline
        until = asyncio.get_running_loop().time() + self._seconds
        if not self._each:
            self._deadline = until
        return until

    def end(self) -> None:
        """Interrupts what is being read, and lets nothing more be read: nobody waits for it."""
        self._deadline = asyncio.get_running_loop().time()
        for limit in self._under_way:
            if not limit.expired():
                limit.reschedule(self._deadline)

    def _over(self) -> LimitExceeded:
        limit = self._seconds or 0
        late = 0.0 if self._deadline is None else asyncio.get_running_loop().time() - self._deadline
        return LimitExceeded(
            f"A query may take {limit:g} s. Ask for less: shorter pages, fewer counts, simpler filters.",
            details={"limit": limit, "given": math.ceil(limit + late)},
        )

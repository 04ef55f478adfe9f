"""SQLite read in threads, behind the interface that SQLAlchemy expects of an asyncio driver.

A statement and all of its rows are one visit to a thread; whatever does not touch the file is done where it
is asked. aiosqlite goes to its thread and back for each call, nine times for a transaction with one
statement, which took longer than most statements.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from app.inline_sqlite import InlineConnection, InlineCursor

T = TypeVar("T")

SECONDS_BETWEEN_INTERRUPTS = 0.01


class ThreadedCursor(InlineCursor):
    """A cursor whose statements run in a thread, which brings their rows along."""

    def __init__(self, cursor: sqlite3.Cursor, connection: "ThreadedConnection") -> None:
        super().__init__(cursor)
        self._connection = connection
        self._rows: list[Any] = []

    async def execute(self, statement: str, bound: Sequence[Any] = ()) -> "ThreadedCursor":
        """Runs a statement."""
        if statement == "BEGIN":  # which only says that the next one begins a transaction
            self._cursor.execute(statement)
        else:
            self._rows = await self._connection.elsewhere(lambda: self._found(statement, bound))
        return self

    def _found(self, statement: str, bound: Sequence[Any]) -> list[Any]:
        return self._cursor.execute(statement, bound).fetchall()

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None


class ThreadedConnection(InlineConnection):
    """A connection for reading. A statement that nobody waits for any more is interrupted."""

    def __init__(self, connection: sqlite3.Connection, threads: Executor) -> None:
        super().__init__(connection)
        self._threads = threads

    @classmethod
    async def opened(cls, path: str, threads: Executor) -> "ThreadedConnection":
        """A connection that leaves BEGIN and COMMIT to its user, and runs statements in these threads."""
        return cls(sqlite3.connect(path, isolation_level=None, check_same_thread=False), threads)

    def cursor(self) -> ThreadedCursor:
        """A new cursor."""
        return ThreadedCursor(self._open.cursor(), self)

    async def elsewhere(self, call: Callable[[], T]) -> T:
        """What `call` returns in a thread. Cancelled, however often, it ends once that has ended: until then
        the connection is the thread's."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():  # it may have to begin first
                self._open.interrupt()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running], timeout=SECONDS_BETWEEN_INTERRUPTS)
            running.exception()  # nobody wants to know
            raise

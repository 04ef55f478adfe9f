"""SQLite in the calling thread, behind the interface that SQLAlchemy expects of an asyncio driver.

For a process that has the database as its only business. aiosqlite hands every call to a thread and
back: 0.1 ms each and more beside other load, which for a batch of a thousand was half of its time.
A statement blocks the event loop while it runs; an API process must not use this.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class InlineCursor:
    """A cursor whose coroutines never wait."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    async def __aenter__(self) -> "InlineCursor":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cursor.close()

    @property
    def description(self) -> Any:
        """Of the columns, None for a statement without rows."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last insert."""
        return self._cursor.lastrowid

    async def execute(self, statement: str, bound: Sequence[Any] = ()) -> "InlineCursor":
        """Runs a statement."""
        self._cursor.execute(statement, bound)
        return self

    async def executemany(self, statement: str, bound: Iterable[Sequence[Any]]) -> "InlineCursor":
        """Runs a statement for each row."""
        self._cursor.executemany(statement, bound)
        return self

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return self._cursor.fetchall()

    async def fetchone(self) -> Any:
        """The next row."""
        return self._cursor.fetchone()

    async def close(self) -> None:
        """Closes the cursor."""
        self._cursor.close()


class InlineConnection:
    """A connection whose coroutines never wait."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection

    @classmethod
    async def open(cls, path: str) -> "InlineConnection":
        """A connection that leaves BEGIN and COMMIT to its user."""
        return cls(sqlite3.connect(path, uri=True, isolation_level=None, check_same_thread=False))

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("connection closed")
        return self._connection

    def cursor(self) -> InlineCursor:
        """A new cursor."""
        return InlineCursor(self._open.cursor())

    async def execute(self, statement: str, bound: Sequence[Any] = ()) -> InlineCursor:
        """Runs a statement on a cursor of its own."""
        return await self.cursor().execute(statement, bound)

    async def executemany(self, statement: str, bound: Iterable[Sequence[Any]]) -> InlineCursor:
        """Runs a statement for each row."""
        return await self.cursor().executemany(statement, bound)

    async def create_function(self, name: str, narg: int, func: Callable[..., Any], **options: Any) -> None:
        """Makes `func` an SQL function."""
        self._open.create_function(name, narg, func, **options)

    async def commit(self) -> None:
        """Commits what is open."""
        self._open.commit()

    async def rollback(self) -> None:
        """Rolls back what is open."""
        self._open.rollback()

    async def close(self) -> None:
        """Closes the connection, for good."""
        self.stop()

    def stop(self) -> None:
        """The same where nothing can be awaited."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

"""Two small databases in memory that connections of one process share: a thread fills one while a transaction
reads the other.

What is staged there costs the transaction nothing. A temporary table belongs to one connection alone, which
is busy with the transaction before.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

SHARES_MEMORY = (3, 36, 0)  # the first SQLite whose databases in memory have names that others can attach
_SCHEMAS = ("scratch0", "scratch1")
_MOST_PAGES = 2_048  # 8 MB each; what is larger has no place here
_names = count(1)


class Filled(NamedTuple):
    """What was filled: the schema of an attached database."""

    scratch: "Scratch"
    schema: str
    number: int

    @property
    def stands(self) -> bool:
        """Whether it has not been filled with something else since. Who reads it asks this after the first
        statement of the transaction that reads it: then it stays so until the transaction ends."""
        return self.scratch.numbers[self.schema] == self.number


class Scratch:
    """The two databases of one `Database`, until `close`. Both locks are SQLite's own: whoever would have to
    wait does without."""

    def __init__(self) -> None:
        self._uris = {schema: f"file:/carillon-{next(_names)}?vfs=memdb" for schema in _SCHEMAS}
        self._connections = {schema: _connect(uri) for schema, uri in self._uris.items()}
        self.numbers = dict.fromkeys(_SCHEMAS, 0)
        self._filled = 0

    @classmethod
    def opened(cls) -> "Scratch | None":
        """A new one; None if this SQLite cannot share memory."""
        if sqlite3.sqlite_version_info < SHARES_MEMORY:
            return None
        try:
            return cls()
        except sqlite3.OperationalError:  # built without it
            return None

    def attach(self, cursor: Any) -> None:
        """Makes both visible to a connection that was opened with `uri=True`."""
        for schema, uri in self._uris.items():
            cursor.execute(f"ATTACH '{uri}' AS {schema}")

    def fill(self, table: str, create: str, statements: Iterable[tuple[str, Sequence[Any]]]) -> Filled | None:
        """Fills the table, of the database whose turn it is, with what the statements insert; another thread
        than the one that reads the other may do it. None, and nothing to be used, where that is too large,
        somebody reads it still, or anything else fails: whoever inserts the same elsewhere will be told."""
        self._filled += 1
        schema = _SCHEMAS[self._filled % 2]
        self.numbers[schema] = self._filled
        connection = self._connections[schema]
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(create)
            connection.execute(f"DELETE FROM {table}")
            for statement, values in statements:
                connection.execute(statement, values)
            connection.execute("COMMIT")
        except Exception:
            connection.rollback()
            return None
        return Filled(self, schema, self._filled)

    def close(self) -> None:
        """Frees the memory, once connections that it is attached to are closed too."""
        for connection in self._connections.values():
            connection.close()


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0)
    connection.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")
    return connection

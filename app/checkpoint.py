"""When SQLite's log is moved into its database, and who waits for that."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.turnstile import Turnstile

WAL_BYTES_BEFORE_CHECKPOINT = 32 * 1024 * 1024
SECONDS_AFTER_BUSY_CHECKPOINT = 2.0
# How long readers are waited for, in the turnstile, by the bytes of the log from which on: no read lasts over
# a second, so it cannot grow for ever beside readers that overlap. With 50 ms alone it did.
_PATIENCE_MILLISECONDS = ((0, 50), (64 * 1024 * 1024, 300), (128 * 1024 * 1024, 1_200))
# What came while 32 MB are moved takes 70 ms in the turnstile; what came while that is moved, a third.
_MOST_MOVES = 4
_BYTES_LEFT_TO_CHECKPOINT = 4 * 1024 * 1024


class Checkpoint:
    """The log of one file. `moved` is under way in a thread; `not_before` then is it tried again."""

    def __init__(self, file: Path, turnstile: Turnstile, reader: AsyncEngine) -> None:
        self.moved: asyncio.Future[None] | None = None
        self.not_before = 0.0
        self._file = file
        self._turnstile = turnstile
        self._reader = reader

    async def if_large(self) -> None:
        """Moves SQLite's log into the database once it is over 32 MB. One process at a time may do this.

        Most of it in a thread, beside writers; what they add meanwhile at a later call, in the turnstile.
        Connections never checkpoint by themselves: beside other writers the log then grew to 1 GB.
        """
        try:
            size = self._file.with_name(self._file.name + "-wal").stat().st_size
        except FileNotFoundError:
            return
        now = asyncio.get_running_loop().time()
        if size < WAL_BYTES_BEFORE_CHECKPOINT or now < self.not_before:
            return
        if self.moved is None:
            self.moved = self._turnstile.beside(partial(_move, self._file))
        if not self.moved.done():
            return
        self.moved = None
        async with self._turnstile.turn(), self._autocommit() as connection:
            patience = max(each for least, each in _PATIENCE_MILLISECONDS if size >= least)
            await connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")
            result = await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            if result.scalar_one():  # a long read is in the way: it must not make every writer wait
                self.not_before = now + SECONDS_AFTER_BUSY_CHECKPOINT

    @asynccontextmanager
    async def _autocommit(self) -> AsyncIterator[AsyncConnection]:
        async with self._reader.connect() as connection:
            await connection.exec_driver_sql("COMMIT")  # a checkpoint refuses to run inside a transaction
            try:
                yield connection
            finally:
                await connection.exec_driver_sql("PRAGMA busy_timeout = 5000")
                await connection.exec_driver_sql("BEGIN")


def _move(file: Path) -> None:
    """Moves what can be moved without making anybody wait, and what came meanwhile, until that is little; a
    fault is met again by the checkpoint proper."""
    moved = 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        for _ in range(_MOST_MOVES):
            before = moved
            _, _, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if (moved - before) * page < _BYTES_LEFT_TO_CHECKPOINT:
                return

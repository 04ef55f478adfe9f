"""The database: engines, `read()` and `transaction()`, and what differs between SQLite and PostgreSQL.

One edge commits: services flush, the surrounding `transaction()` commits once and then runs what was
left with `after_commit()`. A read holds one snapshot, so that numbers read together agree.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import orjson
import psycopg
import structlog
from sqlalchemy import BigInteger, CursorResult, Delete, Executable, Text, Update, event, func, select
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.types import JSON, TypeDecorator

from app.checkpoint import Checkpoint
from app.inline_sqlite import InlineConnection
from app.pinging import ping_idle
from app.reserve import Reserve
from app.scratch import Scratch
from app.threaded_sqlite import ThreadedConnection
from app.turnstile import Turnstile

log = structlog.get_logger(__name__)

DialectName = Literal["sqlite", "postgresql"]
Hook = Callable[[], Awaitable[None]]

SQLITE_BUSY_SECONDS = 30.0
_LOCK = "PRAGMA main.incremental_vacuum(1)"  # the write lock; there is nothing to vacuum in such a database
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant to the microsecond: `timestamptz` on PostgreSQL, microseconds since 1970 on SQLite.

    Both compare exactly, which keyset cursors rely on; only aware datetimes are accepted.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """The column's type in this dialect."""
        return dialect.type_descriptor(
            TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the driver."""
        if value is None or dialect.name == "postgresql":
            return value
        return microseconds(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """From the driver, without a detour: pages have 10,000 of them."""
        return _from_postgres if dialect.name == "postgresql" else _from_sqlite


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970, exact; SQLite's form of an instant. Raises ValueError for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError("an instant needs its time zone")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """The instant that `microseconds` was made of."""
    return _EPOCH + timedelta(0, 0, value)


def _from_sqlite(value: int | None) -> datetime | None:
    return None if value is None else _EPOCH + timedelta(0, 0, value)


def _from_postgres(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


# Text compares by code points everywhere: SQLite does so by itself, PostgreSQL with the collation "C".
TextType = Text().with_variant(Text(collation="C"), "postgresql")
JsonType = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Database:
    """The engines of one process.

    `durable` False lets a power cut take back the last commits (never half of one) on SQLite: right for a
    sender, whose batch would be sent again; `inline` runs SQLite in the calling thread, right for a process
    that does nothing else (see `inline_sqlite`).
    """

    def __init__(
        self,
        url: str,
        *,
        durable: bool = True,
        inline: bool = False,
        pool_size: int = 8,
    ) -> None:
        self.url = make_url(url)
        self.dialect: DialectName = "sqlite" if self.url.drivername.startswith("sqlite") else "postgresql"
        self.pool_size = pool_size
        self._turnstile: Turnstile | None = None
        self.reserve: Reserve | None = None  # SQLite only: another machine's disk is not ours to keep
        self.scratch = Scratch.opened() if inline and self.dialect == "sqlite" else None  # of writers
        self._checkpoint: Checkpoint | None = None
        if self.dialect == "sqlite":
            path = Path(self.url.database or "").resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._turnstile = Turnstile(path.with_name(path.name + "-turnstile"))
            self.reserve = Reserve(path.with_name(path.name + "-reserve"))
            kind: dict[str, Any] = {"durable": durable, "inline": inline}
            self._threads = ThreadPoolExecutor(pool_size, thread_name_prefix="sqlite-reader")
            threads = None if inline else self._threads
            self._reader = _sqlite_engine(self.url, pool_size=pool_size, threads=threads, **kind)
            self._writer = _sqlite_engine(self.url, pool_size=2, writes=True, scratch=self.scratch, **kind)
            self._checkpoint = Checkpoint(path, self._turnstile, self._reader)
        else:
            self._writer = _postgres_engine(self.url, pool_size)
            self._reader = self._writer.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A read-only session on one snapshot. Keep it under a second: on SQLite it delays checkpoints."""
        async with AsyncSession(self._reader, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits once, when the block ends; any exception rolls everything back.

        What was handed to `after_commit` runs after that, in order; it is forgotten on rollback.
        """
        async with self.opened() as session:
            yield session
            await session.commit()
        await run_after_commit(session)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncSession]:
        """A session that somebody else commits, and runs the hooks of; the end of the block rolls it back."""
        async with AsyncSession(self._writer, expire_on_commit=False) as session:
            await self._begin(session)
            yield session

    async def _begin(self, session: AsyncSession) -> None:
        if self._turnstile is None:
            await session.connection()
            return
        deadline = asyncio.get_running_loop().time() + SQLITE_BUSY_SECONDS
        async with self._turnstile.turn():
            while True:
                try:
                    await session.connection()
                    return
                except OperationalError as error:
                    if "locked" not in str(error.orig) or asyncio.get_running_loop().time() > deadline:
                        raise
                    await session.rollback()
                    await asyncio.sleep(0.001)

    async def checkpoint_if_large(self) -> None:
        """Moves SQLite's log into the database once it is over 32 MB; see `Checkpoint`."""
        if self._checkpoint is not None:
            await self._checkpoint.if_large()

    async def close(self) -> None:
        """Closes every connection."""
        await self._writer.dispose()
        if self._turnstile is not None:
            await self._reader.dispose()
            self._threads.shutdown(wait=False)
            self._turnstile.close()
        if self.scratch is not None:
            self.scratch.close()


def after_commit(session: AsyncSession, hook: Hook) -> None:
    """Runs `hook` once the surrounding transaction has committed; never if it rolls back."""
    _hooks(session).append(hook)


async def run_after_commit(session: AsyncSession) -> None:
    """Runs what was left with `after_commit`; whoever commits a session calls this once, right behind it."""
    for hook in _hooks(session):
        try:
            await hook()
        except Exception as error:  # a doorbell: whatever it should wake finds the rows by itself
            log.warning("after-commit hook failed", error=str(error))


def _hooks(session: AsyncSession) -> list[Hook]:
    hooks: list[Hook] = session.info.setdefault("after_commit", [])
    return hooks


async def now(session: AsyncSession) -> datetime:
    """The database's clock, which all processes share. On SQLite that is this machine's."""
    if dialect_of(session) == "sqlite":
        return datetime.now(UTC)
    instant: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return instant.astimezone(UTC)


async def ask(session: AsyncSession, statement: Executable, **bound: Any) -> CursorResult[*tuple[Any, ...]]:
    """Runs a statement that is built once without the ORM's part, which costs as much as all the rest of it:
    rows are tuples, and no object of the session learns of a change."""
    if session.new or session.dirty or session.deleted:
        await session.flush()
    return await (await session.connection()).execute(statement, bound)


async def changed(session: AsyncSession, statement: Update | Delete, **bound: Any) -> int:
    """Runs a guarded update or delete and returns how many rows it touched; zero means: diagnose."""
    if not statement.get_execution_options():  # one that is built once brings its own
        statement = statement.execution_options(synchronize_session=False)
    result = await session.execute(statement, bound or None)
    return cast("CursorResult[Any]", result).rowcount


def is_infrastructure(error: BaseException) -> bool:
    """Whether the database itself failed (away, locked, full, deadlocked) rather than what it was asked."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or is_infrastructure(error.orig or Exception())
    if storage_is_full(error):
        return True
    return isinstance(
        error,
        sqlite3.OperationalError | psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | OSError,
    )


def storage_is_full(error: BaseException) -> bool:
    """Whether the database had no room for what it was to store: the disk, a quota, a limit of file sizes."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error):
        # A write into the page cache fails for want of room only; of a quota or a limit SQLite says no more.
        return cause.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
    if isinstance(cause, psycopg.errors.InternalError_):  # PostgreSQL knows only one of them by a code
        return any(os.strerror(number) in str(cause) for number in (errno.EFBIG, errno.EDQUOT))
    return isinstance(cause, psycopg.errors.DiskFull) or (
        isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )


def waited_too_long(error: BaseException) -> bool:
    """Whether a lock was not to be had within `lock_timeout` (PostgreSQL)."""
    return isinstance(error, DBAPIError | psycopg.Error) and isinstance(
        getattr(error, "orig", error), psycopg.errors.LockNotAvailable
    )


def took_too_long(error: BaseException) -> bool:
    """Whether a transaction lasted longer than `transaction_timeout` (PostgreSQL)."""
    return isinstance(getattr(error, "orig", error), psycopg.errors.TransactionTimeout)


def dialect_of(session: AsyncSession) -> DialectName:
    """Which database this session speaks to."""
    return "sqlite" if session.get_bind().dialect.name == "sqlite" else "postgresql"


def _sqlite_engine(
    url: URL,
    *,
    durable: bool,
    inline: bool,
    pool_size: int,
    writes: bool = False,
    threads: Executor | None = None,
    scratch: Scratch | None = None,
) -> AsyncEngine:
    how: dict[str, Any] = {"connect_args": {"isolation_level": None}}
    if inline:
        how = {"async_creator": partial(InlineConnection.open, str(url.database))}
    elif threads is not None:
        how = {"async_creator": partial(ThreadedConnection.opened, str(url.database), threads)}
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        **how,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # one that has others' turns too knows of their commits as of strangers'
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )
    begin: tuple[str, ...] = ("BEGIN IMMEDIATE",) if writes else ("BEGIN",)
    if scratch is not None:  # IMMEDIATE would lock the databases that are attached as well
        begin = ("BEGIN", _LOCK)
    pragmas = (
        "journal_mode = WAL",
        "wal_autocheckpoint = 0",
        f"synchronous = {'FULL' if durable else 'NORMAL'}",
        "temp_store = MEMORY",
        "cache_size = -16384",
        "mmap_size = 268435456",
        f"query_only = {'OFF' if writes else 'ON'}",
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 5000")  # switching to WAL the first time needs the file alone
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        if scratch is not None:
            scratch.attach(cursor)
        cursor.execute(f"PRAGMA busy_timeout = {0 if writes else 5000}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:
        for statement in begin:
            connection.exec_driver_sql(statement)

    return engine


def _postgres_engine(url: URL, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
        connect_args={
            # A process that is stopped, not dead, does not keep its locks for ever. Custom plans: a generic
            # one makes small COPY batches half as fast. Statements whose client is gone end within a second.
            "options": "-c timezone=UTC -c transaction_timeout=30s -c plan_cache_mode=force_custom_plan"
            " -c client_connection_check_interval=1s",
            "connect_timeout": 5,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        },
    )
    ping_idle(engine)
    return engine


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()

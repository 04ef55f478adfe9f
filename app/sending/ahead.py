"""The slice after the one in hand, made ready while the database writes: people are read, channels looked up,
texts rendered. It is used only if nothing that it was made of has changed since; else the transaction that
sends it reads and renders as if it had never been. On SQLite alone: PostgreSQL takes several batches at once.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, dialect_of
from app.ids import message_ids
from app.inline_sqlite import InlineConnection
from app.sending.blueprint import Blueprint
from app.sending.outcomes import settle_without_writing
from app.sending.sqlite import SqliteWriter
from app.sending.writers import as_of_now, writer_of
from app.sending.writing import BatchWriter, Entries

log = structlog.get_logger(__name__)

SECONDS_READY = 1.0  # what was read longer ago is read again
_VERSION = text("PRAGMA data_version")
# Reads SQLite, whose statements let other threads run. Coming back from one, the sender waits at most so long
# for a thread that renders; by default 5 ms, two dozen times a transaction.
_SECONDS_TO_SWITCH = 0.0005
_READING = ThreadPoolExecutor(
    1, thread_name_prefix="ahead", initializer=partial(sys.setswitchinterval, _SECONDS_TO_SWITCH)
)


class Picked(NamedTuple):
    """A batch that is to be tried next; the try is counted. It may be the `last` one if none with a higher
    number was open."""

    batch_no: int
    attempts: int
    pending: int
    last: bool


class Version(NamedTuple):
    """What a SQLite connection has seen of others' commits; another one cannot compare."""

    connection: int
    number: int


class Seen(NamedTuple):
    """What a slice was made of, `at` the monotonic time before it was read."""

    at: float
    version: Version


@dataclass(frozen=True, slots=True)
class Ready:
    """A slice of the batch `batch_no` with `target_ids` open, all that is decided before anything is written:
    the first `covered` entries are settled, or have their channel and message. What was made in the
    transaction itself has no `seen`."""

    batch_no: int
    target_ids: Sequence[str]
    blueprint: Blueprint
    entries: Entries
    covered: int
    seen: Seen | None = None

    async def holds(self, session: AsyncSession, blueprint: Blueprint, pending: int) -> bool:
        """Whether it is as it would be if it were made now, in this transaction."""
        if pending != len(self.target_ids) or self.blueprint.campaign is not blueprint.campaign:
            return False
        if self.seen is None or monotonic() - self.seen.at > SECONDS_READY:
            return False
        return self.seen.version == await version_of(session)


class Held(NamedTuple):
    """The batch that was picked with the one before it, and what was made ready of it."""

    picked: Picked
    ready: Ready | None


class Ahead:
    """One look ahead: `ready` is what the last one made; `picked` and `finish()` are what this one does."""

    def __init__(self, database: Database, ready: Ready | None) -> None:
        self.ready = ready
        self.picked: Picked | None = None
        self._database = database
        self._at_work: Awaitable[Ready] | None = None
        self._read = AsyncExitStack()

    async def begin(
        self, session: AsyncSession, blueprint: Blueprint, batch_no: int, target_ids: Sequence[str]
    ) -> None:
        """Begins to make a slice of these ready, beside the transaction of `session`."""
        at, version = monotonic(), await version_of(session)
        if version is None:
            return
        making = partial(
            make_ready,
            blueprint=blueprint,
            batch_no=batch_no,
            target_ids=target_ids,
            seen=Seen(at, version),
        )
        if not isinstance(await _driver_of(session), InlineConnection):
            self._at_work = asyncio.ensure_future(self._beside(making))
            return
        reader = await self._read.enter_async_context(self._database.read())
        inline = await _driver_of(reader)
        writer = SqliteWriter(inline, self._database.scratch)
        thread = _READING.submit(_run, making(writer), inline)
        self._read.callback(wait, [thread])
        self._at_work = asyncio.wrap_future(thread)

    async def _beside(self, making: "Making") -> Ready:
        async with self._database.read() as session:
            return await making(await writer_of(session))

    async def finish(self) -> Ready | None:
        """Waits for what was begun. Whatever went wrong is left to the transaction to meet, and to tell."""
        if self._at_work is None:
            return None
        async with self._read:
            try:
                return await self._at_work
            except Exception as error:
                log.debug("not made ready", error=str(error))
                return None


Making = Callable[[BatchWriter], Coroutine[Any, Any, Ready]]


async def make_ready(
    writer: BatchWriter,
    blueprint: Blueprint,
    batch_no: int,
    target_ids: Sequence[str],
    *,
    limit: int | None = None,
    apart: bool = False,
    seen: Seen | None = None,
) -> Ready:
    """Decides all of a slice that can be decided by reading: up to `limit` of the batch's targets, `apart`
    or together. Raises `SenderMissing`."""
    blueprint = await as_of_now(writer, blueprint)
    entries = Entries(target_ids[: min(limit or len(target_ids), blueprint.most_at_once)], apart=apart)
    covered = await settle_without_writing(writer, blueprint, entries)
    if entries.alike is not None:
        entries.number(entries.alike, message_ids(len(entries.alike.target_ids)))
        writer.stage(entries.alike, blueprint.created_channels if blueprint.creates else None)
    return Ready(batch_no, target_ids, blueprint, entries, covered, seen)


def _run(making: Coroutine[Any, Any, Ready], connection: InlineConnection) -> Ready:
    """Runs to the end what never waits, and ends its snapshot: a longer one would hinder the checkpoint."""

    async def alone() -> Ready:
        try:
            return await making
        finally:
            await connection.rollback()

    try:
        alone().send(None)
    except StopIteration as ended:
        ready: Ready = ended.value
        return ready
    raise RuntimeError("SQLite in the calling thread never waits")


async def _driver_of(session: AsyncSession) -> Any:
    return (await (await session.connection()).get_raw_connection()).driver_connection


async def version_of(session: AsyncSession) -> Version | None:
    """What this session's connection has seen, on SQLite: the same number later, and in a transaction, says
    that nobody else has committed anything in between."""
    if dialect_of(session) != "sqlite":
        return None
    number = (await (await session.connection()).execute(_VERSION)).scalar_one()
    return Version(id(await _driver_of(session)), number)

"""Importing users from files of any length, in flat memory.

The file is read twice: every line is checked before the first is stored, so that a bad line keeps the whole
file out. With `skip_invalid` it is read once, and bad lines are left out. Users are upserted: an import that
was interrupted is simply run again. A user who stands in the file twice is changed twice, in its order.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from app.database import Database
from app.errors import InvalidInput
from app.users.files import Format, Record, records
from app.users.service import store

CHUNK = 2_000  # 50 ms of writing on SQLite, so that other writers get their turn
BAD_LINES_SHOWN = 100

FORMATS: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}


@dataclass(frozen=True)
class Progress:
    """How far a pass over the file has come."""

    phase: Literal["check", "store"]
    bytes_read: int
    bytes_total: int
    users: int


@dataclass(frozen=True)
class BadLine:
    """A line that is no user, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What came of an import. `bad_lines` are the first hundred of the `bad` ones."""

    stored: int
    bad: int
    bad_lines: tuple[BadLine, ...]


def format_of(path: Path) -> Format:
    """The format that the file's name ends in."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise InvalidInput(f"{path.name} ends in none of {', '.join(FORMATS)}; say which format it has")
    return form


async def import_users(
    database: Database,
    path: Path,
    form: Format,
    *,
    skip_invalid: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ImportReport:
    """Stores the users of a file, all of them or, when a line is bad, none (`skip_invalid`: all others).

    Raises `InvalidInput` where the file as a whole cannot be read, and `OSError` where it cannot be opened.
    """
    with path.open("rb") as file:
        work = _Import(database, file, form, on_progress)
        if not skip_invalid:
            await work.check()
            if work.bad:
                return work.report()
        await work.store(strict=not skip_invalid)
        return work.report()


class _Import:
    def __init__(
        self, database: Database, file: BinaryIO, form: Format, on_progress: Callable[[Progress], None]
    ) -> None:
        self._database = database
        self._file = file
        self._total = file.seek(0, 2)
        self._form = form
        self._on_progress = on_progress
        self._stored = 0
        self.bad: list[BadLine] = []
        self._bad = 0

    def report(self) -> ImportReport:
        """What came of it so far."""
        return ImportReport(self._stored, self._bad, tuple(self.bad))

    async def check(self) -> None:
        """Reads the whole file and keeps what is bad."""
        checked = 0
        for record in self._records():
            self._note(record)
            checked += 1
            if checked % CHUNK == 0:
                self._report("check", checked)
                await asyncio.sleep(0)  # lets an interruption through
        self._report("check", checked)

    async def store(self, *, strict: bool) -> None:
        """Stores the good lines, a chunk a transaction. `strict`: there was no bad line a moment ago."""
        chunk: dict[str, dict[str, Any]] = {}
        for record in self._records():
            if record.user is None and strict:
                raise InvalidInput(f"line {record.line} changed while the file was being imported")
            self._note(record)
            if record.user is None:
                continue
            if len(chunk) == CHUNK or record.user["user_id"] in chunk:
                await self._store(chunk)
                chunk = {}
            chunk[record.user["user_id"]] = record.user
        await self._store(chunk)

    async def _store(self, chunk: dict[str, dict[str, Any]]) -> None:
        if chunk:
            async with self._database.transaction() as session:
                await store(session, list(chunk.values()))
            await self._database.checkpoint_if_large()
            self._stored += len(chunk)
        self._report("store", self._stored)

    def _records(self) -> Iterator[Record]:
        self._file.seek(0)
        return records(self._file, self._form)

    def _note(self, record: Record) -> None:
        if record.user is None:
            self._bad += 1
            if self._bad <= BAD_LINES_SHOWN:
                self.bad.append(BadLine(record.line, record.reason))

    def _report(self, phase: Literal["check", "store"], users: int) -> None:
        self._on_progress(Progress(phase, self._file.tell(), self._total, users))

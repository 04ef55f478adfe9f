"""Databases for tests: each is new, and nothing of it is left when its test is over."""

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache

TEMPLATE = "carillon_template"
FIRST_OF_OURS = 16384  # what PostgreSQL itself comes with has lower numbers
STATEMENTS = 5_000


def of(uri: str, name: str) -> str:
    """The URL of another database on the same server."""
    return uri.replace("/postgres?", f"/{name}?")


@contextlib.contextmanager
def postgres_database(uri: str, admin: psycopg.Connection[Any]) -> Iterator[str]:
    """The URL of an empty, migrated database, which nobody has had before or will have again.

    Fails when roles were made meanwhile and not dropped: they belong to the server, which others share.
    """
    name = f"test_{uuid4().hex}"
    # Copying the template's files takes a third of the time that writing its pages to the log takes.
    admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    try:
        yield of(uri, name)
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        roles = admin.execute(f"SELECT rolname FROM pg_roles WHERE oid >= {FIRST_OF_OURS}").fetchall()
        for (role,) in roles:
            admin.execute(f'DROP ROLE "{role}"')
    assert not roles, f"left behind: the roles {roles}"


def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all databases of a run share the statements that SQLAlchemy has compiled, as all requests to one
    process share them. Each test has engines of its own, and would spend a fifth of its time on compiling.
    """
    compiled = LRUCache[Any, Any](STATEMENTS)

    def engine(url: Any, **options: Any) -> AsyncEngine:
        return create_async_engine(url, execution_options={"compiled_cache": compiled}, **options)

    monkeypatch.setattr("app.database.create_async_engine", engine)
    # They are found again by the dialect. Engines of the same kind are all made in the same way.
    for dialect in (PGDialectAsync_psycopg, SQLiteDialect_aiosqlite):
        monkeypatch.setattr(dialect, "__eq__", lambda one, other: type(one) is type(other), raising=False)
        monkeypatch.setattr(dialect, "__hash__", lambda one: hash(type(one)), raising=False)

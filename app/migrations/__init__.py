"""The database's schema and its versions.

`upgrade()` brings a database to this program's schema, one process at a time; `check()` says in a
sentence what is wrong when the two differ.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import make_url

# Of a new SQLite file; an older one keeps its own. A batch writes whole pages: with 4,096 bytes, SQLite's own
# choice, it takes a sixth more of the processor, and a tenth campaign to the same users a third.
PAGE_BYTES = 16_384
MIGRATION_LOCK = 0x0CA1_1107  # the advisory lock under which PostgreSQL is migrated; any constant of ours

for _domain in (
    "users",
    "channels",
    "messages",
    "segments",
    "events",
    "campaigns",
    "ledger",
    "usage",
    "keys",
    "idempotency",
    "webhooks",
):
    import_module(f"app.{_domain}.models")


class SchemaTooNew(Exception):
    """The database was migrated by a newer Carillon ({revision}). Run that version, or restore the backup
    from before its upgrade: an older program would not know what the new columns mean."""

    def __init__(self, revision: str) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").format(revision=revision).split()))


class SchemaOutdated(Exception):
    """The database is at schema {revision}, this program needs {head}. Run: carillon migrate"""

    def __init__(self, revision: str | None, head: str) -> None:
        super().__init__((type(self).__doc__ or "").format(revision=revision or "none", head=head))


def head() -> str:
    """The newest revision that this program knows."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def upgrade(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Migrates up to `revision`; returns the revisions before and after. Raises `SchemaTooNew`."""
    with _connect(url) as connection:
        before = current(connection)
        _refuse_newer(before)
        command.upgrade(_config(connection), revision)
        return before, current(connection)


def downgrade(url: str, revision: str) -> tuple[str | None, str | None]:
    """Migrates down to `revision` (`base` drops everything); returns the revisions before and after."""
    with _connect(url) as connection:
        before = current(connection)
        _refuse_newer(before)
        command.downgrade(_config(connection), revision)
        return before, current(connection)


def check(url: str) -> None:
    """Raises `SchemaTooNew` or `SchemaOutdated` unless the database is at this program's revision."""
    engine = create_engine(_sync_url(url))
    try:
        with engine.connect() as connection:
            verify(current(connection))
    finally:
        engine.dispose()


def verify(revision: str | None) -> None:
    """Raises `SchemaTooNew` or `SchemaOutdated` unless `revision` is this program's."""
    _refuse_newer(revision)
    if revision != head():
        raise SchemaOutdated(revision, head())


def current(connection: Connection) -> str | None:
    """The revision of the database, None while it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision not in {script.revision for script in _scripts().walk_revisions()}:
        raise SchemaTooNew(revision)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _sync_url(url: str) -> str:
    parsed = make_url(url)
    driver = "sqlite" if parsed.drivername.startswith("sqlite") else "postgresql+psycopg"
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    """A connection that alone migrates: two starting processes take turns."""
    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite"):
        path = Path(parsed.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + "-turnstile").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield from _committed(url)
    else:
        yield from _committed(url)


def _committed(url: str) -> Iterator[Connection]:
    """One transaction for all of it: whatever ends it midway leaves the database as it was."""
    engine = create_engine(_sync_url(url))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            yield connection
    finally:
        engine.dispose()


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    """The driver would begin a transaction no sooner than at the first INSERT: each table that was made or
    dropped before was so for good, and a migration that was killed could not be begun again."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")

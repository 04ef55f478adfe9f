"""What a test does to its PostgreSQL database is gone with it."""

from typing import Any

import psycopg
import pytest

from tests.databases import postgres_database

TABLES = """SELECT format('%s.%s', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"""
SETTINGS = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' ORDER BY name"
LITTER = (
    "INSERT INTO usage VALUES ('2026-01', 7)",
    "UPDATE alembic_version SET version_num = 'other'",
    "CREATE TABLE stray (id int)",
    "CREATE SEQUENCE stray_numbers",
    "DROP TABLE messages",
    "CREATE TEMPORARY TABLE staged (id int)",
    "PREPARE stale AS SELECT * FROM users",
    "SELECT pg_advisory_lock(7)",
    "LISTEN anything",
    "SELECT lo_create(0)",
    "ANALYZE",
)


def _is_there(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """All that a test could find in its database."""
    tables = [name for (name,) in connection.execute(TABLES)]
    return {
        "rows": {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables},
        "relations": connection.execute("SELECT count(*) FROM pg_class").fetchall(),
        "large objects": connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchall(),
        "statistics": connection.execute(
            "SELECT count(*) FROM pg_stats WHERE schemaname = 'public'"
        ).fetchall(),
        "settings": connection.execute(SETTINGS).fetchall(),
        "prepared": connection.execute("SELECT name FROM pg_prepared_statements").fetchall(),
        "locks": connection.execute("SELECT objid FROM pg_locks WHERE locktype = 'advisory'").fetchall(),
        "others": connection.execute(
            "SELECT datname FROM pg_stat_activity WHERE datname LIKE 'test_%' AND pid <> pg_backend_pid()"
        ).fetchall(),
    }


def test_nothing_is_left_of_a_database(postgres_uri: str, postgres_admin: psycopg.Connection[Any]) -> None:
    with postgres_database(postgres_uri, postgres_admin) as url, psycopg.connect(url) as connection:
        new = _is_there(connection)
    with postgres_database(postgres_uri, postgres_admin) as url:
        left = psycopg.connect(url, autocommit=True)
        name = left.info.dbname
        for statement in (*LITTER, f"ALTER DATABASE {name} SET work_mem = '64kB'"):
            left.execute(statement)

    with postgres_database(postgres_uri, postgres_admin) as other, psycopg.connect(other) as connection:
        assert _is_there(connection) == new
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")
    left.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_role_that_is_left_behind_fails_its_test_alone(
    postgres_uri: str, postgres_admin: psycopg.Connection[Any]
) -> None:
    with pytest.raises(AssertionError, match=r"the roles .*stray"):  # noqa: SIM117
        with postgres_database(postgres_uri, postgres_admin):
            postgres_admin.execute("CREATE ROLE stray")
    with postgres_database(postgres_uri, postgres_admin):
        pass

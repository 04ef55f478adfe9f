"""What stops a command is a sentence that says what to do."""

import sqlite3
from pathlib import Path

import pytest
from psycopg.errors import DiskFull
from sqlalchemy.exc import OperationalError

from app.exits import ExitCode, explain


def test_a_file_that_cannot_be_opened_is_a_question_of_the_address(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as refused:
        sqlite3.connect(tmp_path / "nowhere" / "carillon.db")
    stop = explain(OperationalError("INSERT", {}, refused.value))
    assert stop is not None and stop.code == ExitCode.DATABASE_UNREACHABLE
    assert str(stop).startswith("The database cannot be reached: unable to open database file\nCheck that")


def test_a_full_disk_under_postgresql_is_none() -> None:
    stop = explain(OperationalError("INSERT", {}, DiskFull("could not extend file")))
    assert stop is not None and stop.code == ExitCode.DATABASE_UNREACHABLE
    assert str(stop).startswith("The database has no room left: could not extend file\nFree some")


def test_nor_is_one_under_sqlite() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("CREATE TABLE large (text)")
    connection.close()
    stop = explain(OperationalError("CREATE", {}, full.value))
    assert stop is not None and str(stop).startswith(
        "The database has no room left: database or disk is full"
    )

"""Imports: all or nothing, or all but the bad lines; in order, in chunks, repeatable."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlmodel import col

from app.database import Database
from app.errors import InvalidInput
from app.users import importing, queries
from app.users.importing import BadLine, Progress, format_of, import_users
from app.users.models import User


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK", 10)


async def names(database: Database) -> dict[str, str | None]:
    async with database.read() as session:
        found = await session.execute(select(User).order_by(col(User.id)))
        return {user.id: user.name for user in found.scalars()}


async def test_a_good_file_is_stored_and_can_be_imported_again(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("userId,name,plan\n" + "".join(f"u{n:03},Name {n},pro\n" for n in range(35)))
    steps: list[Progress] = []
    for _ in range(2):
        steps.clear()
        report = await import_users(database, path, format_of(path), on_progress=steps.append)
        assert (report.stored, report.bad, report.bad_lines) == (35, 0, ())
    assert len(await names(database)) == 35
    assert [step.phase for step in steps] == ["check"] * 4 + ["store"] * 4
    assert (steps[-1].users, steps[-1].bytes_read, steps[-1].bytes_total) == (35, *[path.stat().st_size] * 2)
    async with database.read() as session:
        user = await queries.by_id(session, "u007")
    assert user is not None
    assert user.custom == {"plan": "pro"}


async def test_one_bad_line_keeps_the_whole_file_out(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    lines = [f'{{"userId": "u{n}"}}' for n in range(25)]
    path.write_text("\n".join([*lines, '{"userId": "no good"}', *lines, "nothing"]))
    report = await import_users(database, path, format_of(path))
    assert (report.stored, report.bad) == (0, 2)
    assert [line.line for line in report.bad_lines] == [26, 52]
    assert await names(database) == {}
    report = await import_users(database, path, format_of(path), skip_invalid=True)
    assert (report.stored, report.bad) == (50, 2)
    assert len(await names(database)) == 25


async def test_a_user_who_stands_twice_is_changed_in_order(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text(
        '{"userId": "a", "name": "first", "language": "en"}\n{"userId": "b"}\n'
        '{"userId": "a", "name": "last"}\n'
    )
    await import_users(database, path, format_of(path))
    assert await names(database) == {"a": "last", "b": None}
    async with database.read() as session:
        user = await queries.by_id(session, "a")
    assert user is not None
    assert user.language == "en"


async def test_only_the_first_hundred_bad_lines_are_kept(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    path.write_text("x\n" * 250)
    report = await import_users(database, path, format_of(path))
    assert (report.bad, len(report.bad_lines)) == (250, 100)
    assert report.bad_lines[0] == BadLine(1, report.bad_lines[0].reason)


def test_the_format_is_told_by_the_name() -> None:
    assert format_of(Path("a/B.CSV")) == "csv"
    with pytest.raises(InvalidInput, match=r"\.csv, \.ndjson, \.jsonl"):
        format_of(Path("users.xlsx"))

"""Upserts: all or none, omitted fields stay, every problem at once, tombstones come back, no lost writes."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database
from app.errors import AppError, Invalid, InvalidInput, LimitExceeded
from app.users import queries
from app.users.models import User
from app.users.service import upsert_users

WHEN = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


async def upsert(database: Database, *inputs: dict[str, Any]) -> list[User]:
    async with database.transaction() as session:
        return await upsert_users(session, inputs)


async def stored(database: Database, user_id: str) -> User | None:
    async with database.read() as session:
        return await queries.by_id(session, user_id)


async def test_created_with_everything_given(database: Database) -> None:
    given = {
        "user_id": "ann",
        "name": "Änn",
        "role": "admin",
        "language": "de",
        "teams": ["red", "blue", "red"],
        "image_url": "https://example.com/a.png",
        "custom": {"plan": "pro", "address": {"city": "Graz"}, "n": 1.0},
        "last_active_at": WHEN,
        "deactivated": True,
    }
    [made] = await upsert(database, given)
    ann = await stored(database, "ann")
    assert ann is not None
    assert ann.model_dump() == made.model_dump()
    assert (ann.name, ann.role, ann.language, ann.teams) == ("Änn", "admin", "de", ["red", "blue"])
    assert ann.custom == {"plan": "pro", "address": {"city": "Graz"}, "n": 1.0}
    assert ann.last_active_at == WHEN
    assert ann.created_at == ann.updated_at == ann.deactivated_at
    assert ann.deleted_at is None


async def test_omitted_stays_null_clears_and_order_is_kept(database: Database) -> None:
    await upsert(
        database, {"user_id": "b", "name": "Bob", "teams": ["x"], "custom": {"k": 1}, "role": "boss"}
    )
    users = await upsert(
        database,
        {"user_id": "c"},
        {"user_id": "b", "name": None, "language": "fr"},
        {"user_id": "a", "teams": None, "custom": None, "role": None},
    )
    assert [user.id for user in users] == ["c", "b", "a"]
    bob = await stored(database, "b")
    assert bob is not None
    assert (bob.name, bob.language, bob.teams, bob.custom, bob.role) == (None, "fr", ["x"], {"k": 1}, "boss")
    assert bob.updated_at > bob.created_at
    [bob] = await upsert(database, {"user_id": "b", "teams": None, "custom": None, "role": None})
    assert (bob.teams, bob.custom, bob.role) == ([], {}, "user")


async def test_deactivation_keeps_its_time_and_ends(database: Database) -> None:
    [first] = await upsert(database, {"user_id": "a", "deactivated": True})
    [again] = await upsert(database, {"user_id": "a", "deactivated": True})
    [other] = await upsert(database, {"user_id": "a", "name": "x"})
    assert first.deactivated_at == again.deactivated_at == other.deactivated_at is not None
    [back] = await upsert(database, {"user_id": "a", "deactivated": False})
    assert back.deactivated_at is None


async def test_a_tombstone_comes_back_as_a_new_user(database: Database) -> None:
    [old] = await upsert(database, {"user_id": "a", "name": "Old", "custom": {"k": 1}})
    async with database.transaction() as session:
        await session.execute(update(User).values(deleted_at=WHEN))
    assert await stored(database, "a") is None
    [new] = await upsert(database, {"user_id": "a", "language": "en"})
    assert (new.name, new.custom, new.language, new.deleted_at) == (None, {}, "en", None)
    assert new.created_at > old.created_at


async def test_every_problem_at_once_and_nothing_stored(database: Database) -> None:
    with pytest.raises(Invalid) as refused:
        await upsert(
            database,
            {"user_id": "fine"},
            {"user_id": "a b", "name": 5, "custom": {"name": 1}},
            {"name": "nobody"},
            {"user_id": "fine"},
            {
                "user_id": "x",
                "teams": ["a", ""],
                "custom": {"a": {"$b": [float("nan")]}},
                "language": "x" * 36,
            },
            {"user_id": "y", "custom": {"l": [1, {"x": 2**63}]}, "last_active_at": "soon", "role": ""},
        )
    assert {error.path: type(error) for error in refused.value.errors} == {
        ("users", "1", "user_id"): InvalidInput,
        ("users", "1", "name"): InvalidInput,
        ("users", "1", "custom", "name"): InvalidInput,
        ("users", "2", "user_id"): InvalidInput,
        ("users", "3", "user_id"): InvalidInput,
        ("users", "4", "teams", "1"): InvalidInput,
        ("users", "4", "custom", "a", "$b"): InvalidInput,
        ("users", "4", "language"): LimitExceeded,
        ("users", "5", "custom", "l", "1", "x"): InvalidInput,
        ("users", "5", "last_active_at"): InvalidInput,
        ("users", "5", "role"): InvalidInput,
    }
    assert await stored(database, "fine") is None


@pytest.mark.parametrize("count", [0, 1_001])
async def test_one_to_a_thousand(database: Database, count: int) -> None:
    with pytest.raises(AppError) as refused:
        await upsert(database, *({"user_id": str(number)} for number in range(count)))
    assert refused.value.path == ("users",)
    assert refused.value.code == ("INVALID_INPUT" if count == 0 else "LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    ("custom", "code"),
    [
        ({"a": "x" * 40_000}, "LIMIT_EXCEEDED"),
        ({"a": ["x" * 20_000, "y" * 20_000]}, "LIMIT_EXCEEDED"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": {"k": 1}}}}}}}}}}}, "LIMIT_EXCEEDED"),
        ({"": 1}, "INVALID_INPUT"),
        ({"a.b": 1}, "INVALID_INPUT"),
        ({"a": {"b\0": 1}}, "INVALID_INPUT"),
        ({"team": 1}, "INVALID_INPUT"),
        ({"a": "\ud800"}, "INVALID_INPUT"),
        ([], "INVALID_INPUT"),
    ],
)
async def test_custom_objects(database: Database, custom: Any, code: str) -> None:
    with pytest.raises(AppError) as refused:
        await upsert(database, {"user_id": "a", "custom": custom})
    assert refused.value.code == code
    assert refused.value.path[:3] == ("users", "0", "custom")


async def test_concurrent_upserts_lose_nothing_and_never_lock_each_other_up(database: Database) -> None:
    ids = [f"u{number}" for number in range(40)]

    async def write(field: str, order: list[str]) -> None:
        await upsert(database, *({"user_id": user_id, field: field} for user_id in order))

    await asyncio.gather(
        write("name", ids),
        write("language", ids[::-1]),
        write("role", ids[20:] + ids[:20]),
        write("name", ids),
    )
    async with database.read() as session:
        users = (await session.execute(select(User).order_by(col(User.id)))).scalars().all()
    assert len(users) == 40
    assert {(user.name, user.language, user.role) for user in users} == {("name", "language", "role")}


async def test_a_user_who_is_created_between_looking_and_writing_locks_nobody_up(
    postgres_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither c nor d exists when a call looks; then c is created, and taken by another call that goes on
    to d once the first one waits for c. (On SQLite nobody can come between.)"""
    database, look, looks = Database(postgres_database_url), queries.all_exist, list[bool]()
    looked, taken = asyncio.Event(), asyncio.Event()

    async def looks_and_waits(session: AsyncSession, user_ids: Sequence[str]) -> bool:
        looks.append(found := await look(session, user_ids))
        if len(looks) == 1:
            looked.set()
            await taken.wait()
        return found

    async def comes_between() -> None:
        await looked.wait()
        await upsert(database, {"user_id": "c"})
        async with database.transaction() as session:
            await queries.locked(session, ["c"])
            taken.set()
            await somebody_waits(database)
            await upsert_users(session, [{"user_id": name, "language": "fr"} for name in "cd"])

    monkeypatch.setattr(queries, "all_exist", looks_and_waits)
    first = upsert(database, {"user_id": "d", "name": "x"}, {"user_id": "c", "name": "x"})
    async with asyncio.timeout(60):
        await asyncio.gather(first, comes_between())
    users = [await stored(database, user_id) for user_id in "cd"]
    await database.close()
    assert [user and (user.name, user.language) for user in users] == [("x", "fr"), ("x", "fr")]


async def somebody_waits(database: Database) -> None:
    """Until a call on PostgreSQL waits for a row of another."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while True:
        async with database.read() as session:
            if (await session.execute(waiting)).scalar_one():
                return


async def test_many_calls_that_create_and_change_the_same_users_all_succeed(database: Database) -> None:
    """Some of everybody, in any order, a dozen at once, again and again."""
    dice = random.Random(7)
    for turn in range(6):
        ids = [f"r{turn}-{number:03}" for number in range(120)]
        samples = [dice.sample(ids, dice.choice([1, 20, 80, 120])) for _ in range(12)]
        await asyncio.gather(
            *(upsert(database, *({"user_id": user_id} for user_id in sample)) for sample in samples)
        )
    async with database.read() as session:
        assert await queries.count(session) == 6 * 120

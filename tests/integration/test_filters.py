"""SQLite, PostgreSQL and a plain reading of the filter language in Python choose the same rows."""

import operator
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text
from sqlmodel import col

from app.channels.filtering import CHANNELS
from app.channels.models import Channel, Member
from app.database import Database, dialect_of
from app.filters.language import parse
from app.filters.words import begins_a_word
from app.users.filtering import USERS
from app.users.models import User
from app.validation import custom, number

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}

TEXTS = st.sampled_from(
    ["", "a", "A", "b", "ab", "1", "true", "null", "Ä", "ä", "é", "é", "a b", "b-a", "Z", "z", "😀", "\uffff"]
) | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4)
NUMBERS = (
    st.sampled_from([0, 1, -1, 1.0, -0.0, 0.1, 0.5, 2**53 + 1, 2.0**53, 2.0**60, 1e23, 5e-324, 1.7e308])
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = TEXTS | NUMBERS | st.booleans()
ODD_KEYS = ["two words", "ключ", "0", "a'b", 'a"b', "a\\b", "%s", "%(x)s", ":x", "?", "a\nb", "[0]", "K"]
KEYS = st.just("k") | st.sampled_from(ODD_KEYS)
LISTS = st.lists(SCALARS | st.none() | st.lists(TEXTS, max_size=2), max_size=3)
VALUES = st.none() | SCALARS | LISTS | st.dictionaries(KEYS, SCALARS | LISTS | st.none(), max_size=3)
TIMES = st.integers(0, 5).map(lambda hours: START + timedelta(hours=hours, microseconds=hours % 2))
TEAMS = st.lists(st.sampled_from(["red", "blue", "grün"]), max_size=3, unique=True)
ROWS = st.fixed_dictionaries(
    {
        "name": st.none() | TEXTS,
        "role": st.sampled_from(["user", "admin"]),
        "language": st.none() | st.sampled_from(["en", "de"]),
        "teams": TEAMS,
        "custom": st.dictionaries(KEYS, VALUES, max_size=4).map(custom),
        "created_at": TIMES,
        "updated_at": TIMES,
        "last_active_at": st.none() | TIMES,
        "deactivated_at": st.none() | TIMES,
    }
)


def conditions(operand: st.SearchStrategy[Any], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    ordered = operand.filter(lambda value: value is not None and not isinstance(value, bool))
    each = {
        "$eq": operand | st.none(),
        "$ne": operand | st.none(),
        "$in": st.lists(operand | st.none(), max_size=4),
        "$nin": st.lists(operand | st.none(), max_size=4),
        "$exists": st.booleans(),
        "$autocomplete": TEXTS.filter(bool),
        "$contains": operand,
    } | dict.fromkeys(ORDER, ordered)
    allowed = ["$eq", "$ne", "$in", "$nin", "$exists", *more]
    return st.fixed_dictionaries({}, optional={name: each[name] for name in allowed}).filter(bool)


FIELDS = st.one_of(
    *(st.fixed_dictionaries({name: conditions(TEXTS, *ORDER, "$autocomplete")}) for name in ("name", "id")),
    st.fixed_dictionaries({"role": conditions(st.sampled_from(["user", "admin"]), *ORDER)}),
    st.fixed_dictionaries({"deactivated": conditions(st.booleans())}),
    *(
        st.fixed_dictionaries({name: conditions(TIMES.map(datetime.isoformat), *ORDER)})
        for name in ("created_at", "last_active")
    ),
    st.fixed_dictionaries(
        {"teams": TEAMS | st.fixed_dictionaries({"$contains": TEXTS}) | st.fixed_dictionaries({"$in": TEAMS})}
    ),
    st.fixed_dictionaries({"team": st.sampled_from(["red", "grün", "none"])}),
    *(
        st.dictionaries(
            path, conditions(SCALARS, *ORDER, "$autocomplete", "$contains") | SCALARS, min_size=1, max_size=2
        )
        for path in (KEYS, st.tuples(KEYS, KEYS).map(".".join))
    ),
)
FILTERS = st.recursive(
    FIELDS,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3), min_size=1
    ),
    max_leaves=4,
)


def matches(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """The filter language, read plainly."""
    return all(_entry(row, key, value) for key, value in wanted.items())


def _entry(row: dict[str, Any], key: str, value: Any) -> bool:
    if key in ("$and", "$or", "$nor"):
        held = [matches(row, each) for each in value]
        return all(held) if key == "$and" else any(held) if key == "$or" else not any(held)
    if key in ("teams", "team"):
        return _of_teams(set(row["teams"]), value)
    found = _found(row, key)
    operators = value if isinstance(value, dict) else {"$eq": value}
    return all(_holds(found, name, _operand(key, operand)) for name, operand in operators.items())


def _of_teams(teams: set[str], value: Any) -> bool:
    match value:
        case {"$contains": team} | str(team):
            return team in teams
        case {"$in": any_of}:
            return not teams.isdisjoint(any_of)
        case exactly:
            return teams == set(exactly)


def _found(row: dict[str, Any], key: str) -> Any:
    match key:
        case "last_active":
            return row["last_active_at"]
        case "deactivated":
            return row["deactivated_at"] is not None
        case _ if key in row and key != "custom":
            return row[key]
    found: Any = row["custom"]
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _operand(key: str, operand: Any) -> Any:
    if isinstance(operand, list):
        return [_operand(key, each) for each in operand]
    if isinstance(operand, bool) or operand is None:
        return operand
    if isinstance(operand, int | float):
        return number(operand)
    return datetime.fromisoformat(operand) if key in ("created_at", "last_active") else operand


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _equal(found: Any, operand: Any) -> bool:
    return _kind(found) is _kind(operand) and bool(found == operand)


def _holds(found: Any, name: str, operand: Any) -> bool:
    match name:
        case "$eq":
            return _equal(found, operand)
        case "$ne":
            return not _equal(found, operand)
        case "$in":
            return any(_equal(found, each) for each in operand)
        case "$nin":
            return not _holds(found, "$in", operand)
        case "$exists":
            return (found is not None) is operand
        case "$contains":
            return isinstance(found, list) and any(_equal(each, operand) for each in found)
        case "$autocomplete":
            return isinstance(found, str) and begins_a_word(operand, found)
        case _:
            return _kind(found) is _kind(operand) and ORDER[name](found, operand)


IDS = ["a0", "Ä1", "b-a2", "user_z3", "😀4", "B5", "b6", "A7", "é8", "z9"]


@pytest.fixture
async def both(
    sqlite_template: Path, postgres_database_url: str, tmp_path: Path
) -> AsyncIterator[list[Database]]:
    """The two databases side by side."""
    shutil.copy(sqlite_template, tmp_path / "both.db")
    databases = [
        Database(f"sqlite:///{tmp_path / 'both.db'}", durable=False),
        Database(postgres_database_url),
    ]
    yield databases
    for database in databases:
        await database.close()


async def fill(database: Database, rows: list[dict[str, Any]]) -> None:
    async with database.transaction() as session:
        await session.execute(delete(User))
        if rows:
            await session.execute(insert(User), rows)


async def chosen(database: Database, wanted: dict[str, Any]) -> list[str]:
    async with database.read() as session:
        where = parse(USERS, wanted).where(dialect_of(session))
        return list((await session.execute(select(col(User.id)).where(where))).scalars())


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(rows=st.lists(ROWS, min_size=2, max_size=len(IDS)), filters=st.lists(FILTERS, min_size=4, max_size=12))
async def test_both_databases_choose_what_a_plain_reading_chooses(
    both: list[Database], rows: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    stored = [{"id": IDS[position], **row} for position, row in enumerate(rows)]
    for database in both:
        await fill(database, stored)
    for wanted in filters:
        expected = sorted(row["id"] for row in stored if matches(row, wanted))
        for database in both:
            assert sorted(await chosen(database, wanted)) == expected, (database.dialect, wanted)


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_key_is_only_ever_a_key(database: Database, key: str) -> None:
    await fill(database, [{"id": "a", "custom": {key: {key: "x"}}, "created_at": START, "updated_at": START}])
    assert await chosen(database, {f"{key}.{key}": "x"}) == ["a"]
    assert await chosen(database, {f"{key}.{key}": {"$gt": "w"}, "other": {"$exists": False}}) == ["a"]


async def test_the_largest_filter_that_is_allowed(database: Database) -> None:
    await fill(database, [{"id": "a", "custom": {"k": 1}, "created_at": START, "updated_at": START}])
    values: list[Any] = [*range(2, 500), *(str(value) for value in range(500)), True, False]
    wanted: dict[str, Any] = {"$nor": [{"k": {"$in": values}, "name": {"$ne": None}}] * 50}
    for _ in range(4):
        wanted = {"$and": [wanted]}
    assert await chosen(database, wanted) == ["a"]


async def test_an_index_on_a_custom_field_is_used(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE INDEX ix_custom_country ON users ((custom ->> 'country'))"))
        if database.dialect == "postgresql":
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        where = parse(USERS, {"country": "USA"}).where(database.dialect)
        explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
        statement = select(col(User.id)).where(where)
        compiled = statement.compile(
            dialect=session.get_bind().dialect, compile_kwargs={"literal_binds": True}
        )
        plan = (await session.execute(text(f"{explain} {compiled}".replace(":", r"\:")))).all()
    assert "ix_custom_country" in str(plan)


@pytest.mark.parametrize(
    ("wanted", "cids"),
    [
        ({"members": {"$in": ["ann", "nobody"]}}, ["team:a", "team:b"]),
        ({"members": ["bob", "ann"]}, ["team:a"]),
        ({"members": ["ann"]}, ["team:b"]),
        ({"members": []}, ["team:c"]),
        ({"member_count": {"$gte": 1, "$lt": 1.5}}, ["team:b"]),
        ({"member_count": {"$in": [2.0, 0]}}, ["team:a", "team:c"]),
        ({"frozen": True}, ["team:c"]),
        ({"frozen": {"$ne": True}, "type": "team", "id": {"$lt": "b"}}, ["team:a"]),
        ({"name": {"$autocomplete": "gen"}, "topic.title": {"$exists": True}}, ["team:a"]),
    ],
)
async def test_channels(database: Database, wanted: dict[str, Any], cids: list[str]) -> None:
    members = {"a": ["ann", "bob"], "b": ["ann"], "c": []}
    async with database.transaction() as session:
        for name, users in members.items():
            session.add(
                Channel(
                    cid=f"team:{name}",
                    type="team",
                    channel_id=name,
                    name="The GENERAL one",
                    custom={"topic": {"title": "x"}} if name == "a" else {},
                    frozen=name == "c",
                    member_count=len(users),
                    created_at=START,
                    updated_at=START,
                )
            )
            session.add_all(Member(cid=f"team:{name}", user_id=user, created_at=START) for user in users)
    async with database.read() as session:
        where = parse(CHANNELS, wanted).where(dialect_of(session))
        found = (
            await session.execute(select(col(Channel.cid)).where(where).order_by(col(Channel.cid)))
        ).scalars()
        assert list(found) == cids

"""SEMANTICS, "The filter language": both databases choose what a plain reading of the page chooses.

The reading is in `filtering.py` and knows nothing of `app.filters`. `FILTER_CASES=10000 scripts/test
tests/semantics/test_filters.py` tries more than the suite does; `FILTER_SEED` begins elsewhere.
"""

import json
import os
import random
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, literal, select, union_all
from sqlmodel import col

from app import validation
from app.channels.filtering import CHANNELS
from app.channels.models import Channel, Member
from app.database import Database
from app.errors import AppError, Invalid
from app.filters.fields import Collection
from app.filters.language import parse
from app.users.filtering import USERS
from app.users.models import User
from tests.semantics.filtering import CHANNEL_FIELDS, START, USER_FIELDS, Dice, Row, matches

CASES = int(os.environ.get("FILTER_CASES", "600"))
SEED = int(os.environ.get("FILTER_SEED", "0"))
FILTERS_AT_ONCE = 25
ROWS = 40

# ------------------------------------------------------------------ the databases


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


async def store_users(database: Database, rows: Sequence[Row]) -> None:
    """These users and no others, their custom as the edge lets it in."""
    stored = [
        {
            **{
                name: row[name]
                for name in ("id", "name", "role", "language", "teams", "created_at", "updated_at")
            },
            "last_active_at": row["last_active"],
            "deactivated_at": START if row["deactivated"] else None,
            "custom": validation.custom(row["custom"], reserved=USERS.reserved),
        }
        for row in rows
    ]
    async with database.transaction() as session:
        await session.execute(delete(User))
        await session.execute(insert(User), stored)


async def store_channels(database: Database, rows: Sequence[Row]) -> None:
    """These channels and no others."""
    names = (
        "cid",
        "type",
        "name",
        "team",
        "created_by_id",
        "frozen",
        "created_at",
        "last_message_at",
        "member_count",
    )
    stored = [
        {
            **{name: row[name] for name in names},
            "channel_id": row["id"],
            "updated_at": row["created_at"],
            "custom": validation.custom(row["custom"], reserved=CHANNELS.reserved),
        }
        for row in rows
    ]
    members = [
        {"cid": row["cid"], "user_id": id, "created_at": START} for row in rows for id in row["members"]
    ]
    async with database.transaction() as session:
        await session.execute(delete(Member))
        await session.execute(delete(Channel))
        await session.execute(insert(Channel), stored)
        if members:
            await session.execute(insert(Member), members)


async def chosen(
    database: Database, collection: Collection, filters: Sequence[Mapping[str, Any]]
) -> list[set[str]]:
    """The ids that each filter chooses, all asked in one statement."""
    key = col(User.id) if collection is USERS else col(Channel.cid)
    asked = [
        select(literal(number).label("number"), key.label("key")).where(
            parse(collection, wanted).where(database.dialect)
        )
        for number, wanted in enumerate(filters)
    ]
    found: list[set[str]] = [set() for _ in filters]
    async with database.read() as session:
        for number, id in (await session.execute(union_all(*asked))).all():
            found[number].add(id)
    return found


@pytest.mark.parametrize("collection", [USERS, CHANNELS], ids=["users", "channels"])
async def test_sqlite_and_postgresql_give_the_same_ids_for_the_same_data_and_filter(
    both: list[Database], collection: Collection
) -> None:
    users = collection is USERS
    fields, sets = (USER_FIELDS, ("teams", "team")) if users else (CHANNEL_FIELDS, ("members",))
    hits = 0
    for seed in range(SEED, SEED + max(1, CASES // 2 // FILTERS_AT_ONCE)):
        dice = Dice(random.Random(f"{collection.noun} {seed}"))
        rows = [dice.user(number) if users else dice.channel(number) for number in range(ROWS)]
        filters = [dice.filter(fields, rows) for _ in range(FILTERS_AT_ONCE)]
        key = "id" if users else "cid"
        expected = [{row[key] for row in rows if matches(row, wanted, sets)} for wanted in filters]
        hits += sum(0 < len(ids) < ROWS for ids in expected)
        for database in both:
            await (store_users if users else store_channels)(database, rows)
            found = await chosen(database, collection, filters)
            for wanted, ids, right in zip(filters, found, expected, strict=True):
                wrong = [row for row in rows if row[key] in ids ^ right]
                assert not wrong, f"{database.dialect}, seed {seed}: {wanted!r} is wrong for {wrong[0]!r}"
    assert hits > CASES // 2 * 0.3, "the filters hardly tell rows apart"


# ------------------------------------------------------------------ sentences, each with an example

EXAMPLES: dict[str, Any] = {
    "true": True, "one": 1, "one point zero": 1.0, "text one": "1", "false": False, "zero": 0,
    "text": "b", "capital": "B", "accent": "É", "decomposed": "E\u0301", "list": ["b", 1, True],
    "object": {"in": 5}, "empty list": [], "empty object": {}, "null": None, "huge": 2**63 - 1,
    "negative": -7,
}  # fmt: skip
EVERYBODY = {*EXAMPLES, "absent"}
SENTENCES: dict[str, tuple[dict[str, Any], set[str]]] = {
    '{"country": "USA"} is $eq': ({"k": "b"}, {"text"}),
    "several keys are AND": ({"k": {"$exists": True}, "id": "text"}, {"text"}),
    "$and takes a list": ({"$and": [{"k": {"$gte": 0}}, {"k": {"$lt": 1}}]}, {"zero"}),
    "$or takes a list": ({"$or": [{"k": "b"}, {"k": 0}]}, {"text", "zero"}),
    "$nor takes a list": ({"$nor": [{"k": {"$exists": True}}]}, {"null", "absent"}),
    "several operators on one field are AND": ({"k": {"$gt": -8, "$lt": 0}}, {"negative"}),
    "dots reach into nested objects": ({"k.in": 5}, {"object"}),
    "a number never equals a string": ({"k": "1"}, {"text one"}),
    "a number never orders against a string": (
        {"k": {"$gt": ""}},
        {"text one", "text", "capital", "accent", "decomposed"},
    ),
    "a row whose value has another type does not match": (
        {"k": {"$lte": 1}},
        {"one", "one point zero", "zero", "negative"},
    ),
    "an empty filter is all in a query": ({}, EVERYBODY),
    "$exists: false matches rows that lack the field": ({"k": {"$exists": False}}, {"null", "absent"}),
    "$ne matches rows that lack the field": ({"k": {"$ne": "b"}}, EVERYBODY - {"text"}),
    "$nin matches rows that lack the field": ({"k": {"$nin": ["b", 0]}}, EVERYBODY - {"text", "zero"}),
    "$nor matches rows that lack the field": ({"$nor": [{"k": "b"}]}, EVERYBODY - {"text"}),
    "true never equals 1": ({"k": True}, {"true"}),
    "1 never equals true": ({"k": 1}, {"one", "one point zero"}),
    "false never equals 0": ({"k": False}, {"false"}),
    '"1" never equals 1': ({"k": {"$in": ["1"]}}, {"text one"}),
    "1 equals 1.0": ({"k": 1.0}, {"one", "one point zero"}),
    "null equals absent": ({"k": None}, {"null", "absent"}),
    "null in $in equals absent": ({"k": {"$in": [None, 0]}}, {"null", "absent", "zero"}),
    "strings compare by code points": ({"k": {"$gt": "B", "$lte": "b"}}, {"text", "decomposed"}),
    "case counts": ({"k": "B"}, {"capital"}),
    "accents count": ({"k": "É"}, {"accent"}),
    "except $autocomplete, which ignores case": ({"k": {"$autocomplete": "B"}}, {"text", "capital"}),
    "$contains for lists": ({"k": {"$contains": 1}}, {"list"}),
    "$contains is typed too": ({"k": {"$contains": True}}, {"list"}),
    "a list never equals what it holds": ({"k": {"$eq": "b"}}, {"text"}),
    "whole numbers are exact": ({"k": 2**63 - 1}, {"huge"}),
    "$autocomplete of an id": ({"id": {"$autocomplete": "POINT Z"}}, {"one point zero"}),
}


@pytest.mark.parametrize("sentence", SENTENCES)
async def test_sentence(database: Database, sentence: str) -> None:
    wanted, right = SENTENCES[sentence]
    dice = Dice(random.Random(0))
    rows = [{**dice.user(0), "id": id, "custom": {"k": value}} for id, value in EXAMPLES.items()]
    rows.append({**dice.user(0), "id": "absent", "custom": {}})
    await store_users(database, rows)
    assert await chosen(database, USERS, [wanted]) == [right]
    assert {row["id"] for row in rows if matches(row, wanted, ("teams", "team"))} == right


TEAM_SENTENCES: dict[str, tuple[Any, set[str]]] = {
    "teams $contains": ({"teams": {"$contains": "red"}}, {"red", "both"}),
    "teams $in is any of": ({"teams": {"$in": ["red", "blue"]}}, {"red", "both", "blue"}),
    "teams $eq is exactly these": ({"teams": {"$eq": ["blue", "red"]}}, {"both"}),
    "teams [] is exactly none": ({"teams": []}, {"none"}),
    "alias team": ({"team": {"$in": ["blue"]}}, {"both", "blue"}),
    '{"team": "x"} means $contains': ({"team": "red"}, {"red", "both"}),
}


@pytest.mark.parametrize("sentence", TEAM_SENTENCES)
async def test_teams(database: Database, sentence: str) -> None:
    wanted, right = TEAM_SENTENCES[sentence]
    teams = {"none": [], "red": ["red"], "blue": ["blue"], "both": ["red", "blue"]}
    dice = Dice(random.Random(0))
    await store_users(database, [{**dice.user(0), "id": id, "teams": some} for id, some in teams.items()])
    assert await chosen(database, USERS, [wanted]) == [right]


MEMBER_SENTENCES: dict[str, tuple[Any, set[str]]] = {
    "members $in is any of": ({"members": {"$in": ["ann", "bob"]}}, {"t:ann", "t:both", "t:all"}),
    "members $eq is exactly these": ({"members": {"$eq": ["bob", "ann"]}}, {"t:both"}),
    "members [] is exactly none": ({"members": []}, {"t:none"}),
    "member_count": ({"member_count": {"$gte": 2, "$lt": 3.0}}, {"t:both"}),
    "members beside other fields": ({"members": {"$in": ["ann"]}, "member_count": 1}, {"t:ann"}),
}


@pytest.mark.parametrize("sentence", MEMBER_SENTENCES)
async def test_members(database: Database, sentence: str) -> None:
    wanted, right = MEMBER_SENTENCES[sentence]
    members = {"none": [], "ann": ["ann"], "both": ["ann", "bob"], "all": ["ann", "bob", "eve"]}
    dice = Dice(random.Random(0))
    rows = [
        {**dice.channel(0), "cid": f"t:{id}", "id": id, "members": some, "member_count": len(some)}
        for id, some in members.items()
    ]
    await store_channels(database, rows)
    assert await chosen(database, CHANNELS, [wanted]) == [right]


# ------------------------------------------------------------------ what is refused

REFUSED: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "unknown operator": ({"$or": [{"a": {"$like": "x"}}]}, ("$or", "0", "a", "$like"), "$autocomplete"),
    "unknown $ key": ({"$not": []}, ("$not",), "$and, $or, $nor"),
    "wrong operand type for $in": ({"a": {"$in": "x"}}, ("a", "$in"), "a list"),
    "wrong operand type for $exists": ({"a": {"$exists": "yes"}}, ("a", "$exists"), "true or false"),
    "wrong operand type for a built-in text": ({"name": 5}, ("name",), "a string"),
    "an operator that this field does not have": (
        {"role": {"$autocomplete": "x"}},
        ("role", "$autocomplete"),
        "$eq",
    ),
    "times are RFC 3339": (
        {"created_at": {"$gt": "2026-01-01"}},
        ("created_at", "$gt"),
        "2026-01-31T09:30:00Z",
    ),
    "NUL in a value": ({"a": "x\0"}, ("a",), "NUL"),
    "NUL in a list": ({"a": {"$in": ["x", "\0"]}}, ("a", "$in", "1"), "NUL"),
    "NUL in a search": ({"a": {"$autocomplete": "\0"}}, ("a", "$autocomplete"), "NUL"),
    "NUL in a key": ({"a\0": 1}, ("a\0",), "NUL"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_input_with_the_path_into_the_filter_and_what_is_allowed_there(case: str) -> None:
    wanted, path, says = REFUSED[case]
    with pytest.raises(AppError) as caught:
        parse(USERS, wanted)
    assert (caught.value.code, caught.value.path) == ("INVALID_INPUT", path)
    assert says in f"{caught.value.message} {json.dumps(caught.value.details)}"


@pytest.mark.parametrize("key", ["id", "name", "team", "deactivated", "$x", "a.b"])
def test_a_custom_key_may_not_repeat_a_built_in_fields_name_start_with_dollar_or_contain_a_dot(
    key: str,
) -> None:
    with pytest.raises((AppError, Invalid)) as caught:
        validation.custom({key: 1}, reserved=USERS.reserved)
    assert isinstance(caught.value, AppError) and caught.value.code == "INVALID_INPUT"
    assert caught.value.path == (key,)


def test_an_empty_filter_is_refused_in_a_segment() -> None:
    with pytest.raises(AppError, match="use allUsers"):
        parse(USERS, {}, allow_empty=False)

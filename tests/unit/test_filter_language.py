"""What the filter language refuses, and how it says so."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.channels.filtering import CHANNELS
from app.errors import AppError, Invalid, InvalidInput, LimitExceeded
from app.filters.language import parse
from app.filters.syntax import Condition, Group
from app.filters.words import begins_a_word, glob_patterns, regular_expression
from app.users.filtering import USERS


def refused(wanted: Any) -> list[AppError]:
    try:
        parse(USERS, wanted)
    except Invalid as several:
        return list(several.errors)
    except AppError as error:
        return [error]
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ([], ()),
        ("x", ()),
        (None, ()),
        ({"$xor": []}, ("$xor",)),
        ({"$and": []}, ("$and",)),
        ({"$or": {}}, ("$or",)),
        ({"$or": [{}]}, ("$or", "0")),
        ({"$or": [{"a": 1}, 5]}, ("$or", "1")),
        ({"age": {}}, ("age",)),
        ({"age": {"$regex": "x"}}, ("age", "$regex")),
        ({"age": {"city": "x"}}, ("age", "city")),
        ({"age": [1, 2]}, ("age",)),
        ({"age": {"$eq": {"a": 1}}}, ("age", "$eq")),
        ({"age": {"$gt": None}}, ("age", "$gt")),
        ({"age": {"$gt": True}}, ("age", "$gt")),
        ({"age": {"$in": 5}}, ("age", "$in")),
        ({"age": {"$in": [1, [2]]}}, ("age", "$in", "1")),
        ({"age": {"$exists": 1}}, ("age", "$exists")),
        ({"age": {"$autocomplete": ""}}, ("age", "$autocomplete")),
        ({"age": {"$contains": None}}, ("age", "$contains")),
        ({"age": float("inf")}, ("age",)),
        ({"age": 2**63}, ("age",)),
        ({"age": {"$in": [-(2**63) - 1]}}, ("age", "$in", "0")),
        ({"age": "a\0b"}, ("age",)),
        ({"age": "\ud800"}, ("age",)),
        ({"a\0b": 1}, ("a\0b",)),
        ({"": 1}, ("",)),
        ({"a..b": 1}, ("a..b",)),
        ({"name": 5}, ("name",)),
        ({"name.first": "x"}, ("name.first",)),
        ({"name": {"$contains": "x"}}, ("name", "$contains")),
        ({"role": {"$autocomplete": "x"}}, ("role", "$autocomplete")),
        ({"teams": {"$ne": "x"}}, ("teams", "$ne")),
        ({"team": {"$in": "x"}}, ("team", "$in")),
        ({"teams": ["a", 1]}, ("teams", "1")),
        ({"teams": None}, ("teams",)),
        ({"deactivated": "yes"}, ("deactivated",)),
        ({"deactivated": {"$gt": False}}, ("deactivated", "$gt")),
        ({"created_at": "yesterday"}, ("created_at",)),
        ({"created_at": 5}, ("created_at",)),
        ({"created_at": "2026-01-01T00:00:00"}, ("created_at",)),
        ({"created_at": "2026-02-30T00:00:00Z"}, ("created_at",)),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, ("created_at",)),
    ],
)
def test_refused_with_its_place(wanted: Any, path: tuple[str, ...]) -> None:
    [error] = refused(wanted)
    assert isinstance(error, InvalidInput)
    assert error.path == path
    assert error.message


def test_what_is_allowed_is_said() -> None:
    [error] = refused({"$and": [{"role": {"$like": "x"}}]})
    assert error.details is not None
    assert "$eq" in error.details["allowed"]
    assert "$autocomplete" not in error.details["allowed"]


def test_every_problem_is_told_at_once() -> None:
    errors = refused({"a": {"$x": 1, "$gt": None}, "$or": [{"b": {}}, {"name": {"$in": [1, "x", 2]}}]})
    assert [error.path for error in errors] == [
        ("a", "$x"),
        ("a", "$gt"),
        ("$or", "0", "b"),
        ("$or", "1", "name", "$in", "0"),
        ("$or", "1", "name", "$in", "2"),
    ]


def nested(levels: int) -> Any:
    wanted: Any = {"a": 1}
    for _ in range(levels):
        wanted = {"$or": [wanted]}
    return wanted


@pytest.mark.parametrize(
    ("allowed", "beyond", "limit"),
    [
        (nested(5), nested(6), 5),
        (nested(5), nested(900), 5),
        ({"$or": [{"a": {"$gt": 1, "$lt": 9}}] * 50}, {"$or": [{"a": {"$gt": 1, "$lt": 9}}] * 51}, 100),
        ({"a": {"$in": [1] * 1_000}}, {"a": {"$in": [1] * 1_001}}, 1_000),
        ({"a" * 255: 1}, {"a" * 256: 1}, 255),
        ({"name": {"$autocomplete": "a" * 255}}, {"name": {"$autocomplete": "a" * 256}}, 255),
        ({".".join("a" * 10): 1}, {".".join("a" * 11): 1}, 10),
    ],
)
def test_limits(allowed: Any, beyond: Any, limit: int) -> None:
    parse(USERS, allowed)
    error = refused(beyond)[0]
    assert isinstance(error, LimitExceeded)
    assert error.details is not None
    assert error.details["limit"] == limit
    assert error.details["given"] > limit


def test_an_empty_filter_is_all_unless_refused() -> None:
    assert parse(USERS, {}).tree == Group("$and", ())
    with pytest.raises(InvalidInput, match="use allUsers"):
        parse(USERS, {}, allow_empty=False)


def test_operands_become_what_they_are_compared_with() -> None:
    condition = parse(USERS, {"last_active": {"$gte": "2026-01-01T02:00:00.5+02:00"}}).tree
    assert isinstance(condition, Condition)
    assert condition.operand == datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)


def test_channels_have_their_own_fields() -> None:
    parse(CHANNELS, {"cid": "a:b", "member_count": {"$gt": 2}, "members": {"$in": ["x"]}, "teams": "custom"})
    with pytest.raises(InvalidInput, match=r"\$in, \$eq"):
        parse(CHANNELS, {"members": {"$contains": "x"}})


@pytest.mark.parametrize(
    ("search", "value", "found"),
    [
        ("ann", "Joanna ANNE", True),
        ("ann", "Joanna", False),
        ("anna s", "Anna Smith", True),
        ("brien", "O'Brien", True),
        ("ÉMI", "émilie", True),
        ("emi", "Émilie", False),
        ("σοφ", "ΣΟΦΟΣ", True),
        ("]", "a ]", True),
        ("*", "abc", False),
        ("[a", "x[a", False),
        ("[a", "x [A", True),
        ("longer", "long", False),
    ],
)
def test_autocomplete_begins_a_word(search: str, value: str, found: bool) -> None:
    assert begins_a_word(search, value) is found


def test_patterns_say_it_to_the_databases() -> None:
    assert glob_patterns("a*")[0] == "[Aa][*]*"
    assert regular_expression("a").endswith("[\\U00000041\\U00000061]")

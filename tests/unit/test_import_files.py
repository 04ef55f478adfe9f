"""Files of users: what is read from them, and what is said about bad lines."""

import io
from typing import Any

import pytest

from app.errors import InvalidInput
from app.users.files import MAX_LINE, Format, Record, records


def read(text: str | bytes, form: Format) -> list[Record]:
    return list(records(io.BytesIO(text.encode() if isinstance(text, str) else text), form))


def users(text: str | bytes, form: Format) -> list[dict[str, Any] | None]:
    return [record.user for record in read(text, form)]


def bad(text: str | bytes, form: Format) -> list[tuple[int, str]]:
    return [(record.line, record.reason) for record in read(text, form) if record.user is None]


def test_ndjson_has_the_fields_of_the_api() -> None:
    line = (
        '\ufeff{"userId": "a", "name": "Ä", "teams": ["x"], "imageUrl": null, "custom": {"n": 1.5},'
        ' "lastActiveAt": "2026-01-01T00:00:00Z", "deactivated": true}\r\n\r\n{"userId": "b"}'
    )
    first, second = users(line, "ndjson")
    assert first is not None
    assert first | {"last_active_at": None} == {
        "user_id": "a",
        "name": "Ä",
        "teams": ["x"],
        "image_url": None,
        "custom": {"n": 1.5},
        "last_active_at": None,
        "deactivated": True,
    }
    assert second == {"user_id": "b"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"userId": "a", "age": 5}', "unknown field 'age'"),
        ('{"name": "a"}', "userId is required"),
        ('{"userId": "a b"}', "userId an id has"),
        ('{"userId": "a", "imageUrl": 5}', "imageUrl must be a string"),
        ('{"userId": "a", "custom": {"n": 123456789012345678901234}}', "custom.n a whole number"),
        ('{"userId": "a", "custom": {"n": 1e400}}', "is"),
        ('{"userId": "a", "custom": {"x": "\\u0000"}}', "custom.x must not contain NUL"),
        (b'{"userId": "\xff"}', "is not UTF-8"),
        ("[" * 100_000, "is not JSON"),
        ('{"userId": "' + "x" * MAX_LINE + '"}', "is longer than"),
    ],
)
def test_ndjson_says_which_line_is_bad_and_why(line: str | bytes, reason: str) -> None:
    whole = line.encode() if isinstance(line, str) else line
    [(number, said)] = bad(b'{"userId": "1"}\n\n' + whole + b'\n{"userId": "2"}\n', "ndjson")
    assert number == 3
    assert reason in said


def test_csv_columns_are_fields_and_others_become_custom() -> None:
    text = (
        "\ufeffuserId,name,teams,deactivated,lastActiveAt,age,zip:string,vip,score,note\r\n"
        '1,"Ann ""A"", Smith",red; blue,TRUE,2026-01-01T00:00:00Z,42,01234,true,1.5e1,"two\nlines"\r\n'
        '2,,"[""a;b""]",,,007,,yes,,null\r\n'
    )
    first, second = users(text, "csv")
    assert first is not None
    assert first.pop("last_active_at").year == 2026
    assert first == {
        "user_id": "1",
        "name": 'Ann "A", Smith',
        "teams": ["red", "blue"],
        "deactivated": True,
        "custom": {"age": 42, "zip": "01234", "vip": True, "score": 15.0, "note": "two\nlines"},
    }
    assert second == {
        "user_id": "2",
        "teams": ["a;b"],
        "custom": {"age": "007", "vip": "yes", "note": "null"},
    }


def test_csv_custom_column_holds_an_object() -> None:
    [user] = users('userId,custom,plan\na,"{""plan"": 1, ""x"": [1]}",pro\n', "csv")
    assert user == {"user_id": "a", "custom": {"plan": "pro", "x": [1]}}


def test_numbers_too_large_for_a_number_stay_text() -> None:
    [user] = users("userId,a,b,c\nx,12345678901234567890123,1e999,-9223372036854775808\n", "csv")
    assert user is not None
    assert user["custom"] == {"a": "12345678901234567890123", "b": "1e999", "c": -(2**63)}


def test_csv_says_which_line_is_bad_and_why() -> None:
    text = (
        b"userId,name,teams,deactivated,custom\n"
        b'1,"two\nlines",,,\n'
        b"2,a\n"
        b"3,\xff,,,\n"
        b'4,"x"y,,,\n'
        b"5,,[1,,\n"
        b"6,,,maybe,\n"
        b"7,,,,[]\n"
        b",,,,\n"
        b"\n"
        b"8,,,,\n"
    )
    assert bad(text, "csv") == [
        (4, "has 2 cells where the first line has 5"),
        (5, "is not UTF-8"),
        (6, "is not CSV: ',' expected after '\"'"),
        (7, "teams is not a JSON list, nor a list separated by ;"),
        (8, "deactivated must be true or false, not a string"),
        (9, "custom is not a JSON object"),
        (10, "userId is required"),
    ]
    assert [record.user for record in read(text, "csv")][-1] == {"user_id": "8"}


def test_a_quote_that_is_never_closed_is_bad_and_not_endless() -> None:
    text = 'userId,name\n1,"open\n' + "x,y\n" * 100_000
    [(line, reason), *_] = bad(text, "csv")
    assert line == 2
    assert "field limit" in reason


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("", "csv", "the file is empty"),
        ("", "ndjson", "the file is empty"),
        ("id,name\n1,a\n", "csv", "the column userId is missing; the first line names id, name"),
        ("userId,name,name\n", "csv", "name is there twice"),
        ("userId,a,a:string\n", "csv", "a:string is there twice"),
        ("userId,a.b\n", "csv", "'a.b' cannot be a column"),
        ("userId,$a\n", "csv", r"'\$a' cannot be a column"),
        ("userId,team\n", "csv", "'team' cannot be a column"),
        ("userId,\n", "csv", "'' cannot be a column"),
    ],
)
def test_whole_files_that_cannot_be_read(text: str, form: Format, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(text, form)

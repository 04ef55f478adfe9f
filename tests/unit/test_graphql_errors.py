"""What clients see of errors, scalars, global ids and media types."""

from datetime import UTC, datetime

import pytest
import strawberry
from graphql import GraphQLError

from app.errors import AppError, Conflict, Invalid, InvalidInput, LimitExceeded
from app.graphql import media, values
from app.graphql.errors import ErrorCode, extensions_of, user_errors
from app.graphql.failures import present
from app.graphql.nodes import decode_id, encode_id, number_key
from app.graphql.scalars import JSON, format_instant, parse_instant, parse_object


@strawberry.input
class Template:
    plain_text: str
    custom: JSON


@strawberry.input
class Input:
    message_templates: list[Template]
    user_ids: list[str] | None = strawberry.UNSET


@pytest.mark.parametrize("number", [2**53, 2**64, 10**40])
def test_numbers_in_details_are_such_as_every_client_can_read(number: int) -> None:
    details = {"given": number, "list": [{"left": -number}], "flag": True, "ratio": 0.5, "name": "n"}
    failure = LimitExceeded("a", details=details)
    largest = 2**53 - 1
    expected = {"given": largest, "list": [{"left": -largest}], "flag": True, "ratio": 0.5, "name": "n"}
    assert extensions_of(failure)["details"] == expected
    assert user_errors(failure)[0].details == expected


def test_user_errors_have_the_inputs_names_and_leave_json_keys_alone() -> None:
    failure = Invalid(
        [
            InvalidInput("a", path=("message_templates", 3, "plain_text")),
            Conflict("b", path=("message_templates", 3, "custom", "plain_text"), details={"x": 1}),
            LimitExceeded("c", path=("userIds", 0)),
            InvalidInput("d", path=("filter_field", "plain_text")),
        ]
    )
    errors = user_errors(failure, Input)
    assert [error.path for error in errors] == [
        ["messageTemplates", "3", "plainText"],
        ["messageTemplates", "3", "custom", "plain_text"],
        ["userIds", "0"],
        ["filter_field", "plain_text"],
    ]
    assert [error.code for error in errors[:3]] == [
        ErrorCode.INVALID_INPUT,
        ErrorCode.CONFLICT,
        ErrorCode.LIMIT_EXCEEDED,
    ]
    assert (errors[1].message, errors[1].details) == ("b", {"x": 1})


def presented(cause: Exception | None, message: str = "?") -> GraphQLError:
    error = GraphQLError(message, path=["field"], original_error=cause)
    present([error])
    return error


def test_expected_failures_keep_code_sentence_and_details() -> None:
    error = presented(Conflict("Not now.", details={"allowed": ["START"]}))
    assert error.message == "Not now."
    assert error.extensions == {"code": "CONFLICT", "details": {"allowed": ["START"]}}
    assert presented(GraphQLError("x", original_error=InvalidInput("why"))).message == "why"
    assert presented(None, "Unknown field.").extensions == {"code": "INVALID_INPUT"}


def test_faults_are_masked_and_logged_once_with_their_incident(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise KeyError("a secret of ours")

    with pytest.raises(KeyError) as raised:
        fails()
    error = presented(raised.value)
    present([error])
    assert error.extensions is not None
    assert "secret" not in str(error.formatted)
    assert error.extensions["code"] == "INTERNAL"
    logged = capsys.readouterr().out
    assert logged.count(error.extensions["incident"]) == 1
    assert "Traceback" in logged


def test_mistakes_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    presented(InvalidInput("no"))
    presented(None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-30T12:00:00Z", "2026-11-30T12:00:00.000000Z"),
        ("2026-11-30T12:00:00.1234567+02:00", "2026-11-30T10:00:00.123456Z"),
        ("2026-11-30t12:00:00z", "2026-11-30T12:00:00.000000Z"),
    ],
)
def test_times_are_utc_with_six_digits(text: str, expected: str) -> None:
    assert format_instant(parse_instant(text)) == expected


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-30T12:00:00",
        "2026-11-30",
        "2026-02-30T12:00:00Z",
        "now",
        5,
        None,
        True,
        "0001-01-01T00:00:00+23:00",
    ],
)
def test_other_times_are_refused_in_our_words(value: object) -> None:
    with pytest.raises(GraphQLError, match=r"RFC 3339|no such time"):
        parse_instant(value)


def test_early_years_keep_four_digits() -> None:
    assert format_instant(datetime(33, 1, 1, tzinfo=UTC)) == "0033-01-01T00:00:00.000000Z"


def test_json_is_an_object() -> None:
    assert parse_object({"a": [1]}) == {"a": [1]}
    for other in ([], "x", 1, None):
        with pytest.raises(GraphQLError, match="object"):
            parse_object(other)


def test_global_ids_hold_any_key() -> None:
    for key in ("a:b", "ü", "x" * 320):
        assert decode_id(encode_id("User", key)) == ("User", key)


@pytest.mark.parametrize(
    "given", ["", "VXNlcg==", "VXNlcjo=", "OmE=", "%%%", "VXNlcjph\n", "ü", "/w==", "VXNlcjoA"]
)
def test_malformed_ids_are_refused_in_our_words(given: str) -> None:
    with pytest.raises(InvalidInput, match="not an id of this API"):
        decode_id(given)


@pytest.mark.parametrize("key", ["", "x", "-1", "1.0", "٣", "9223372036854775808", "1" * 100])
def test_number_keys_are_numbers_of_the_database(key: str) -> None:
    with pytest.raises(InvalidInput):
        number_key(key)
    assert number_key("9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(
    "variables",
    [
        {"a": {"b": ["\0"]}},
        {"a": "\ud800"},
        {"a\0": 1},
        {"a": 2**63},
        {"a": [-(2**63) - 1]},
        {"a": float("inf")},
        {"a": [[[[[[1]]]]]]},
    ],
)
def test_values_that_no_database_holds_are_refused_with_their_place(variables: dict[str, object]) -> None:
    with pytest.raises(AppError):
        values.check(variables, 5)


def test_other_values_pass() -> None:
    values.check({"a": [True, None, 2**63 - 1, -(2**63), "👍🏽", {"b": 1.5}]}, 5)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", media.JSON),
        ("*/*", media.JSON),
        ("application/*", media.JSON),
        ("application/graphql-response+json", media.GRAPHQL),
        ("application/graphql-response+json; charset=utf-8, application/json;q=0.9", media.GRAPHQL),
        ("application/json;q=0.9, application/graphql-response+json;q=0.8", media.JSON),
        ("text/event-stream", media.EVENTS),
        ("text/html", None),
        ("application/json;q=x", None),
        ("application/json; charset=latin-1", None),
    ],
)
def test_media_types_are_negotiated(accept: str, expected: str | None) -> None:
    assert media.negotiate(accept) == expected

"""What any input must be: texts without surprises, numbers that both databases hold, JSON of a sane shape.

Each function gives the value back in the form that is stored, or raises an `AppError` whose path is empty;
whoever knows where the value stood adds that with `under()`.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from app.errors import AppError, Invalid, InvalidInput, LimitExceeded

MAX_PROBLEMS = 100
MAX_ID = 255
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)
EXACT_FLOAT = 2.0**53
MAX_CUSTOM_BYTES = 32_768
MAX_CUSTOM_DEPTH = 10

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UNSAFE = re.compile("[\x00\ud800-\udfff]")


class Problems:
    """Gathers what is wrong with one input, so that it is reported all at once: the first 100 problems."""

    def __init__(self) -> None:
        self.errors: list[AppError] = []

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Keeps an expected failure of the block, seen from `path`, and goes on behind the block."""
        try:
            yield
        except (AppError, Invalid) as failure:
            self.add(failure, *path)

    def add(self, failure: AppError | Invalid, *path: str | int) -> None:
        """Keeps a failure, seen from `path`."""
        errors = failure.errors if isinstance(failure, Invalid) else (failure,)
        kept = errors[: MAX_PROBLEMS - len(self.errors)]
        self.errors.extend(error.under(*path) for error in kept)

    def check(self) -> None:
        """Raises what was gathered, if anything: one error as itself, several as `Invalid`."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise Invalid(self.errors)


def each(
    given: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]]
) -> tuple[dict[str, Any], Problems]:
    """The fields that their checks find fine, as these give them, and every problem of the others. (Not with
    `at`: an import asks this of millions of fields.)"""
    problems, kept = Problems(), dict[str, Any]()
    for name, value in given.items():
        try:
            kept[name] = checks[name](value)
        except (AppError, Invalid) as failure:
            problems.add(failure, name)
    return kept, problems


def text(value: Any, *, most: int, least: int = 0) -> str:
    """A string of `least` to `most` characters that both databases can hold."""
    if isinstance(value, str) and least <= len(value) <= most and value.isascii() and "\0" not in value:
        return value
    if not isinstance(value, str):
        raise InvalidInput(f"must be a string, not {named(value)}")
    if len(value) > most:
        beyond(f"at most {most:,} characters are allowed", limit=most, given=len(value))
    if len(value) < least:
        raise InvalidInput("must not be empty")
    if _UNSAFE.search(value):
        raise InvalidInput("must not contain NUL or half of a surrogate pair")
    return value


def identifier(value: Any, *, most: int = MAX_ID) -> str:
    """An id: 1 to `most` printable characters without white space."""
    if isinstance(value, str) and 0 < len(value) <= most and value.isprintable() and " " not in value:
        return value
    text(value, least=1, most=most)
    raise InvalidInput("an id has printable characters only, and no white space")


def between(values: Sequence[Any], *, most: int, least: int = 1) -> None:
    """The list has `least` to `most` entries."""
    if len(values) > most:
        beyond(f"at most {most:,} are allowed in one call", limit=most, given=len(values))
    if len(values) < least:
        raise InvalidInput("needs at least one entry")


def distinct(values: Sequence[Any], check: Callable[[Any], str]) -> list[str]:
    """Every value as `check` gives it, each once, in the order of their first appearance."""
    problems, kept = Problems(), dict[str, None]()
    for position, value in enumerate(values):
        try:
            kept[check(value)] = None
        except AppError as error:
            problems.add(error, position)
    problems.check()
    return list(kept)


def number(value: Any) -> int | float:
    """A finite number; whole ones from 2**53 up become integers, so that they compare digit by digit.

    (PostgreSQL keeps a number's decimal digits, SQLite its binary value: they agree on all others.)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"must be a number, not {named(value)}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput("is beyond what a number can be")
        if abs(value) < EXACT_FLOAT or not MIN_INTEGER <= value < -float(MIN_INTEGER):
            return value
    whole = int(value)
    if not MIN_INTEGER <= whole <= MAX_INTEGER:
        raise InvalidInput("a whole number has at most 64 bits")
    return whole


def instant(value: Any) -> datetime:
    """A time as RFC 3339 has it, with its offset; digits past microseconds are cut."""
    given = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    if given is None:
        raise InvalidInput("must be a time with its offset, such as 2026-01-31T09:30:00Z")
    day, clock, fraction, offset = given.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}{offset.upper()}")
        return local.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("is no time of the calendar from year 1 to 9999") from error


def custom(value: Any, *, reserved: Mapping[str, Any] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """A custom object: keys that a filter can name, values that both databases hold, 32 kB, 10 levels.

    A key at the top may not repeat one of `reserved`, the built-in fields.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"must be an object, not {named(value)}")
    if taken := [key for key in value if key in reserved]:
        _refuse_built_in(taken, value)
    kept: dict[str, Any] = _json(value, MAX_CUSTOM_DEPTH)
    size = len(orjson.dumps(kept))
    if size > MAX_CUSTOM_BYTES:
        beyond(f"at most {MAX_CUSTOM_BYTES:,} bytes of JSON are allowed", limit=MAX_CUSTOM_BYTES, given=size)
    return kept


def _refuse_built_in(taken: Sequence[str], value: Mapping[str, Any]) -> None:
    """Raises a problem for every key that is taken, and for what else is wrong with the object."""
    problems = Problems()
    for key in taken:
        problems.add(InvalidInput(f"{key} is a built-in field and cannot be a custom one", path=(key,)))
    with problems.at():
        _json({key: item for key, item in value.items() if key not in taken}, MAX_CUSTOM_DEPTH)
    problems.check()


def _json(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(value, most=MAX_CUSTOM_BYTES)
    if isinstance(value, int | float):
        return number(value)
    if depth == 0:
        beyond(
            f"at most {MAX_CUSTOM_DEPTH} levels are allowed",
            limit=MAX_CUSTOM_DEPTH,
            given=MAX_CUSTOM_DEPTH + 1,
        )
    if isinstance(value, dict):
        return {_key(key): _inside(key, item, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_inside(position, item, depth) for position, item in enumerate(value)]
    raise InvalidInput(f"must be JSON, not {named(value)}")


def _inside(place: str | int, item: Any, depth: int) -> Any:
    try:
        return _json(item, depth - 1)
    except AppError as error:
        raise error.under(place) from None


@lru_cache(4_096)  # a file has a million users and a dozen keys
def _key(key: Any) -> str:
    try:
        kept = text(key, least=1, most=MAX_ID)
    except AppError as error:
        raise error.under(str(key)[:MAX_ID].encode(errors="replace").decode()) from None
    if kept.startswith("$") or "." in kept:
        raise InvalidInput("a key may not start with $ or contain a dot", path=(kept,))
    return kept


def beyond(sentence: str, *, limit: int, given: int) -> NoReturn:
    """Raises LIMIT_EXCEEDED with the limit and what was given, for people and for programs."""
    raise LimitExceeded(f"{sentence}; {given:,} were given", details={"limit": limit, "given": given})


def named(value: Any) -> str:
    """What JSON calls a value of this kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list | tuple) else "an object"

"""What no value may hold, wherever it stands: neither database could store it, or not exactly."""

import math
from typing import Any

from app.errors import AppError, InvalidInput, LimitExceeded
from app.validation import MAX_INTEGER, MIN_INTEGER

_TEXT = "text must contain neither NUL nor half of a surrogate pair"


def storable(text: str) -> bool:
    """Whether both databases can hold this text: without NUL, without halves of surrogate pairs."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_integer(value: int, path: tuple[str | int, ...] = ()) -> None:
    """Raises InvalidInput unless the integer has at most 64 bits."""
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise _invalid(path, "an integer has at most 64 bits")


def check(variables: dict[str, Any], max_depth: int) -> None:
    """Raises InvalidInput or LimitExceeded, naming the place, unless every value can be stored."""
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(variables, ())]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, str):
            check_text(value, path)
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int):
            check_integer(value, path)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise _invalid(path, "a number has to be finite")
        elif isinstance(value, dict | list):
            if len(path) > max_depth:
                raise LimitExceeded(
                    f"Variables are nested more than {max_depth} levels deep.",
                    details={"limit": max_depth, "given": len(path)},
                )
            waiting.extend(_children(value, path))


def check_text(text: str, path: tuple[str | int, ...] = ()) -> None:
    """Raises InvalidInput unless the text can be stored."""
    if not storable(text):
        raise _invalid(path, _TEXT)


def _children(
    value: dict[str, Any] | list[Any], path: tuple[str | int, ...]
) -> list[tuple[Any, tuple[str | int, ...]]]:
    if isinstance(value, list):
        return [(item, (*path, position)) for position, item in enumerate(value)]
    for key in value:
        if not storable(key):
            raise _invalid(path, _TEXT, "A name in `variables`" if not path else None)
    return [(item, (*path, key)) for key, item in value.items()]


def _invalid(path: tuple[str | int, ...], sentence: str, where: str | None = None) -> AppError:
    place = where or ".".join(str(part) for part in path)
    return InvalidInput(
        f"{place or 'The document'}: {sentence}.",
        details={"path": [str(part) for part in path]} if path else None,
    )

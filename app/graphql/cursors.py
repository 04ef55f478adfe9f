"""Cursors: the key of a row, tied to the list that gave it."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from itertools import repeat
from typing import Any, cast

import orjson

from app.database import from_microseconds, microseconds
from app.errors import InvalidInput
from app.keyset import Key, KeyPart
from app.rows import Values
from app.validation import MAX_INTEGER, MIN_INTEGER

URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Cursors:
    """Makes and reads the cursors of one list with one filter and sort; any other's are refused."""

    def __init__(self, scope: str, kinds: tuple[type, ...]) -> None:
        self._scope = scope
        self._kinds = kinds

    def of(self, key: Key) -> str:
        """The cursor of the row with this key."""
        return self.of_all([[part] for part in key])[0]

    def of_all(self, keys: Sequence[Values]) -> list[str]:
        """The cursors of rows, of the columns of their keys."""
        parts = (
            list(map(_plain, column)) if kind is datetime else column
            for kind, column in zip(self._kinds, keys, strict=True)
        )
        written = map(orjson.dumps, zip(repeat(self._scope), *parts, strict=False))
        lines = b"".join(map(binascii.b2a_base64, written))
        return lines.translate(URL_SAFE).decode().split("\n")[:-1]

    def key(self, cursor: str | None, argument: str) -> Key | None:
        """The key in a cursor. Raises InvalidInput unless `of` made it for the same list."""
        if cursor is None:
            return None
        try:
            scope, *parts = orjson.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            if scope != self._scope:
                raise ValueError
            return tuple(_typed(part, kind) for part, kind in zip(parts, self._kinds, strict=True))
        except (binascii.Error, ValueError, TypeError, OverflowError):
            raise InvalidInput(
                f"{argument} is not a cursor of this list. Use one that the same list gave you, with the "
                "same filter and sort."
            ) from None


def _plain(part: KeyPart) -> Any:
    return microseconds(part) if isinstance(part, datetime) else part


def _typed(part: Any, kind: type) -> KeyPart:
    if part is None:
        return None
    if kind is float and type(part) is int:
        return float(part)
    if type(part) is not (int if kind is datetime else kind):
        raise ValueError
    if isinstance(part, str) and "\0" in part:
        raise ValueError
    if isinstance(part, int) and not MIN_INTEGER <= part <= MAX_INTEGER:
        raise ValueError
    return from_microseconds(cast(int, part)) if kind is datetime else cast(KeyPart, part)

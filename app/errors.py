"""What can go wrong for a reason that the caller can mend.

Each class stands for one `ErrorCode` of the contract; its message is a sentence that names the fix.
Anything else that is raised is a fault: it is logged with a traceback and never shown to a client.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_NUMBER = 2**53 - 1  # the largest integer that every client can read


class AppError(Exception):
    """An expected failure: `code` for programs, the message for people, `path` into the input.

    `details` carries what a program needs to react (limit, given, campaignIds, line, column ...). An integer
    that not every client could read is the nearest that each can.
    """

    code = "INTERNAL"

    def __init__(
        self, message: str, *, path: Sequence[str | int] = (), details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = tuple(str(part) for part in path)
        self.details: dict[str, Any] | None = _readable(dict(details)) if details else None

    def under(self, *prefix: str | int) -> "AppError":
        """The same error seen from further out: `prefix` goes before its path."""
        self.path = (*(str(part) for part in prefix), *self.path)
        return self


def _readable(value: Any) -> Any:
    """The same with every integer in it within what clients can read."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-MAX_NUMBER, min(value, MAX_NUMBER))
    if isinstance(value, dict):
        return {name: _readable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return value


class InvalidInput(AppError):
    """The input breaks a rule, whatever is stored."""

    code = "INVALID_INPUT"


class NotFound(AppError):
    """Nothing of that id exists (any more)."""

    code = "NOT_FOUND"


class AlreadyExists(AppError):
    """The id that the client chose is taken."""

    code = "ALREADY_EXISTS"


class Conflict(AppError):
    """What is stored does not allow this now (a wrong status, something that still refers to it)."""

    code = "CONFLICT"


class LimitExceeded(AppError):
    """Past a limit (the README lists them); `details` has `limit` and `given`."""

    code = "LIMIT_EXCEEDED"


class Busy(LimitExceeded):
    """No connection to the database came free in time; `details` has retryAfterSeconds. Nothing was done."""

    def __init__(self) -> None:
        super().__init__(
            "Carillon is busy: no connection to its database came free. Nothing was done; try again.",
            details={"retryAfterSeconds": 1},
        )


class QuotaExceeded(AppError):
    """The month's message capacity does not hold the audience; `details` has needed, left, resetsAt."""

    code = "QUOTA_EXCEEDED"


class Forbidden(AppError):
    """The key's role does not allow this."""

    code = "FORBIDDEN"


class Unauthenticated(AppError):
    """No key, or none that is known."""

    code = "UNAUTHENTICATED"


class Invalid(Exception):
    """Several `AppError`s found in one input, reported all at once."""

    def __init__(self, errors: Sequence[AppError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = tuple(errors)

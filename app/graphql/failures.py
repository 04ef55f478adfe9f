"""Top-level errors: a mistake gets a code and a sentence, a fault an incident's id and nothing else."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from graphql import GraphQLError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import MAX_NUMBER, AppError, Busy, Invalid, InvalidInput, LimitExceeded
from app.graphql.errors import extensions_of
from app.ids import new_uuid

log = structlog.get_logger(__name__)

INTERNAL = "INTERNAL"
MAX_MESSAGE = 1_000  # characters of what GraphQL says of a document: it cites names of any length
INVALID_INPUT = InvalidInput.code

_PYTHON_NULL = re.compile(r"(?<=not to be )None\.\Z")


class Refused(Exception):
    """A request that is not executed: its errors, and the HTTP status if it was wrong before GraphQL."""

    def __init__(self, errors: Sequence[GraphQLError], status: int | None = None) -> None:
        super().__init__(errors[0].message)
        self.errors = list(errors)
        self.status = status


def refused(failure: AppError, status: int | None = None) -> Refused:
    """The refusal of a whole request for one reason."""
    return Refused([GraphQLError(failure.message, extensions=extensions_of(failure))], status)


def beyond(what: str, limit: int, given: int, status: int | None = None) -> Refused:
    """The refusal of a request that is past one of the limits."""
    given = min(given, MAX_NUMBER)
    message = f"{what}: {given:,} were given, {limit:,} are allowed."
    return refused(LimitExceeded(message, details={"limit": limit, "given": given}), status)


def present(errors: Iterable[GraphQLError]) -> None:
    """Makes errors fit for clients, in place. A fault is logged with its traceback, a mistake is not."""
    for error in errors:
        if "code" not in (error.extensions or {}):
            _present(error)


def _present(error: GraphQLError) -> None:
    cause = _cause(error)
    if isinstance(cause, AppError | Invalid):
        error.message = str(cause)
        error.extensions = extensions_of(cause)
    elif isinstance(cause, RecursionError):
        error.message = "The document or its variables are nested too deeply."
        error.extensions = {"code": LimitExceeded.code}
    elif cause is None:
        error.message = _PYTHON_NULL.sub("null.", error.message)
        if len(error.message) > MAX_MESSAGE:
            error.message = f"{error.message[:MAX_MESSAGE]} …"
        error.extensions = {"code": INVALID_INPUT}
    else:
        incident = log_fault(cause, path=error.path)
        error.message = f"Internal error. Its log entry has the incident {incident}."
        error.extensions = {"code": INTERNAL, "incident": incident}


def log_fault(fault: BaseException, **context: Any) -> str:
    """Writes a fault to the log with its traceback; returns the incident's id, which clients are shown."""
    incident = new_uuid()
    log.error("fault", incident=incident, exc_info=fault, **context)
    return incident


def _cause(error: GraphQLError) -> Exception | None:
    """What a resolver raised; None where GraphQL itself refused something."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return Busy() if isinstance(cause, PoolTimeout) else cause

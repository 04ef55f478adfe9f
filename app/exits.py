"""How the `carillon` command ends when it cannot do its work: a sentence with the fix, and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError


class ExitCode(IntEnum):
    """What a script that calls `carillon` may rely on."""

    OK = 0
    FAULT = 1
    USAGE = 2
    PORT_BUSY = 3
    DATA_DIR_IN_USE = 4
    DATA_DIR_UNUSABLE = 5
    DATABASE_UNREACHABLE = 6
    SCHEMA_MISMATCH = 7
    NO_QUEUE = 8
    REFUSED = 9
    UNBALANCED = 10
    INTERRUPTED = 130


EXPLANATIONS = {
    ExitCode.OK: "done, or stopped as it was told to",
    ExitCode.FAULT: "a fault; the log above tells more",
    ExitCode.USAGE: "wrong arguments, or a setting (CARILLON_...) with a wrong value",
    ExitCode.PORT_BUSY: "the port cannot be listened on",
    ExitCode.DATA_DIR_IN_USE: "another running instance uses the data directory",
    ExitCode.DATA_DIR_UNUSABLE: "the data directory cannot be made or written",
    ExitCode.DATABASE_UNREACHABLE: "the database cannot be reached or opened",
    ExitCode.SCHEMA_MISMATCH: "the database's schema is older or newer than this program",
    ExitCode.NO_QUEUE: "there is no queue server, or it does not start",
    ExitCode.REFUSED: "the input was refused; nothing was stored",
    ExitCode.UNBALANCED: "the books of a campaign do not balance",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


# What SQLite says of a file that it cannot work with.
UNUSABLE = ("unable to open database file", "file is not a database", "readonly database")


class Stop(Exception):
    """The command cannot go on: the message is for people and names the fix, `code` is for scripts."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def explained() -> Iterator[None]:
    """Ends the process with a sentence on stderr and its exit code when the block fails for a reason
    that people can mend. Faults pass through, with their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        stop = explain(error)
        if stop is None:
            raise
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.code)


def explain(error: Exception) -> Stop | None:
    """The sentence and code for an expected failure; None for a fault."""
    from app.errors import AppError, Invalid
    from app.settings import SettingsError

    match error:
        case Stop():
            return error
        case SettingsError():
            return Stop(ExitCode.USAGE, f"A setting has a wrong value.\n{error}")
        case AppError() | Invalid():
            return Stop(ExitCode.REFUSED, str(error))
        case OSError(filename=str(name), strerror=str(reason)):
            return Stop(ExitCode.FAULT, f"{name}: {reason}")
    return _explain_database(error)


def _explain_database(error: Exception) -> Stop | None:
    from sqlalchemy.exc import DBAPIError

    from app.database import storage_is_full
    from app.migrations import SchemaOutdated, SchemaTooNew

    match error:
        case SchemaTooNew() | SchemaOutdated():
            return Stop(ExitCode.SCHEMA_MISMATCH, str(error))
        case DBAPIError() if storage_is_full(error):
            reason = " ".join(str(error.orig).split())
            return Stop(
                ExitCode.DATABASE_UNREACHABLE,
                f"The database has no room left: {reason}\nFree some on its disk, and do this again.",
            )
        case DBAPIError() if _is_unreachable(error):
            return Stop(ExitCode.DATABASE_UNREACHABLE, _unreachable(error))
    return None


def _is_unreachable(error: "DBAPIError") -> bool:
    """Whether the connection or the file failed, rather than a statement."""
    if error.connection_invalidated or error.statement is None:
        return True
    return any(known in str(error.orig) for known in UNUSABLE)


def _unreachable(error: "DBAPIError") -> str:
    reason = " ".join(str(error.orig).split())
    return (
        f"The database cannot be reached: {reason}\n"
        "Check that it runs and that CARILLON_DATABASE_URL is right (sqlite:///path/file.db or "
        "postgresql://user:password@host/name). Without that setting the database is carillon.db in "
        "CARILLON_DATA_DIR (by default ./carillon-data): are you in the right directory?"
    )

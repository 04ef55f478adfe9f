"""Logs: one line an event on stderr, for people or as JSON; a traceback only for a fault.

The standard library's loggers (uvicorn, arq, alembic, sqlalchemy) go the same way as our own.
"""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.settings import Settings

# What these say at INFO is either said by ourselves or of no use to an operator.
QUIET = ("uvicorn", "arq", "alembic", "sqlalchemy", "asyncio", "aiohttp", "aiosqlite", "redis")

_SECRETS = (
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',}]+"), r"\1[redacted]"),
    (re.compile(r"\bcar_[A-Za-z0-9_\-]{6,}"), "car_[redacted]"),
    (re.compile(r"(://[^\s:/@]*:)[^\s/@]+@"), r"\1[redacted]@"),
)


def configure(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Sends every log of this process to `stream` (stderr) in the form and from the level that is set.

    `process` names the process in every line, as several share one terminal.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _Redacting(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(settings, coloured=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.raiseExceptions = False  # a closed terminal is no reason to fail
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """Takes keys and passwords out of the finished line, wherever in it they stand."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return redacted(super().format(record))


def redacted(text: str) -> str:
    """`text` without API keys, credentials and passwords in URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _named(process: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _rendering(settings: Settings, *, coloured: bool) -> list[Processor]:
    if settings.log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        _on_one_line,
        structlog.dev.ConsoleRenderer(
            colors=coloured, pad_event_to=40, exception_formatter=structlog.dev.plain_traceback
        ),
    ]


def _on_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["event"] = " | ".join(str(event["event"]).splitlines())
    return event


_NOT_WORTH_A_LINE = (
    "timeout graceful shutdown exceeded",  # subscriptions that are open when the API stops are usual
    "Invalid HTTP request received.",  # the mistakes of clients are told to clients
    "Unsupported upgrade request.",
)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return not record.getMessage().endswith(_NOT_WORTH_A_LINE)

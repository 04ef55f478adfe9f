"""Logs: one line an event, no secrets."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import logs
from app.settings import load


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Logging is global: whatever a test configures is undone."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.getLogger("uvicorn.error").filters.clear()
    structlog.reset_defaults()


def configured(**given: str) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(load(**given), process="test", stream=stream)
    return stream


def test_a_json_line_is_an_event() -> None:
    stream = configured(log_format="json")

    structlog.get_logger("app.test").info("batch sent", campaign="c1", batch=7)

    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["campaign"], event["batch"]) == ("batch sent", "c1", 7)
    assert (event["level"], event["process"]) == ("info", "test")


def test_the_level_is_kept() -> None:
    stream = configured(log_level="warning")

    structlog.get_logger("app.test").info("not this")
    structlog.get_logger("app.test").warning("but this")

    assert "not this" not in stream.getvalue()
    assert "but this" in stream.getvalue()


def test_other_loggers_go_the_same_way() -> None:
    stream = configured(log_format="json")

    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").error("Cancel 3 running task(s), timeout graceful shutdown exceeded")
    logging.getLogger("arq.worker").warning("redis is %s", "away")

    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "redis is away"


def test_a_fault_has_its_traceback_and_in_json_stays_one_line() -> None:
    stream = configured(log_format="json")

    try:
        raise ZeroDivisionError("by nought")
    except ZeroDivisionError:
        structlog.get_logger("app.test").exception("fault")

    (line,) = stream.getvalue().splitlines()
    assert "ZeroDivisionError: by nought" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    "said",
    [
        "Authorization: Bearer car_q83hf83hf9283hf",
        "key car_q83hf83hf9283hf is new",
        "{'authorization': 'Bearer q83hf83hf9283hf'}",
        "postgresql://carillon:q83hf83hf9283hf@db/carillon is away",
    ],
)
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_secrets_are_taken_out(said: str, log_format: str) -> None:
    stream = configured(log_format=log_format)

    structlog.get_logger("app.test").warning("heard", said=said)
    logging.getLogger("anything").warning(said)

    assert "q83hf83hf9283hf" not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") == 2


def test_many_lines_become_one_on_a_console() -> None:
    stream = configured()

    logging.getLogger("anything").warning("first\nsecond")

    assert len(stream.getvalue().splitlines()) == 1

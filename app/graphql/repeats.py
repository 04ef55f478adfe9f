"""`Idempotency-Key`: a mutation that comes again under the same key gets the answer of the first time.

How that is exact, whatever dies in between, stands in `app.idempotency.service`.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from strawberry.types import ExecutionResult

from app.errors import AppError, Conflict, InvalidInput
from app.graphql.context import Context
from app.graphql.execution import Operations, Request, answer, is_request_error, refusal
from app.graphql.failures import INTERNAL, Refused, refused
from app.idempotency import service
from app.idempotency.attempts import Attempt
from app.idempotency.sealing import Part, Seal
from app.idempotency.service import Answered, Busy, Claimed, ClaimLost

log = structlog.get_logger(__name__)

HEADER = "idempotency-key"
MAX_KEY = 255
SECONDS_TO_WAIT = 20.0  # for the answer of another execution: longer than the lease of one that died
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2


@dataclass(frozen=True)
class Answer:
    """An answer as JSON; whether an earlier request did all that it tells, and whether its request was not
    executed at all."""

    body: dict[str, Any]
    repeated: bool = False
    request_error: bool = False


def key_in(headers: Sequence[str]) -> str | None:
    """The key in the values of the header, None without any. Raises Refused for what is no key."""
    if not headers:
        return None
    try:
        key = headers[0].encode("latin-1").decode()
    except UnicodeDecodeError:
        key = ""
    if len(headers) > 1 or not 0 < len(key) <= MAX_KEY or not key.isprintable():
        sentence = f"Send one Idempotency-Key of 1 to {MAX_KEY} printable characters."
        raise refused(InvalidInput(sentence), status=400)
    return key


class Repeats:
    """Executes mutations that have a key, once."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def answer(self, request: Request, context: Context, seal: Seal) -> Answer:
        """The answer, of this execution or of an earlier one. Raises Refused (409) if the key was used for
        another request, or if an earlier execution takes too long to wait for."""
        try:
            digest = seal.digest(_meaning(request))
            verdict, row = await self._claim(context, seal, digest), seal.row(digest)
            if isinstance(verdict, Answered):
                return Answer(orjson.loads(row.open(verdict.response, Part.ANSWER)), repeated=True)
            return await self._execute(request, context, Attempt(context.database, row, verdict))
        except ClaimLost:
            raise _busy() from None
        except AppError as failure:
            raise refused(failure, status=409) from None

    async def results(
        self, request: Request, context: Context, seal: Seal
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The one answer, for an event stream."""
        try:
            yield (await self.answer(request, context, seal)).body
        except Refused as failure:
            yield refusal(failure)

    async def _claim(self, context: Context, seal: Seal, digest: str) -> Claimed | Answered:
        """Waits while another execution is under way."""
        until, pause = time.monotonic() + SECONDS_TO_WAIT, FIRST_PAUSE
        while True:
            async with context.database.transaction() as session:
                verdict = await service.claim(session, seal.name, digest)
            if not isinstance(verdict, Busy):
                return verdict
            busy = True
            while busy:
                if time.monotonic() > until:
                    raise _busy()
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
                async with context.database.read() as session:
                    busy = await service.busy(session, seal.name)

    async def _execute(self, request: Request, context: Context, attempt: Attempt) -> Answer:
        context.attempt = attempt
        async with attempt.alive():
            try:
                result = await self._operations.execute(request, context)
            except Exception:
                await _settle(attempt.release())
                raise
            body = answer(result)
            await _settle(_ending(attempt, result, body))
        return Answer(body, repeated=attempt.repeated, request_error=is_request_error(result))


async def _ending(attempt: Attempt, result: ExecutionResult, body: dict[str, Any]) -> None:
    """Only an answer without faults is kept."""
    if is_request_error(result):
        await attempt.forget()
    elif any(_to_be_repeated(error["extensions"]) for error in body.get("errors", ())):
        await attempt.release()
    else:
        await attempt.answer(orjson.dumps(body))


def _to_be_repeated(extensions: dict[str, Any]) -> bool:
    return extensions["code"] == INTERNAL or "retryAfterSeconds" in (extensions.get("details") or {})


async def _settle(ending: Awaitable[None]) -> None:
    """What is done is done, even if this fails: the claim runs out, and a repeat builds the same from the
    outcomes. Raises ClaimLost."""
    try:
        await ending
    except ClaimLost:
        raise
    except Exception as error:
        log.warning("an answer could not be kept for repeats", error=str(error))


def _meaning(request: Request) -> bytes:
    """What makes two requests the same: document, operation and variables, in whatever order these stand."""
    asked = [request.query, request.operation_name, request.variables or {}]
    return json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()


def _busy() -> Refused:
    sentence = "This request is still being executed. Repeat it in a moment, with the same Idempotency-Key."
    return refused(Conflict(sentence, details={"retryAfterSeconds": 1}), status=409)

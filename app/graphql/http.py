"""GraphQL over HTTP: POST, GET for queries, and event streams (graphql-sse, distinct connections)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import orjson
from graphql import OperationType
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from app import wire
from app.auth import Authenticator, TooManyWrongKeys, Viewer, secret_in
from app.errors import AppError, Busy, InvalidInput, Unauthenticated
from app.graphql import bodies, media
from app.graphql.context import Context
from app.graphql.execution import Operations, Request, answer, is_request_error, refusal
from app.graphql.failures import INTERNAL, Refused, log_fault, refused
from app.graphql.repeats import HEADER, Answer, Repeats, key_in
from app.graphql.sharing import Payload
from app.graphql.streams import OpenStreams
from app.idempotency.sealing import Seal
from app.keys.roles import Role
from app.settings import Settings

T = TypeVar("T")

COMPLETE = b"event: complete\ndata:\n\n"
EVENT_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", "vary": "accept"}


class HttpTransport:
    """Answers HTTP requests to /graphql."""

    def __init__(
        self, operations: Operations, authenticator: Authenticator, streams: OpenStreams, settings: Settings
    ) -> None:
        self._operations = operations
        self._authenticator = authenticator
        self._streams = streams
        self._settings = settings
        self._repeats = Repeats(operations)

    async def handle(self, http: HttpRequest) -> Response:
        """The answer, whatever comes: a fault is logged and masked."""
        media_type = media.negotiate(http.headers.get("accept", ""))
        try:
            return await self._handle(http, media_type)
        except Refused as failure:
            return _refuse(failure, media_type)
        except TooManyWrongKeys as failure:
            headers = {"retry-after": str(failure.retry_after)}
            return _json(refusal(refused(failure)), media_type, 429, headers)
        except AppError as failure:
            return _refuse(refused(failure, status=400), media_type)
        except PoolTimeout:
            return _json(refusal(refused(Busy())), media_type, 503, {"retry-after": "1"})
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as fault:
            incident = log_fault(fault)
            error = {
                "message": f"Internal error. Its log entry has the incident {incident}.",
                "extensions": {"code": INTERNAL, "incident": incident},
            }
            return _json({"errors": [error]}, media_type, status=500)

    async def _handle(self, http: HttpRequest, media_type: str | None) -> Response:
        if http.method not in ("GET", "POST"):
            return _problem(405, "Send a POST, or a query by GET.", media_type, {"allow": "GET, POST"})
        address = http.client.host if http.client else ""
        viewer = await self._authenticator.viewer(http.headers.get("authorization"), address)
        settings = self._settings
        body = await bodies.read(
            http, settings.max_body_bytes if viewer else settings.max_body_bytes_without_key
        )
        if viewer is None:
            return _unauthenticated(media_type)
        if media_type is None:
            sentence = f"Accept {media.GRAPHQL}, {media.JSON} or {media.EVENTS}."
            return _problem(406, sentence, media_type)
        if http.headers.get("content-encoding", "identity").lower() != "identity":
            return _problem(415, "Bodies may not be compressed.", media_type)
        if http.method == "POST" and not media.is_json(http.headers.get("content-type", "")):
            return _problem(415, "Send Content-Type: application/json.", media_type, {"accept": media.JSON})
        request = _requested(http, body, settings)
        return await self._answer(http, request, viewer, media_type)

    async def _answer(self, http: HttpRequest, request: Request, viewer: Viewer, media_type: str) -> Response:
        if media_type == media.EVENTS:
            return self._event_stream(http, request, viewer)
        context, kind = self._operations.admit(request, viewer)
        if kind is OperationType.SUBSCRIPTION:
            sentence = f"Subscriptions need Accept: {media.EVENTS}, or the WebSocket of this address."
            return _problem(405 if http.method == "GET" else 400, sentence, media_type)
        if kind is OperationType.MUTATION and http.method == "GET":
            return _problem(405, "Mutations need POST.", media_type, {"allow": "POST"})
        seal = _seal(http, viewer, kind)
        if seal is None:
            async with _unless_gone(http, context, kind):
                result = await self._operations.execute(request, context)
            given = Answer(answer(result), request_error=is_request_error(result))
        else:
            given = await self._repeats.answer(request, context, seal)
        failed = media_type == media.GRAPHQL and given.request_error
        headers = {"idempotent-replayed": "true"} if given.repeated else None
        return _json(given.body, media_type, 400 if failed else 200, headers)

    def _event_stream(self, http: HttpRequest, request: Request, viewer: Viewer) -> Response:
        try:
            context, kind = self._operations.admit(request, viewer)
            if kind is OperationType.MUTATION and http.method == "GET":
                return _problem(405, "Mutations need POST.", media.GRAPHQL, {"allow": "POST"})
            seal = _seal(http, viewer, kind)
        except Refused as failure:
            return _events(_single(refusal(failure)))
        if kind is OperationType.SUBSCRIPTION:
            pushing = wire.pushing(http.scope)
            push = None if pushing is None else lambda body: pushing(_event_of(body))
            encoded = _bodies(self._operations.subscribed(request, context, push))
        elif seal is None:
            encoded = _encoded(self._operations.results(request, context))
        else:
            encoded = _encoded(self._repeats.results(request, context, seal))
        return _events(self._stream(encoded, viewer))

    async def _stream(
        self, results: AsyncGenerator[bytes, None], viewer: Viewer
    ) -> AsyncGenerator[bytes, None]:
        try:
            with self._streams.opened(viewer) as end:
                async with contextlib.aclosing(
                    _beating(results, end, self._settings.heartbeat_seconds)
                ) as beats:
                    async for body in beats:
                        yield b":\n\n" if body is None else _event_of(body)
                if not end.is_set():  # cut short, it is not complete: the client may try again
                    yield COMPLETE
        except AppError as failure:
            yield _event(refusal(refused(failure)))
            yield COMPLETE


@contextlib.asynccontextmanager
async def _unless_gone(
    http: HttpRequest, context: Context, kind: OperationType
) -> AsyncGenerator[None, None]:
    """Ends what a query reads in the block when its client goes away. Mutations go on to their end."""
    watching = None if kind is OperationType.MUTATION else asyncio.create_task(_end_if_gone(http, context))
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()


async def _end_if_gone(http: HttpRequest, context: Context) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    if context.reading is not None:
        context.reading.end()


def _seal(http: HttpRequest, viewer: Viewer, kind: OperationType) -> Seal | None:
    """What a mutation is kept under; None where nothing is to be kept, or can be done. Raises Refused."""
    if kind is not OperationType.MUTATION or viewer.role is not Role.ADMIN:
        return None
    key = key_in(http.headers.getlist(HEADER))
    secret = secret_in(http.headers.get("authorization"))
    return None if key is None or secret is None else Seal(secret, key)


async def _encoded(results: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(results):
        async for result in results:
            yield orjson.dumps(result)


async def _bodies(payloads: AsyncGenerator[Payload, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(payloads):
        async for payload in payloads:
            yield payload.body


def _event(body: dict[str, Any]) -> bytes:
    return _event_of(orjson.dumps(body))


def _event_of(body: bytes) -> bytes:
    return b"event: next\ndata: " + body + b"\n\n"


async def _single(body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    yield _event(body)
    yield COMPLETE


def _events(stream: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(stream, media_type=media.EVENTS, headers=EVENT_HEADERS)


async def _beating(
    source: AsyncGenerator[T, None], end: asyncio.Event, seconds: float
) -> AsyncGenerator[T | None, None]:
    """The items of `source`, None wherever it is silent for so many seconds, until it or `end` ends them."""
    ending = asyncio.create_task(end.wait())
    upcoming: asyncio.Task[T] | None = None
    try:
        while not end.is_set():
            upcoming = upcoming or asyncio.create_task(anext(source))
            done, _ = await asyncio.wait(
                {upcoming, ending},
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if upcoming in done:
                finished, upcoming = upcoming, None
                try:
                    yield finished.result()
                except StopAsyncIteration:
                    return
            elif not done:
                yield None
    finally:
        await _cancelled(ending, upcoming)
        await source.aclose()


async def _cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _requested(http: HttpRequest, body: bytes, settings: Settings) -> Request:
    if http.method == "POST":
        return Request.of(bodies.decode(body, settings))
    given: dict[str, Any] = dict(http.query_params)
    for name in ("variables", "extensions"):
        if name in given:
            given[name] = (
                bodies.decode(given[name], settings, f"The parameter {name}") if given[name] else None
            )
    if "query" not in given:
        raise refused(InvalidInput("Give the document in the parameter `query`."), status=400)
    return Request.of(given)


def _json(
    body: dict[str, Any], media_type: str | None, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    kind = media.JSON if media_type == media.JSON else media.GRAPHQL
    return Response(
        orjson.dumps(body),
        status_code=status,
        headers={"content-type": f"{kind}; charset=utf-8", "vary": "accept", **(headers or {})},
    )


def _refuse(failure: Refused, media_type: str | None) -> Response:
    """A request error. In application/json that is a 200, as GraphQL over HTTP has it, if it is GraphQL's."""
    status = failure.status or (200 if media_type == media.JSON else 400)
    return _json(refusal(failure), media_type, status)


def _problem(
    status: int, sentence: str, media_type: str | None, headers: dict[str, str] | None = None
) -> Response:
    return _json(refusal(refused(InvalidInput(sentence))), media_type, status, headers)


def _unauthenticated(media_type: str | None) -> Response:
    failure = refused(Unauthenticated("Send a valid key: Authorization: Bearer KEY."))
    return _json(refusal(failure), media_type, 401, {"www-authenticate": "Bearer"})

"""graphql-transport-ws: any operation over a WebSocket, many at a time.

Close codes are the protocol's: 4400 a message of the wrong shape, 4401 before the key was accepted, 4403 a
key that is not (or no longer) valid, 4406 another protocol, 4408 no key in time, 4409 an id in use, 4429.
"""

import asyncio
import contextlib
from typing import Any
from urllib.parse import urlsplit

import orjson
from graphql import OperationType
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app import wire
from app.auth import Authenticator, TooManyWrongKeys, Viewer
from app.errors import AppError, Busy, Forbidden, LimitExceeded
from app.graphql import bodies, media
from app.graphql.context import Context
from app.graphql.execution import Operations, Request, refusal
from app.graphql.failures import INTERNAL, Refused, beyond, log_fault, refused
from app.graphql.streams import OpenStreams
from app.settings import Settings

PROTOCOL = "graphql-transport-ws"
_DEFAULT_PORTS = {"http": 80, "https": 443}


# Apollo Client 4 forgets a result whose `complete` it reads in the same turn of its loop: 6 of 14 dashboards
# missed the end of a campaign when both came in one segment.
SECONDS_BEFORE_COMPLETE = 0.02


class Closing(Exception):
    """The connection is to be closed with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class WebSocketTransport:
    """Serves WebSockets to /graphql."""

    def __init__(
        self, operations: Operations, authenticator: Authenticator, streams: OpenStreams, settings: Settings
    ) -> None:
        self.operations = operations
        self.authenticator = authenticator
        self.streams = streams
        self.settings = settings

    async def handle(self, socket: WebSocket) -> None:
        """One connection, from handshake to close. A page of an origin that is not allowed gets a 403."""
        origin = socket.headers.get("origin")
        if origin is not None and not self._allowed(origin, socket.headers.get("host", "")):
            sentence = "Pages of this origin may not connect: CARILLON_CORS_ORIGINS names those that may."
            await deny(socket, 403, Forbidden(sentence))
            return
        if PROTOCOL not in socket.scope["subprotocols"]:
            await socket.accept()
            await socket.close(4406, "Subprotocol not acceptable")
            return
        await socket.accept(subprotocol=PROTOCOL)
        await Connection(self, socket).serve()

    def _allowed(self, origin: str, host: str) -> bool:
        listed = self.settings.cors_origins
        return "*" in listed or origin.lower() in (one.lower() for one in listed) or _same(origin, host)


async def deny(socket: WebSocket, status: int, failure: AppError) -> None:
    """Answers a handshake as any other request would be, instead of accepting it."""
    body = orjson.dumps(refusal(refused(failure)))
    await socket.send_denial_response(Response(body, status, media_type=f"{media.JSON}; charset=utf-8"))


def _same(origin: str, host: str) -> bool:
    """Whether the page came from the address that it connects to; behind a proxy the scheme may differ."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return page.hostname is not None and (page.hostname, page.port or default) == (
            here.hostname,
            here.port or default,
        )
    except ValueError:
        return False


class Connection:
    """One WebSocket: its viewer, once there is one, and the operations that run."""

    def __init__(self, transport: WebSocketTransport, socket: WebSocket) -> None:
        self._transport = transport
        self._socket = socket
        self._sending = asyncio.Lock()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._initialised = False
        self._viewer: Viewer | None = None
        self._open = contextlib.ExitStack()
        self._ended: asyncio.Event | None = None

    async def serve(self) -> None:
        """Reads messages until either side closes; then every operation ends."""
        try:
            with self._open:
                await self._serve()
        except Closing as closing:
            await self._close(closing.code, closing.reason)
        except PoolTimeout:  # of looking the key up
            await self._close(1013, Busy().message[:120])
        except (WebSocketDisconnect, OSError):
            pass
        except Exception as fault:
            log_fault(fault)
            await self._close(1011, "Internal error")
        finally:
            await self._end_operations()

    async def _serve(self) -> None:
        try:
            async with asyncio.timeout(self._transport.settings.websocket_init_seconds):
                while self._viewer is None:
                    await self._take(await self._receive())
        except TimeoutError:
            raise Closing(4408, "Connection initialisation timeout") from None
        assert self._ended is not None
        revoked = asyncio.create_task(self._ended.wait())
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({revoked, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            if self._transport.streams.stopping:
                raise Closing(1012, "Service restart")
            raise Closing(4403, "The key was revoked")
        finally:
            for task in (revoked, reading):
                task.cancel()
            await asyncio.gather(revoked, reading, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            await self._take(await self._receive())

    async def _receive(self) -> dict[str, Any]:
        """The next message, which is an object with a type."""
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code") or 1005)
        text = received.get("text")
        if text is None:
            raise Closing(4400, "Messages have to be text")
        settings = self._transport.settings
        limit = settings.max_body_bytes if self._viewer else settings.max_body_bytes_without_key
        if len(text) > limit:
            raise Closing(4400, f"A message may have {limit:,} bytes")
        try:
            message = bodies.decode(text, settings, "The message")
        except Refused as failure:
            raise Closing(4400, str(failure)) from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise Closing(4400, "Messages have to be objects with a type")
        return message

    async def _take(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if not isinstance(payload, dict | None):
            raise Closing(4400, "A payload has to be an object")
        match message["type"]:
            case "connection_init":
                await self._initialise(payload or {})
            case "ping":
                await self._send({"type": "pong"} if payload is None else _echo(payload))
            case "pong":
                pass
            case "subscribe":
                await self._subscribe(_id_of(message), payload)
            case "complete":
                await self._complete(_id_of(message))
            case _:
                raise Closing(4400, "Unknown message type")

    async def _initialise(self, payload: dict[str, Any]) -> None:
        if self._initialised:
            raise Closing(4429, "Too many initialisation requests")
        self._initialised = True
        given = {name.lower(): value for name, value in payload.items()}
        authorization = given.get("authorization", self._socket.headers.get("authorization"))
        address = self._socket.client.host if self._socket.client else ""
        try:
            viewer = await self._transport.authenticator.viewer(authorization, address)
        except TooManyWrongKeys as failure:
            raise Closing(4403, f"Forbidden: {failure.message}"[:120]) from None
        if viewer is None:
            raise Closing(4403, "Forbidden: no valid key")
        try:
            self._ended = self._open.enter_context(self._transport.streams.opened(viewer))
        except LimitExceeded:
            raise Closing(4429, "Too many connections with this key") from None
        self._viewer = viewer
        wire.admitted(self._socket.scope)
        await self._send({"type": "connection_ack"})

    async def _subscribe(self, name: str, payload: dict[str, Any] | None) -> None:
        if self._viewer is None or self._ended is None:
            raise Closing(4401, "Unauthorized")
        if name in self._running:
            shown = name[:50].encode("ascii", "replace").decode()
            raise Closing(4409, f"Subscriber for {shown} already exists")
        if payload is None or not isinstance(payload.get("query"), str):
            raise Closing(4400, "subscribe needs a payload with a query")
        limit = self._transport.settings.max_subscriptions_per_connection
        if len(self._running) >= limit:
            failure = beyond("Operations of one connection", limit, len(self._running) + 1)
            await self._send({"id": name, "type": "error", "payload": refusal(failure)["errors"]})
            return
        try:
            self._transport.streams.carry(self._ended, len(self._running) + 1)
        except LimitExceeded as error:
            payload_of_error = refusal(refused(error))["errors"]
            await self._send({"id": name, "type": "error", "payload": payload_of_error})
            return
        self._running[name] = asyncio.create_task(self._run(name, payload, self._viewer))

    async def _run(self, name: str, payload: dict[str, Any], viewer: Viewer) -> None:
        """One operation, from its request to complete or error."""
        try:
            last = await self._results(name, payload, viewer)
        except Refused as failure:
            last = {"id": name, "type": "error", "payload": refusal(failure)["errors"]}
        except Exception as fault:
            incident = log_fault(fault)
            error = {"message": "Internal error.", "extensions": {"code": INTERNAL, "incident": incident}}
            last = {"id": name, "type": "error", "payload": [error]}
        if self._running.get(name) is asyncio.current_task():
            self._forget(name)
        await self._send(last)

    async def _results(self, name: str, payload: dict[str, Any], viewer: Viewer) -> dict[str, Any]:
        operations = self._transport.operations
        request = Request.of(payload)
        context, kind = operations.admit(request, viewer)
        if kind is OperationType.SUBSCRIPTION:
            return await self._subscribed(name, request, context)
        async with contextlib.aclosing(operations.results(request, context)) as results:
            async for result in results:
                if "data" not in result:
                    return {"id": name, "type": "error", "payload": result["errors"]}
                await self._send({"id": name, "type": "next", "payload": result})
        return {"id": name, "type": "complete"}

    async def _subscribed(self, name: str, request: Request, context: Context) -> dict[str, Any]:
        """What is encoded already gets the id of this operation; sent at once if the client reads."""
        head = b'{"id":' + orjson.dumps(name) + b',"type":"next","payload":'
        pushing = wire.pushing(self._socket.scope)
        push = None if pushing is None else lambda body: pushing(head + body + b"}")
        subscribed = self._transport.operations.subscribed(request, context, push)
        async with contextlib.aclosing(subscribed) as payloads:
            async for payload in payloads:
                if payload.refusal:
                    errors = orjson.loads(payload.body)["errors"]
                    return {"id": name, "type": "error", "payload": errors}
                await self._send_text((head + payload.body + b"}").decode())
        await asyncio.sleep(SECONDS_BEFORE_COMPLETE)
        return {"id": name, "type": "complete"}

    async def _complete(self, name: str) -> None:
        task = self._running.get(name)
        if task is not None:
            self._forget(name)
            task.cancel()

    def _forget(self, name: str) -> None:
        del self._running[name]
        if self._ended is not None:
            self._transport.streams.carry(self._ended, len(self._running))

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_text(orjson.dumps(message).decode())

    async def _send_text(self, text: str) -> None:
        async with self._sending:
            if self._socket.application_state is WebSocketState.CONNECTED:
                with contextlib.suppress(WebSocketDisconnect, OSError):
                    await self._socket.send_text(text)
                    return
        await asyncio.sleep(0)  # nobody listens any more: whoever ends the operations gets a turn

    async def _close(self, code: int, reason: str) -> None:
        async with self._sending:
            if self._socket.application_state is WebSocketState.CONNECTED:
                with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):
                    await self._socket.close(code, reason)

    async def _end_operations(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _echo(payload: dict[str, Any]) -> dict[str, Any]:
    try:
        orjson.dumps(payload)
    except TypeError:  # half a surrogate pair, or an integer past 64 bits
        raise Closing(4400, "A ping's payload has to be JSON that can be sent back") from None
    return {"type": "pong", "payload": payload}


def _id_of(message: dict[str, Any]) -> str:
    name = message.get("id")
    if not isinstance(name, str) or not name:
        raise Closing(4400, "An operation needs an id")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Closing(4400, "An operation's id has half of a surrogate pair") from None
    return name

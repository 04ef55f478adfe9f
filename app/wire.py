"""Connections on our terms: how long a peer may take over a request, or over reading what it is sent, how
much it may send before its key is known, and what it is told when it does not speak HTTP.

uvicorn waits for ever, and keeps what is not read.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from app import handshakes
from app.settings import Settings

SECONDS_FOR_OPEN_CONNECTIONS = 1
SECONDS_TO_PONG = 20.0
MAX_FRAGMENTS = (
    10_000  # of one WebSocket message: empty ones would fill the memory below every limit of bytes
)
ADMITTED = "carillon.admitted"  # an extension of a WebSocket's scope: call it once its key is known
# Another, of HTTP's scopes too: called with a message, or a piece of a body, it writes that at once, or says
# that it did not.
PUSH = "carillon.push"
_SENTENCES = {
    400: "This is no HTTP request.",
    501: "Bodies come with Content-Length or Transfer-Encoding: chunked, and in no other coding.",
}


class Config(uvicorn.Config):
    """How uvicorn serves the application."""

    def __init__(self, app: Starlette, settings: Settings) -> None:
        super().__init__(
            app,
            http=Http,
            ws=WebSocket,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=SECONDS_FOR_OPEN_CONNECTIONS,
            h11_max_incomplete_event_size=settings.max_header_bytes,
            ws_max_size=settings.max_body_bytes,
            ws_ping_interval=settings.heartbeat_seconds,
            ws_ping_timeout=SECONDS_TO_PONG,
            ws_per_message_deflate=False,  # 300 kB of state for each of thousands that wait
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        )
        self.settings = settings


class _Reader:
    """Cuts off a peer that takes nothing of what it is sent for a while: it would be kept for ever."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def expect(self) -> None:
        """It has to take something, from now on until `relax`."""
        if self._timer is None:
            self._left = self._transport.get_write_buffer_size()
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() < self._left:
            self.expect()
        else:
            self._transport.abort()

    def relax(self) -> None:
        """It has taken enough, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Connection(h11.Connection):
    """h11's, which by itself bounds a head only while it is incomplete."""

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self._max_head_bytes = max_head_bytes
        self.head_bytes = 0

    def next_event(self) -> Any:
        """The next event. Raises RemoteProtocolError (431) for a request whose head is too large, whether it
        is complete or not; `head_bytes` says how large."""
        if self.their_state is not h11.IDLE:
            return super().next_event()
        self.head_bytes = self._waiting()
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.head_bytes -= self._waiting()
            if self.head_bytes > self._max_head_bytes:
                raise h11.RemoteProtocolError("Head too large", error_status_hint=431)
        return event

    def given(self) -> int:
        """How large the head is, or what else was too long to be waited for any more."""
        return max(self.head_bytes, self._waiting())

    def _waiting(self) -> int:
        return len(self.trailing_data[0])


class _Watched(asyncio.BaseProtocol):
    """A connection whose peer has to read."""

    _reader: _Reader

    def pause_writing(self) -> None:
        """The peer is slow."""
        super().pause_writing()
        self._reader.expect()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        super().resume_writing()
        self._reader.relax()


class Http(_Watched, H11Protocol):
    """A connection that speaks HTTP."""

    config: Config

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self.conn = self._bounded = _Connection(config.settings.max_header_bytes)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a request, not for ever."""
        super().connection_made(transport)
        self._reader = _Reader(transport, self.config.settings.stalled_seconds)
        self._deadline: asyncio.TimerHandle | None = None
        self._silent = True
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._reader.relax()
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A request has to be complete a while after it began."""
        self._silent = False
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            self._await_request()
        else:
            self._cancel_deadline()

    def handle_events(self) -> None:
        """Lets the application push."""
        super().handle_events()
        if self.cycle is not None:
            extensions: dict[str, Any] = self.cycle.scope.setdefault("extensions", {})
            extensions.setdefault(PUSH, partial(self._push, self.cycle))

    def _push(self, cycle: RequestResponseCycle, body: bytes) -> bool:
        """Writes a piece of a body that has begun; False, and nothing is written, if earlier bytes wait."""
        if cycle is not self.cycle or cycle.disconnected or self.conn.our_state is not h11.SEND_BODY:
            return False
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            return False
        if self.conn.their_http_version != b"1.1":
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def _await_request(self) -> None:
        if self._deadline is None:
            seconds = self.config.settings.request_timeout_seconds
            self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self._silent:
            self._end()
            return
        seconds = self.config.settings.request_timeout_seconds
        sentence = f"The request did not come within {seconds:g} seconds."
        self._refuse(408, sentence, {"limit": seconds, "given": seconds})

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The WebSocket's protocol takes over, if its library can read the request at all: it does not answer
        what it cannot."""
        self._cancel_deadline()
        headers = dict(self.headers)
        if large := handshakes.too_large(event.target, self.headers):
            self._refuse(431, *large)
        elif b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
            self._refuse(400, "A WebSocket's handshake has no body.")
        else:
            super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Says what h11 found wrong, in JSON like every other refusal."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if status != 431:
            self._refuse(status, _SENTENCES.get(status, _SENTENCES[400]))
            return
        limit = self.config.settings.max_header_bytes
        sentence = f"The request's first line and headers have more than {limit:,} bytes, which is the limit."
        self._refuse(status, sentence, {"limit": limit, "given": self._bounded.given()})

    def _refuse(self, status: int, sentence: str, details: Mapping[str, float] | None = None) -> None:
        """Answers, unless an answer has begun, and closes. `details` are of a limit."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = handshakes.errors("LIMIT_EXCEEDED" if details else "INVALID_INPUT", sentence, details)
            headers = [("content-type", handshakes.JSON), ("connection", "close")]
            for event in (
                h11.Response(
                    status_code=status,
                    reason=HTTPStatus(status).phrase,
                    headers=[*headers, ("content-length", str(len(body)))],
                ),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._end()

    def _end(self) -> None:
        """Closes the connection; whoever still works for it hears that nobody listens."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._reader.expect()

    def on_response_complete(self) -> None:
        """What is closed has to be taken too."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._reader.expect()

    def timeout_keep_alive_handler(self) -> None:
        """What is closed has to be taken too."""
        super().timeout_keep_alive_handler()
        self._reader.expect()


class WebSocket(_Watched, WebSocketsSansIOProtocol):
    """A connection that speaks WebSocket."""

    config: Config

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self.conn = handshakes.Handshake(
            max_size=config.settings.max_body_bytes_without_key, logger=logging.getLogger("uvicorn.error")
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Watches what is read: while anything waits, nothing more is sent."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=0)
        self._reader = _Reader(self.transport, self.config.settings.stalled_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._reader.relax()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Lets the application say when messages may be large, and push what is encoded."""
        super().handle_connect(event)
        if not self.handshake_complete:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[ADMITTED] = self._admit
            extensions[PUSH] = self.push

    async def send(self, message: Any) -> None:
        """What the application says. A handshake that it refused is complete: uvicorn would miss its end."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def _admit(self) -> None:
        self.conn.max_message_size = self.config.ws_max_size

    def push(self, text: bytes) -> bool:
        """Writes a message that is text in UTF-8 already; False, and nothing is written, while earlier bytes
        wait or once the connection is being closed."""
        if self.close_sent or not self.writable.is_set() or self.transport.is_closing():
            return False
        if self.conn.state is not State.OPEN:
            return False
        self.transport.write(_head_of(len(text)) + text)
        return True

    def handle_ping(self) -> None:
        """Answers, unless earlier answers are not read."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """A message comes in a bounded number of pieces."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._fail(1009, "Too many fragments")

    def send_receive_event_to_app(self) -> None:
        """Text has to be UTF-8."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self._fail(1007, "Text has to be UTF-8")
        else:
            super().send_receive_event_to_app()

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The peer has a while to take what was said last."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._reader.expect()


def _head_of(length: int) -> bytes:
    """The head of a server's final text frame (RFC 6455, 5.2), without compression."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def _is_utf8(pieces: list[bytes]) -> bool:
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False
    return True


def admitted(scope: Any) -> None:
    """Tells a WebSocket's connection that its key is known: from now on messages may be large."""
    told: Callable[[], None] | None = scope.get("extensions", {}).get(ADMITTED)
    if told is not None:
        told()


def pushing(scope: Any) -> Callable[[bytes], bool] | None:
    """What writes a message to a WebSocket, or a piece of a body, at once, if the connection can do that."""
    push: Callable[[bytes], bool] | None = (scope.get("extensions") or {}).get(PUSH)
    return push

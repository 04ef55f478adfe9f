"""The server's connections: they write a shared frame at once, and end when a client has stopped reading.

A client that does not read leaves bytes here. Nothing is added to them (a WebSocket takes nothing more until
all are gone), and if for half a minute not one of them goes, the connection is cut.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

SECONDS_WITHOUT_READING = 30.0
PUSH = "carillon.push"  # the key in a scope's extensions; the value: (text, encoded) -> whether it is written
_FINAL_TEXT = b"\x81"


class _Patience:
    """Cuts a connection whose waiting bytes do not get fewer."""

    seconds: ClassVar[float] = SECONDS_WITHOUT_READING

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Bytes wait."""
        self.end()
        self._waiting = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self.seconds, self._look)

    def end(self) -> None:
        """None wait any more, or the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._waiting:
            self.begin()
        else:
            self._transport.abort()


class HttpConnection(H11Protocol):
    """HTTP, event streams too."""

    def connection_made(self, transport: Any) -> None:
        """Begins."""
        super().connection_made(transport)
        self._patience = _Patience(transport)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._patience.begin()

    def resume_writing(self) -> None:
        """It does again."""
        self._patience.end()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._patience.end()
        super().connection_lost(exc)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket, without compression: what is shared is encoded once for all."""

    def connection_made(self, transport: Any) -> None:
        """Begins."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._patience = _Patience(transport)

    def handle_connect(self, event: Request) -> None:
        """Lets the application push."""
        super().handle_connect(event)
        if not self.conn.extensions and hasattr(self, "scope"):
            extensions: dict[str, Any] = {**(self.scope["extensions"] or {}), PUSH: self.push}
            self.scope["extensions"] = extensions

    def push(self, text: bytes) -> bool:
        """Writes a message that is text in UTF-8; False, and nothing is written, while earlier bytes wait or
        when the connection is closing."""
        if (
            not self.writable.is_set()
            or self.close_sent
            or self.conn.state is not State.OPEN
            or self.transport.is_closing()
        ):
            return False
        self.transport.write(_head(len(text)) + text)
        return True

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._patience.begin()

    def resume_writing(self) -> None:
        """It does again."""
        self._patience.end()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._patience.end()
        super().connection_lost(exc)


def _head(length: int) -> bytes:
    """The head of a final, unmasked text frame (RFC 6455, 5.2)."""
    if length < 126:
        return _FINAL_TEXT + bytes((length,))
    if length < 65_536:
        return _FINAL_TEXT + b"\x7e" + length.to_bytes(2, "big")
    return _FINAL_TEXT + b"\x7f" + length.to_bytes(8, "big")

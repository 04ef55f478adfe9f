"""Bytes on a connection, as no well-behaved client sends them."""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.api.conftest import PATIENCE

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Raw:
    """A connection that sends and reads bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Sends, unless the server has gone."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything that comes until the server closes."""
        found = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(65_536), PATIENCE):
                found += piece
        return bytes(found)

    async def answer(self) -> tuple[int, Any]:
        """Status and JSON body of the one answer before the server closes; 0 if it just closes."""
        head, _, body = (await self.rest()).partition(b"\r\n\r\n")
        return (int(head.split()[1]), json.loads(body)) if head else (0, None)

    async def closed_with(self) -> int:
        """The code of the frame that closes a WebSocket; 0 if there is none."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, size = await asyncio.wait_for(self.reader.readexactly(2), PATIENCE)
                if size == 126:
                    (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(size)
                if first & 0xF == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        return 0


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Raw]:
    """A connection to a server."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def upgraded(address: str, **headers: str) -> AsyncIterator[Raw]:
    """A WebSocket."""
    wanted = {
        "host": urlsplit(address).netloc,
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(b"x" * 16).decode(),
        "sec-websocket-protocol": "graphql-transport-ws",
        **headers,
    }
    async with connected(address) as raw:
        lines = ["GET /graphql HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items())]
        await raw.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        yield raw


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A frame as clients send it."""
    size = len(payload)
    if size < 126:
        length = struct.pack("!B", 0x80 | size)
    elif size < 65_536:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    return bytes([opcode | (0x80 if last else 0)]) + length + b"\0\0\0\0" + payload


def text(message: Any) -> bytes:
    """A frame with a message as JSON."""
    return frame(TEXT, json.dumps(message).encode())

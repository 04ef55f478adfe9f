"""A proxy before PostgreSQL whose connections can be cut: at any moment, or right behind a COMMIT."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from pathlib import Path

_READ = 1 << 16
_COMMIT = b"Q\0\0\0\x0bCOMMIT\0"  # what psycopg sends: a simple query
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST, with nothing delivered any more


class Proxy:
    """Listens on a port of 127.0.0.1 and passes everything on to the server's Unix socket, in a thread."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._commits_to_lose = 0
        self.commits_lost = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> int:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self._server))
        except OSError:  # the server is away, and so are we
            _reset(writer)
            return
        pair = (writer, server_writer)
        self._connections.add(pair)
        passing = [
            asyncio.ensure_future(self._pass(reader, server_writer, pair, asking=True)),
            asyncio.ensure_future(self._pass(server_reader, writer, pair, asking=False)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the end of the proxy is no fault to be logged
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(pair)
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
            for each in pair:
                each.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        asking: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ):
                writer.write(data)
                await writer.drain()
                if asking and self._commits_to_lose and data.endswith(_COMMIT):
                    self._commits_to_lose -= 1
                    self.commits_lost += 1
                    _reset(pair[0])
                    return

    def cut(self, share: float = 1.0) -> int:
        """Cuts every connection now, or a random share of them, in both directions; returns how many."""
        return asyncio.run_coroutine_threadsafe(self._cut(share), self._loop).result()

    async def _cut(self, share: float) -> int:
        pairs = [pair for pair in self._connections if random.random() < share]
        for client, server in pairs:
            _reset(client)
            server.transport.abort()
        return len(pairs)

    def lose_answers(self, commits: int) -> None:
        """Cuts the connections of the next so many transactions once their COMMIT has been passed on: it
        commits, and whoever asked for it never knows."""
        self._commits_to_lose = commits

    def close(self) -> None:
        """Cuts everything and listens no more."""

        async def end() -> None:
            self._listening.close()
            await self._cut(1.0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

"""The socket that the API listens on."""

import asyncio
import socket

from app import instance
from tests.acceptance.instances import free_port


async def test_what_is_sent_to_a_client_does_not_wait_for_more() -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    listening = instance.listen("127.0.0.1", free_port())

    async with await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listening):
        _, client = await asyncio.open_connection(*listening.getsockname())
        server = await accepted.get()
        connection = server.get_extra_info("socket")

        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()
        server.close()

"""A customer's server, as tests of webhooks see it: real HTTP on 127.0.0.1, and what arrived there."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook

from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Post:
    """What arrived: one attempt."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float  # by time.monotonic()

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    @property
    def told(self) -> Any:
        """The body."""
        return orjson.loads(self.body)

    def verified(self, secret: str) -> Any:
        """The body, verified by the published library; it raises if the signature is not by this secret."""
        return Webhook(secret).verify(self.body, dict(self.headers))


Answer = Callable[[Post], Awaitable[web.StreamResponse]]


async def _accept(_: Post) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """A server whose answers are scripted: `answer` is called for each post."""

    answer: Answer = _accept
    posts: list[Post] = field(default_factory=list)
    url: str = ""
    in_flight: int = 0
    most_in_flight: int = 0

    def answers(self, *statuses: int, headers: Mapping[str, str] | None = None) -> None:
        """Gives these statuses in turn, and the last one ever after."""
        left = list(statuses)

        async def scripted(_: Post) -> web.StreamResponse:
            status = left.pop(0) if len(left) > 1 else left[0]
            return web.Response(status=status, headers=headers)

        self.answer = scripted

    @property
    def ids(self) -> list[str]:
        """The webhook-ids as they arrived."""
        return [post.id for post in self.posts]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        post = Post(request.path, request.headers.copy(), await request.read(), time.monotonic())
        self.posts.append(post)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.answer(post)
        finally:
            self.in_flight -= 1


@contextlib.asynccontextmanager
async def receiving(receiver: Receiver | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens; `url` is where."""
    receiver = receiver or Receiver()
    app = web.Application(client_max_size=50_000_000)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{port}/hooks"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def talking(
    conversation: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that says what it likes, byte by byte; gives its URL."""

    talks = set[asyncio.Task[Any]]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await conversation(reader, writer)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            talks.discard(task)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await asyncio.sleep(0)


def allowing(**given: Any) -> Settings:
    """Settings under which servers of this machine may be posted to."""
    return Settings(
        **{
            "webhook_allow_http": True,
            "webhook_allowed_networks": "127.0.0.0/8",
            "webhook_timeout_seconds": 60,  # who is to be too slow is given a second
            **given,
        }
    )

"""The API's process: uvicorn with our application, on our terms."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from app import instance, valkey
from app.child import LISTEN_FD
from app.exits import explained
from app.main import create_app
from app.settings import Settings, load
from app.wire import Config

SECONDS_BETWEEN_DATES = 1.0  # answers carry the time


def main() -> None:
    """Serves the API as the settings say until SIGTERM or SIGINT; open connections, subscriptions too,
    get a second to end."""
    with explained():
        settings = load()
        redis_url = valkey.url_for(settings)
        listening = _listening(settings)
    # A page of 10,000 makes 60,000 objects that live until it is sent: looking at them again and again took a
    # tenth of its time.
    gc.set_threshold(100_000, 20, 100)
    # uvicorn raises the signal again once it has shut down; having been told to stop is a success.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    _allow_many_connections()
    app = create_app(settings, redis_url)
    Server(app, Config(app, settings)).run(sockets=[listening])


def _allow_many_connections() -> None:
    """As many open files as we may have: each connection is one, and many systems begin with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server(uvicorn.Server):
    """uvicorn, which ends open subscriptions before it waits for connections to close."""

    def __init__(self, app: Starlette, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = asyncio.Event()

    async def main_loop(self) -> None:
        """Until a signal says stop. uvicorn looks ten times a second whether one came: most of what an API
        cost that nobody asked for anything."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signalled.wait(), SECONDS_BETWEEN_DATES)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a signal, and ends the wait for it."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._signalled.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops within a moment, however many subscriptions are open."""
        self._app.state.streams.stop()
        await super().shutdown(sockets)


def _listening(settings: Settings) -> socket.socket:
    """The supervisor's socket, which outlives us so that clients wait while we are started again; or ours."""
    if inherited := os.environ.get(LISTEN_FD):
        return socket.socket(fileno=int(inherited))
    return instance.listen(settings.host, settings.port)

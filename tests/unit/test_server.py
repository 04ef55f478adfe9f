"""The API's server between requests: it sleeps, and a signal ends that at once."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from app import server as program
from app.server import Server
from app.settings import Settings
from app.wire import Config


@pytest.fixture
def server() -> Iterator[Server]:
    """One that SIGUSR1 stops."""
    app = Starlette()
    made = Server(app, Config(app, Settings()))
    before = signal.signal(signal.SIGUSR1, made.handle_exit)
    yield made
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("seconds", [0.0, 0.2])
async def test_a_signal_ends_the_wait(
    server: Server, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(program, "SECONDS_BETWEEN_DATES", 3_600)
    asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(server.main_loop(), 60)


async def test_so_does_one_that_came_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SECONDS_BETWEEN_DATES", 3_600)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(server.main_loop(), 60)


async def test_answers_carry_the_time_of_this_second(server: Server) -> None:
    running = asyncio.create_task(server.main_loop())
    dates = set[bytes]()
    async with asyncio.timeout(60):
        while len(dates) < 3:
            await asyncio.sleep(0.05)
            dates.add(dict(server.server_state.default_headers)[b"date"])
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(running, 60)

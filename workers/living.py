"""How workers and deliverers show that they live: to the supervisor by a file, to others by a heartbeat."""

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import heartbeats
from app.child import HEARTBEAT_FILE, NAME
from app.ending import end
from app.heartbeats import Role

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0
STUCK_SECONDS = 30.0  # far more than the slowest turn; the supervisor then starts the process anew


def collect_rarely() -> None:
    """A batch makes 100,000 short-lived objects and no cycles: looking for those less often saves a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def unique_name(role: Role) -> str:
    """A name for this process. (Supervisors of several machines give the same names, and containers the same
    process ids.)"""
    return f"{os.environ.get(NAME) or role}@{socket.gethostname()}:{os.getpid()}"


class Ended(Exception):
    """A loop that runs for as long as its process lives ended before: the process is to be started anew."""


async def until_stopped(stopping: asyncio.Event, seconds: float, *loops: Coroutine[Any, Any, None]) -> None:
    """Runs the loops; `seconds` after the stop those still at it are cancelled, which rolls back. If one ends
    by itself the others are stopped as well, and `Ended` is raised: of a process that lives and does nothing
    nobody would know."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    ended = not stopping.is_set()
    stopping.set()
    _, late = await asyncio.wait(tasks, timeout=seconds)
    await end(*late)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if ended:
        raise Ended from next((each for each in results if each is not None), None)


class Pulse:
    """Touches the heartbeat file every second, from a thread: a slow statement holds the event loop up, which
    is no reason to be killed. It stops when the process is stopped, or when the loop or a turn is stuck."""

    def __init__(self, is_stuck: Callable[[], bool]) -> None:
        self._is_stuck = is_stuck
        self._ticked_at = time.monotonic()

    def start(self) -> None:
        """Begins, if a supervisor wants to know."""
        if path := os.environ.get(HEARTBEAT_FILE):
            threading.Thread(target=self._beat, args=(Path(path),), name="pulse", daemon=True).start()

    async def show(self, redis_url: str, role: Role, name: str, at_work: Callable[[], int]) -> None:
        """Shows for ever, every second, that this process lives, and on how many things it works."""
        async with Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1) as redis:
            while True:
                self._ticked_at = time.monotonic()
                try:
                    await heartbeats.beat(redis, name, at_work(), role)
                except (RedisError, OSError) as error:
                    log.debug("heartbeat not shown", error=str(error))
                await asyncio.sleep(HEARTBEAT_SECONDS)

    def _beat(self, file: Path) -> None:
        while True:
            if not self._is_stuck() and time.monotonic() - self._ticked_at < STUCK_SECONDS:
                file.touch()
            time.sleep(HEARTBEAT_SECONDS)

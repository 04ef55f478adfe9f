"""The sending loops of a worker, and the job that wakes it."""

import asyncio
import time
from typing import Any

import structlog

from app.sending.engine import IDLE_SECONDS, Engine
from workers.living import STUCK_SECONDS

log = structlog.get_logger(__name__)


class Lane:
    """Runs an engine's turns one after the other; sleeps while there is nothing to do. One that `watches`
    looks by itself whether there is something again; the others are roused by it."""

    def __init__(self, engine: Engine, watches: bool) -> None:
        self._engine = engine
        self._watches = watches
        self._bell = asyncio.Event()
        self._turn_began: float | None = None

    def wake(self) -> None:
        """There may be work: look now."""
        self._bell.set()

    @property
    def stuck(self) -> bool:
        """Whether the turn in hand has lasted longer than any turn can."""
        return self._turn_began is not None and time.monotonic() - self._turn_began > STUCK_SECONDS

    async def run(self, stopping: asyncio.Event) -> None:
        """Turns until `stopping` is set."""
        while not stopping.is_set():
            self._bell.clear()
            await self._sleep(await self._turn())
        self._engine.rouse()  # who does not watch does not see that it is to stop

    async def _turn(self) -> float:
        self._turn_began = time.monotonic()
        try:
            return await self._engine.turn()
        except Exception as error:  # the database is away: every campaign waits, the worker stays
            log.warning("no work could be looked up", error=str(error))
            return IDLE_SECONDS
        finally:
            self._turn_began = None

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        longest = IDLE_SECONDS if self._watches or not self._engine.is_idle else None
        try:
            await asyncio.wait_for(self._bell.wait(), longest and min(seconds, longest))
        except TimeoutError:
            return


class SendingLoop:
    """An engine at work in so many lanes: batches that are in hand at once."""

    def __init__(self, engine: Engine, lanes: int = 1) -> None:
        self.engine = engine
        self._lanes = [Lane(engine, watches=number == 0) for number in range(lanes)]
        engine.rouse = self.wake

    def wake(self) -> None:
        """There may be work: look now."""
        for lane in self._lanes:
            lane.wake()

    @property
    def stuck(self) -> bool:
        """Whether a lane is, in a turn that lasts longer than any can."""
        return any(lane.stuck for lane in self._lanes)

    async def run(self, stopping: asyncio.Event) -> None:
        """Turns until `stopping` is set; the batches in hand are finished first. Cancelled, it gives them
        back untried."""
        self.engine.stopping = stopping
        try:
            await asyncio.gather(*(lane.run(stopping) for lane in self._lanes))
        finally:
            await self.engine.let_go()


async def send(ctx: dict[str, Any]) -> None:
    """Job: something started, resumed, or is to start or stop at another time."""
    wake(ctx)


def wake(ctx: dict[str, Any]) -> None:
    """Has this worker look at what there is to do."""
    for sleeper in (ctx["sending"], ctx["housekeeping"]):
        sleeper.wake()

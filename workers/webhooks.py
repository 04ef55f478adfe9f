"""The deliverer process: it posts to webhook endpoints, and does nothing else.

A process of its own, since a busy event loop beside the sender would take nearly all of its speed (SQLite
hands the interpreter's lock over at every row).
"""

import asyncio
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from app import valkey
from app.database import Database, is_infrastructure
from app.ending import end
from app.exits import explained
from app.settings import Settings, load
from app.webhooks.deliverer import Deliverer
from app.webhooks.posting import Poster
from app.webhooks.service import MAX_ENDPOINTS
from workers.living import STUCK_SECONDS, Pulse, collect_rarely, unique_name, until_stopped

log = structlog.get_logger(__name__)

SECONDS_TO_FINISH = 2.5  # the supervisor kills after three
SECONDS_AFTER_FAULT = 0.5
FILES_FOR_THE_REST = 100


def main() -> None:
    """Delivers until SIGTERM or SIGINT; posts in flight get a moment to end, the others are given back."""
    with explained():
        settings = load()
        redis_url = valkey.url_for(settings)
    collect_rarely()
    asyncio.run(_work(_within_limits(settings), redis_url))


def _within_limits(settings: Settings) -> Settings:
    """The settings, with no more connections than this process may have open: or one endpoint that does not
    answer could keep others from being reached."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY:
        return settings
    each = max(1, (most - FILES_FOR_THE_REST) // MAX_ENDPOINTS)
    return settings.model_copy(update={"webhook_connections": min(settings.webhook_connections, each)})


async def _work(settings: Settings, redis_url: str) -> None:
    stopping = asyncio.Event()
    # One thread for each name that may be looked up at once: a name server that hangs delays nobody else.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * MAX_ENDPOINTS))
    name = unique_name("deliverer")
    # Durable: what a post tells of must not be taken back by a power cut.
    database = Database(settings.database, inline=True, pool_size=2)
    async with Poster(settings) as poster:
        loop = DeliveringLoop(Deliverer(database, poster, settings, name))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, loop.stop, stopping)
        pulse = Pulse(lambda: loop.stuck)
        pulse.start()
        health = asyncio.create_task(
            pulse.show(redis_url, "deliverer", name, lambda: loop.deliverer.posting_to)
        )
        log.info("deliverer ready", deliverer=name)
        try:
            await until_stopped(stopping, SECONDS_TO_FINISH, loop.run(stopping))
        finally:
            await end(health)
            await database.close()


class DeliveringLoop:
    """Runs a deliverer's turns one after the other; sleeps while there is nothing to do."""

    def __init__(self, deliverer: Deliverer) -> None:
        self.deliverer = deliverer
        self._turn_began: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether the turn in hand has lasted longer than any turn can."""
        return self._turn_began is not None and time.monotonic() - self._turn_began > STUCK_SECONDS

    def stop(self, stopping: asyncio.Event) -> None:
        """Ends `run` after the turn in hand."""
        stopping.set()
        self.deliverer.wake()

    async def run(self, stopping: asyncio.Event) -> None:
        """Turns until `stopping` is set, and gives back what it holds."""
        while not stopping.is_set():
            await self.deliverer.wait(await self._turn())
        await self.deliverer.close()

    async def _turn(self) -> float:
        self._turn_began = time.monotonic()
        try:
            return await self.deliverer.turn()
        except Exception as error:  # the database is away: nothing new is posted meanwhile
            if is_infrastructure(error):
                log.warning("database fault; delivering waits", error=str(error))
            else:
                log.exception("a turn of delivering failed")
            return SECONDS_AFTER_FAULT
        finally:
            self._turn_began = None


if __name__ == "__main__":
    main()

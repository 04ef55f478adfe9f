"""The worker process: a sending loop, housekeeping, and arq's ear for whoever rings.

Only the ear needs the queue. While that is away, the others go on by what the rows say.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import heartbeats, valkey
from app.child import HEARTBEAT_FILE, NAME
from app.database import Database
from app.exits import explained
from app.progress import Publisher
from app.queue import QUEUE, Job, deserialize, redis_settings, serialize
from app.sending.engine import Engine
from app.settings import Settings, load
from workers.housekeeping import Housekeeping
from workers.segments import count_segments
from workers.sending import STUCK_SECONDS, SendingLoop, send

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 1.0
QUEUE_RETRY_SECONDS = 1.0
POLL_SECONDS = 0.05  # how often arq looks; 20 looks a second cost 0.5% of a core
SECONDS_TO_FINISH = 2.5  # the supervisor kills after three


def main() -> None:
    """Works until SIGTERM or SIGINT; the batch in hand is finished first."""
    with explained():
        settings = load()
        redis_url = valkey.url_for(settings)
    # A batch makes 100,000 short-lived objects and no cycles: looking for cycles less often saves a tenth.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    asyncio.run(_work(settings, redis_url))


async def _work(settings: Settings, redis_url: str) -> None:
    stopping = asyncio.Event()
    database = Database(settings.database, durable=False, inline=True, pool_size=4)
    publisher = Publisher(redis_url)
    sending = SendingLoop(
        Engine(database, publisher, settings.messages_per_second, settings.monthly_messages)
    )
    housekeeping = Housekeeping(settings, database, publisher, sending)

    def stop() -> None:
        stopping.set()
        sending.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    # Supervisors of several machines give the same names, and containers the same process ids.
    name = f"{os.environ.get(NAME) or 'worker'}@{socket.gethostname()}:{os.getpid()}"
    ear = asyncio.create_task(_listen(redis_url, {"sending": sending, "database": database}))
    pulse = Pulse(sending)
    pulse.start()
    health = asyncio.create_task(_show_health(redis_url, name, pulse))
    log.info("worker ready", worker=name)
    try:
        await _until_stopped(stopping, sending.run(stopping), housekeeping.run(stopping))
    finally:
        ear.cancel()
        health.cancel()
        await asyncio.gather(ear, health, return_exceptions=True)
        await publisher.close()
        await database.close()


async def _until_stopped(stopping: asyncio.Event, *loops: Coroutine[Any, Any, None]) -> None:
    """Runs the loops; past `SECONDS_TO_FINISH` after the stop they are cancelled, which rolls back."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    await stopping.wait()
    _, late = await asyncio.wait(tasks, timeout=SECONDS_TO_FINISH)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(redis_url: str, ctx: dict[str, Any]) -> None:
    """arq's worker, started again whenever the queue comes back."""
    while True:
        worker = Worker(
            functions=[
                func(send, name=Job.SEND, max_tries=1, timeout=10, keep_result=0),
                func(count_segments, name=Job.COUNT_SEGMENTS, max_tries=1, timeout=600, keep_result=0),
            ],
            queue_name=QUEUE,
            redis_settings=redis_settings(redis_url),
            job_serializer=serialize,
            job_deserializer=deserialize,
            handle_signals=False,
            poll_delay=POLL_SECONDS,
            health_check_interval=3600,
            ctx=ctx,
        )
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            await worker.close()
            raise
        except Exception as error:
            log.warning("queue is away; working by the rows", error=str(error))
        await asyncio.sleep(QUEUE_RETRY_SECONDS)


async def _show_health(redis_url: str, name: str, pulse: "Pulse") -> None:
    """Shows that this worker lives: to the supervisor by a file, to all others by its heartbeat."""
    async with Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1) as redis:
        while True:
            pulse.ticked_at = time.monotonic()
            try:
                await heartbeats.beat(redis, name, pulse.sending.engine.campaigns_at_work())
            except (RedisError, OSError) as error:
                log.debug("heartbeat not shown", error=str(error))
            await asyncio.sleep(HEARTBEAT_SECONDS)


class Pulse:
    """Touches the heartbeat file every second, from a thread: a slow statement holds the event loop up, which
    is no reason to be killed. It stops when the process is stopped, or when the loop or a turn is stuck."""

    def __init__(self, sending: SendingLoop) -> None:
        self.sending = sending
        self.ticked_at = time.monotonic()

    def start(self) -> None:
        """Begins, if a supervisor wants to know."""
        if path := os.environ.get(HEARTBEAT_FILE):
            threading.Thread(target=self._beat, args=(Path(path),), name="pulse", daemon=True).start()

    def _beat(self, file: Path) -> None:
        while True:
            if not self.sending.stuck and time.monotonic() - self.ticked_at < STUCK_SECONDS:
                file.touch()
            time.sleep(HEARTBEAT_SECONDS)


if __name__ == "__main__":
    main()

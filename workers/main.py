"""The worker process: a sending loop, housekeeping, and arq's ear for whoever rings.

Only the ear needs the queue. While that is away, the others go on by what the rows say.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

import structlog
from arq.worker import Worker, func

from app import valkey
from app.database import Database
from app.ending import end
from app.exits import explained
from app.hearing import hear
from app.progress import Publisher
from app.queue import BELL, FOR_EVERYBODY, QUEUE, Job, deserialize, redis_settings, serialize
from app.sending.engine import Engine
from app.settings import Settings, load
from workers.housekeeping import Housekeeping
from workers.living import Pulse, collect_rarely, unique_name, until_stopped
from workers.segments import count_segments
from workers.sending import SendingLoop, send, wake

log = structlog.get_logger(__name__)

QUEUE_RETRY_SECONDS = 1.0
POLL_SECONDS = 1.0  # how often arq looks if it hears nothing; ten looks a second cost 0.6% of a core
OTHER_CONNECTIONS = 3  # of housekeeping, which counts two segments at once
SECONDS_TO_FINISH = 2.5  # the supervisor kills after three


def main() -> None:
    """Works until SIGTERM or SIGINT; the batch in hand is finished first."""
    with explained():
        settings = load()
        redis_url = valkey.url_for(settings)
    collect_rarely()
    asyncio.run(_work(settings, redis_url))


async def _work(settings: Settings, redis_url: str) -> None:
    stopping = asyncio.Event()
    lanes = settings.lanes
    database = Database(settings.database, durable=False, inline=True, pool_size=OTHER_CONNECTIONS + lanes)
    publisher = Publisher(redis_url)
    engine = Engine(database, publisher, settings.messages_per_second, settings.monthly_messages)
    sending = SendingLoop(engine, lanes)
    housekeeping = Housekeeping(settings, database, publisher, sending)

    def stop() -> None:
        stopping.set()
        sending.wake()
        housekeeping.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    name = unique_name("worker")
    ctx = {"sending": sending, "housekeeping": housekeeping, "database": database}
    rung = asyncio.Event()
    ears = asyncio.gather(listen(redis_url, ctx, rung), hear_bell(redis_url, ctx, rung.set))
    pulse = Pulse(lambda: sending.stuck)
    pulse.start()
    health = asyncio.create_task(pulse.show(redis_url, "worker", name, engine.campaigns_at_work))
    log.info("worker ready", worker=name)
    try:
        await until_stopped(stopping, SECONDS_TO_FINISH, sending.run(stopping), housekeeping.run(stopping))
    finally:
        await end(ears, health)
        await publisher.close()
        await database.close()


async def hear_bell(redis_url: str, ctx: dict[str, Any], look: Callable[[], None] = lambda: None) -> None:
    """A campaign is everybody's work, and a job of arq wakes one worker. `look` is called when there is a job
    that one of them is to take."""

    def heard(job: bytes) -> None:
        if job.decode() in FOR_EVERYBODY:
            wake(ctx)
        else:
            look()

    await hear(redis_url, BELL, heard, missed=lambda: None)


class Ear(Worker):
    """arq's worker, which looks when it is `rung` for, and every second in case nobody heard that."""

    rung: asyncio.Event

    async def _poll_iteration(self) -> None:
        self.rung.clear()
        await super()._poll_iteration()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.rung.wait(), POLL_SECONDS)


async def listen(redis_url: str, ctx: dict[str, Any], rung: asyncio.Event) -> None:
    """arq's worker, started again whenever the queue comes back."""
    while True:
        worker = Ear(
            functions=[
                func(send, name=Job.SEND, max_tries=1, timeout=10, keep_result=0),
                func(count_segments, name=Job.COUNT_SEGMENTS, max_tries=1, timeout=600, keep_result=0),
            ],
            queue_name=QUEUE,
            redis_settings=redis_settings(redis_url),
            job_serializer=serialize,
            job_deserializer=deserialize,
            handle_signals=False,
            poll_delay=0,  # it waits by itself
            health_check_interval=3600,
            ctx=ctx,
        )
        worker.rung = rung
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            await worker.close()
            raise
        except Exception as error:
            log.warning("queue is away; working by the rows", error=str(error))
        await asyncio.sleep(QUEUE_RETRY_SECONDS)


if __name__ == "__main__":
    main()

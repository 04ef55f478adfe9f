"""Ending what runs in the background, for certain."""

import asyncio
from typing import Any

SECONDS_BETWEEN_CANCELLATIONS = 0.5  # what a task does to end in order may take a moment


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks, again and again until they have ended; how they did, nobody asks.

    One cancellation can be lost. redis-py takes one that comes at the same moment as its own time limit for
    that limit, which loops that go on when the queue is away survive: with the queue hanging, one of nine. A
    process that then waited for its heartbeat to end waited for ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=SECONDS_BETWEEN_CANCELLATIONS)
    await asyncio.gather(*tasks, return_exceptions=True)

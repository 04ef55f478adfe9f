"""Hearing what is published by the queue server, for as long as a process lives."""

import asyncio
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 0.5


async def hear(url: str, channel: str, heard: Callable[[bytes], None], missed: Callable[[], None]) -> None:
    """Calls `heard` with all that is published in this channel; reconnects while the queue is away, and then
    calls `missed`, for nobody keeps what is said meanwhile. Never returns: cancel it."""
    while True:
        try:
            await _hear(url, channel, heard)
        except (RedisError, OSError) as error:
            log.debug("nothing heard", channel=channel, error=str(error))
        missed()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _hear(url: str, channel: str, heard: Callable[[bytes], None]) -> None:
    async with Redis.from_url(url, socket_connect_timeout=2) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        async for message in pubsub.listen():
            if message["type"] == "message":
                heard(message["data"])

"""The doorbell: once a transaction has committed, whoever works is woken up. The rows are the job.

A ring is published, which all workers that sleep just now hear at once, and is a job of arq, which one of
them gets: at once too, or, if nobody listened, within a second of whoever listens again.

A ring may be lost, doubled or late; housekeeping finds whatever is due within two seconds. So a ring is
never waited for, never fails the caller, and never piles up: past `MAX_RINGS` waiting ones it is dropped.
"""

import asyncio
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

import orjson
import structlog
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, RedisError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import after_commit

log = structlog.get_logger(__name__)

QUEUE = "carillon:queue"
BELL = "carillon:bell"  # what is rung for, for all workers that listen just now
MAX_RINGS = 1_000
RING_EXPIRES = timedelta(seconds=30)


class Job(StrEnum):
    """What can be rung for; the worker has a function of each name."""

    SEND = "send"
    COUNT_SEGMENTS = "count_segments"


def redis_settings(url: str) -> RedisSettings:
    """arq's settings for `url`, patient: with arq's defaults a worker exits when Redis is away for 0.5 s.

    The URL is read as by everybody else who asks the queue: arq itself takes a `%40` in a password as it
    stands, stumbles over a slash at the end, and knows no `ssl_` options.
    """
    said: dict[str, Any] = dict(parse_url(url))
    known = {each.name for each in fields(RedisSettings) if each.name.startswith("ssl_")}
    return RedisSettings(
        host=said.get("host", "localhost"),
        port=said.get("port", 6379),
        unix_socket_path=said.get("path"),
        database=said.get("db", 0),
        username=said.get("username"),
        password=said.get("password"),
        ssl=url.startswith("rediss://"),
        **{name: said[name] for name in known & said.keys()},
        conn_timeout=2,
        conn_retries=3,
        conn_retry_delay=1,
        retry_on_timeout=True,
        retry_on_error=[ConnectionError, TimeoutError, OSError, BusyLoadingError],
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), 30),
    )


def serialize(job: dict[str, Any]) -> bytes:
    """A job as JSON: arq's pickle would let whoever reaches the queue run code."""
    return orjson.dumps(job, default=str)


def deserialize(job: bytes) -> dict[str, Any]:
    """The reverse of `serialize`."""
    loaded: dict[str, Any] = orjson.loads(job)
    return loaded


FOR_EVERYBODY = frozenset({Job.SEND})  # all workers begin when they hear of it, without a job


class Doorbell:
    """Rings the workers. Connects on the first ring; while the queue is away rings are lost, not awaited."""

    def __init__(self, url: str) -> None:
        self._settings = redis_settings(url)
        self._settings.conn_retries = 0
        self._settings.retry = None
        self._settings.retry_on_error = None
        self._pool: ArqRedis | None = None
        self._connecting = asyncio.Lock()

    async def ring(self, job: Job, *arguments: Any) -> None:
        """Wakes a worker for `job`, and all of them for what all can do. Never raises and takes a second at
        most."""
        try:
            async with asyncio.timeout(1):
                pool = await self._connected()
                if job in FOR_EVERYBODY:
                    await pool.publish(BELL, job)
                if await pool.zcard(QUEUE) < MAX_RINGS:
                    await pool.enqueue_job(job, *arguments, _queue_name=QUEUE, _expires=RING_EXPIRES)
                if job not in FOR_EVERYBODY:  # what one of them is to take must be there when they hear of it
                    await pool.publish(BELL, job)
        except (OSError, RedisError, TimeoutError) as error:
            log.warning("queue is away; housekeeping will find the work", job=job, error=str(error))

    def ring_after_commit(self, session: AsyncSession, job: Job, *arguments: Any) -> None:
        """Rings once the surrounding transaction has committed; forgets it on rollback."""
        after_commit(session, lambda: self.ring(job, *arguments))

    async def _connected(self) -> ArqRedis:
        async with self._connecting:
            if self._pool is None:
                self._pool = await create_pool(
                    self._settings,
                    job_serializer=serialize,
                    job_deserializer=deserialize,
                    default_queue_name=QUEUE,
                )
            return self._pool

    async def close(self) -> None:
        """Closes the connection."""
        if self._pool is not None:
            await self._pool.aclose()

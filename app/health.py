"""Whether this process can do its work: the database, its schema, the queue, and those who work."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import heartbeats, migrations
from app.database import Database
from app.heartbeats import Heartbeat
from app.webhooks import queries as webhooks

log = structlog.get_logger(__name__)

SECONDS_TO_ANSWER = 1.5


@dataclass(frozen=True, slots=True)
class Report:
    """What works, and the workers and deliverers that live."""

    database: bool
    queue: bool
    workers: tuple[Heartbeat, ...]


class Readiness:
    """Asks everything at once and answers within two seconds."""

    def __init__(self, database: Database, redis_url: str) -> None:
        self._database = database
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1)

    async def missing(self) -> dict[str, str]:
        """What is missing and what to do about it; empty when ready."""
        checks = {
            "database": self._check_database(),
            "migrations": self._check_migrations(),
            "queue": self._check_queue(),
            "worker": self._check_worker(),
            "deliverer": self._check_deliverer(),
        }
        sentences = await asyncio.gather(*(_bounded(name, check) for name, check in checks.items()))
        return {name: sentence for name, sentence in zip(checks, sentences, strict=True) if sentence}

    async def report(self) -> Report:
        """What works, asked now: the database with this program's schema, the queue, and which workers."""
        workers: list[Heartbeat] = []

        async def hear() -> None:
            workers.extend(await heartbeats.living(self._redis))

        checks = {
            "database": self._check_database(),
            "migrations": self._check_migrations(),
            "queue": self._check_queue(),
            "worker": hear(),
        }
        answers = await asyncio.gather(*(_bounded(name, check) for name, check in checks.items()))
        missing = dict(zip(checks, answers, strict=True))
        stored = missing["database"] is None and missing["migrations"] is None
        return Report(stored, missing["queue"] is None, tuple(workers))

    async def _check_database(self) -> str | None:
        async with self._database.read() as session:
            await session.execute(text("SELECT 1"))
        return None

    async def _check_migrations(self) -> str | None:
        async with self._database.read() as session:
            found = await session.execute(text("SELECT version_num FROM alembic_version"))
        try:
            migrations.verify(found.scalar_one_or_none())
        except (migrations.SchemaTooNew, migrations.SchemaOutdated) as error:
            return str(error)
        return None

    async def _check_queue(self) -> str | None:
        await self._redis.ping()
        return None

    async def _check_worker(self) -> str | None:
        lives = any(each.role == "worker" for each in await heartbeats.living(self._redis))
        return None if lives else "No worker is alive. Start one: carillon worker"

    async def _check_deliverer(self) -> str | None:
        """Missed only where there is a webhook endpoint, as far as the database can tell."""
        try:
            async with self._database.read() as session:
                if not await webhooks.listed(session):
                    return None
        except DBAPIError:
            return None
        lives = any(each.role == "deliverer" for each in await heartbeats.living(self._redis))
        return None if lives else "No deliverer is alive; webhooks wait. Start one: carillon deliver"

    async def close(self) -> None:
        """Closes the connection to the queue."""
        await self._redis.aclose()


async def _bounded(name: str, check: Awaitable[str | None]) -> str | None:
    """What `check` found missing; one that fails or hangs is a sentence too, without any address."""
    try:
        async with asyncio.timeout(SECONDS_TO_ANSWER):
            return await check
    except TimeoutError:
        return f"No answer within {SECONDS_TO_ANSWER} s."
    except Exception as error:
        log.debug("not ready", check=name, error=str(error))
        return "It cannot be reached, or refuses to answer; the log of this process at level debug says more."

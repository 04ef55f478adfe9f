"""Heartbeats: workers and deliverers, on whatever machines, show in the queue server that they live.

Each renews a key of its own every second, which expires when it dies; a set has their names, so that nobody
has to look through all keys.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

import orjson
from redis.asyncio import Redis

NAMES = "carillon:workers"
KEY = "carillon:worker:"
EXPIRES_SECONDS = 10

Role = Literal["worker", "deliverer"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A process that lives: its name, unique over all machines, what it is for, and for how many campaigns it
    writes messages, or to how many endpoints it posts."""

    name: str
    at: datetime
    sending: int
    role: Role = "worker"


async def beat(redis: Redis, name: str, sending: int, role: Role = "worker") -> None:
    """Shows that the process of this name lives."""
    state = {"at": datetime.now(UTC).isoformat(), "sending": sending, "role": role}
    async with redis.pipeline(transaction=False) as commands:
        commands.set(KEY + name, orjson.dumps(state), ex=EXPIRES_SECONDS)
        commands.sadd(NAMES, name)
        await commands.execute()


async def living(redis: Redis) -> list[Heartbeat]:
    """The processes that live, by name. The names of others are forgotten."""
    names = sorted(name.decode() for name in await cast(Awaitable[set[bytes]], redis.smembers(NAMES)))
    states = await redis.mget([KEY + name for name in names]) if names else []
    gone = [name for name, state in zip(names, states, strict=True) if state is None]
    if gone:  # one that only was held up is back with its next beat
        await cast(Awaitable[int], redis.srem(NAMES, *gone))
    return [
        _heartbeat(name, orjson.loads(state))
        for name, state in zip(names, states, strict=True)
        if state is not None
    ]


def _heartbeat(name: str, state: dict[str, str | int]) -> Heartbeat:
    role: Role = "deliverer" if state.get("role") == "deliverer" else "worker"
    return Heartbeat(name, datetime.fromisoformat(str(state["at"])), int(state["sending"]), role)

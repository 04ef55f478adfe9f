"""Wrong keys, by the address they come from: a key that a person made up is not found by trying."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any

MAX_ADDRESSES = 10_000
MAX_KNOWN = 10_000


class Guesses:
    """Each address may be wrong so many times a minute; what it tries beyond that is not looked at.

    A key that was right from an address stays welcome there, whatever else comes from it: behind a proxy that
    does not name its clients all of them share one. The tables are bounded; the oldest entries go.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and at which moment
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    def knows(self, address: str, secret_hash: str) -> bool:
        """Whether this key was right from there."""
        return (_source(address), secret_hash) in self._known

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Keys that nobody knows yet are looked up one after the other, so that a hundred at once are no more
        guesses than a hundred in a row, and right ones are none."""
        source = _source(address)
        lock = self._turns.setdefault(source, asyncio.Lock())
        self._waiting[source] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                del self._waiting[source], self._turns[source]

    def wait(self, address: str, secret_hash: str) -> float:
        """How many seconds this key has to wait; 0: it may be looked up."""
        left = self._left_to(_source(address))
        if left >= 1 or self.knows(address, secret_hash):
            return 0.0
        return (1 - left) * 60 / self._per_minute

    def right(self, address: str, secret_hash: str) -> None:
        """The key was right."""
        _keep(self._known, (_source(address), secret_hash), None, MAX_KNOWN)

    def wrong(self, address: str, secret_hash: str) -> None:
        """The key was wrong; one that was right before is revoked."""
        source = _source(address)
        self._known.pop((source, secret_hash), None)
        _keep(self._left, source, (self._left_to(source) - 1, time.monotonic()), MAX_ADDRESSES)

    def _left_to(self, source: str) -> float:
        left, at = self._left.get(source, (float(self._per_minute), 0.0))
        return min(left + (time.monotonic() - at) * self._per_minute / 60, float(self._per_minute))


@lru_cache(MAX_ADDRESSES)
def _source(address: str) -> str:
    """An IPv6 address stands for its /64: whoever has one has all of them."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(parsed.exploded[:19])


def _keep(kept: "OrderedDict[Any, Any]", key: Any, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)

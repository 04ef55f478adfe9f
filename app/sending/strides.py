"""How much of a batch one transaction takes: no more than lasts as long as it may. Pure.

A batch of 3,000 takes 30 ms on SQLite and 90 on PostgreSQL while the database is new; among millions of rows,
on a slow disk or beside much else it would keep pauses, other writers and other campaigns waiting for half a
second.
"""

from collections.abc import Collection

FEWEST = 200  # targets: what every transaction costs is felt with fewer
LEARNING = 0.5  # the share of what was measured last: a single slow disk write is no reason


class Strides:
    """For each campaign what a target took lately. A transaction that would last longer than `most` seconds
    is made to last `aim` seconds."""

    def __init__(self, most: float, aim: float) -> None:
        self._most = most
        self._aim = aim
        self._seconds: dict[int, float] = {}

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self._seconds = {number: each for number, each in self._seconds.items() if number in campaigns}

    def limit(self, campaign: int, pending: int) -> int | None:
        """How many of so many targets to take; None if all of them."""
        seconds = self._seconds.get(campaign, 0.0)
        if pending <= FEWEST or pending * seconds <= self._most:
            return None
        return max(FEWEST, int(self._aim / seconds))

    def learn(self, campaign: int, settled: int, seconds: float) -> None:
        """So many targets were settled in one transaction, which took so long."""
        if settled <= 0:
            return
        each = seconds / settled
        before = self._seconds.get(campaign, each)
        self._seconds[campaign] = before + LEARNING * (each - before)

"""How much of a batch one transaction takes: no more than lasts as long as it may. Pure.

A batch of 3,000 takes 30 ms on SQLite and 90 on PostgreSQL while the database is new; among millions of rows,
on a slow disk or beside much else it would keep pauses, other writers and other campaigns waiting for half a
second.
"""

from collections.abc import Collection

# What a transaction may last, alone and beside other campaigns: on PostgreSQL there is one in each lane.
LONGEST_SECONDS = {"sqlite": (0.1, 0.1), "postgresql": (0.25, 0.12)}
FEWEST = 200  # targets
LEARNING = 0.5  # the share of what was measured last: a single slow disk write is no reason
AIM = 0.6  # of the longest: what comes next may be slower
# What a transaction costs however few targets it takes, by what picking a batch takes: that has three round
# trips and a commit, the other one thirteen and a commit. Taken for a cost of the targets, a commit of 30 ms
# made slices ever smaller, and a campaign a quarter as fast.
PICKINGS = 4
FORGETTING = 1.1  # a picking that was quick counts for less with each one that is slower
LEAST_SHARE = 0.2  # of the time is the targets', whatever picking says


class Strides:
    """For each campaign what a target took lately. A transaction that would last longer than `longest`
    seconds, or than `beside_others` where other campaigns wait for their turn, takes fewer targets."""

    def __init__(self, longest: float, beside_others: float) -> None:
        self._longest = longest
        self._beside_others = beside_others
        self._picking: float | None = None
        self._seconds: dict[int, float] = {}

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self._seconds = {number: each for number, each in self._seconds.items() if number in campaigns}

    def limit(self, campaign: int, pending: int, *, alone: bool = True) -> int | None:
        """How many of so many targets to take; None if all of them. At least so many that they take as long
        as what the transaction costs without them."""
        seconds, longest = self._seconds.get(campaign), self._longest if alone else self._beside_others
        if seconds is None or pending <= FEWEST or self._fixed + pending * seconds <= longest:
            return None
        affordable = max(FEWEST, int(max(AIM * longest - self._fixed, self._fixed) / seconds))
        return affordable if affordable < pending else None

    def picked(self, seconds: float) -> None:
        """Picking a batch took so long."""
        self._picking = seconds if self._picking is None else min(seconds, FORGETTING * self._picking)

    def learn(self, campaign: int, settled: int, seconds: float) -> None:
        """So many targets were settled in one transaction, which took so long, its commit included."""
        if settled <= 0:
            return
        each = max(seconds - self._fixed, LEAST_SHARE * seconds) / settled
        before = self._seconds.get(campaign, each)
        self._seconds[campaign] = before + LEARNING * (each - before)

    @property
    def _fixed(self) -> float:
        return PICKINGS * (self._picking or 0.0)

"""Whose turn it is: campaigns that run at once get equal shares of a worker's time. Pure."""

from collections import Counter
from collections.abc import Collection


class Turns:
    """What each campaign has had of the worker's time. Who has had the least is next. One that comes new, or
    had nothing to do for a while, is level with whoever has had the least of those that were busy: it is next
    almost at once, and does not get what it did not use."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._busy: set[int] = set()
        self._level = 0.0
        self._in_hand = Counter[int]()
        self._ended_at: dict[int, int] = {}
        self.ended = 0  # how many turns have

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self._used = {number: used for number, used in self._used.items() if number in campaigns}
        self._busy.intersection_update(campaigns)
        self._ended_at = {number: at for number, at in self._ended_at.items() if number in campaigns}

    def place(self, campaign: int) -> tuple[int, float, float]:
        """What to sort by: those come first that no other lane has in hand; among equals those that have
        waited."""
        used = self._used.get(campaign, -1.0)
        return self._in_hand[campaign], max(used, self._level), used

    def begin(self, campaign: int) -> None:
        """A lane has it in hand, until the `end` of its turn."""
        self._in_hand[campaign] += 1

    def is_in_hand(self, campaign: int) -> bool:
        """Whether a lane has it in hand."""
        return self._in_hand[campaign] > 0

    def ended_after(self, campaign: int, ended: int) -> bool:
        """Whether a turn of it has ended since there were so many that had."""
        return self._ended_at.get(campaign, 0) > ended

    def end(self, campaign: int, seconds: float, *, busy: bool) -> None:
        """Its turn took so long; `busy`: and there is more to do at once."""
        self._in_hand -= Counter({campaign: 1})  # 0 is not kept
        self.ended += 1
        self._ended_at[campaign] = self.ended
        self._used[campaign] = self.place(campaign)[1] + seconds
        (self._busy.add if busy else self._busy.discard)(campaign)
        least = min((self._used[number] for number in self._busy), default=self._level)
        self._level = max(self._level, least)

"""Whose turn it is: campaigns that run at once get equal shares of a worker's time. Pure."""

from collections.abc import Collection


class Turns:
    """What each campaign has had of the worker's time. Who has had the least is next. One that comes new, or
    had nothing to do for a while, is level with whoever has had the least of those that were busy: it is next
    almost at once, and does not get what it did not use."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._busy: set[int] = set()
        self._level = 0.0

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self._used = {number: used for number, used in self._used.items() if number in campaigns}
        self._busy.intersection_update(campaigns)

    def place(self, campaign: int) -> tuple[float, float]:
        """What to sort by; among equals those come first that have waited."""
        used = self._used.get(campaign, -1.0)
        return max(used, self._level), used

    def end(self, campaign: int, seconds: float, *, busy: bool) -> None:
        """Its turn took so long; `busy`: and there is more to do at once."""
        self._used[campaign] = self.place(campaign)[0] + seconds
        (self._busy.add if busy else self._busy.discard)(campaign)
        least = min((self._used[number] for number in self._busy), default=self._level)
        self._level = max(self._level, least)

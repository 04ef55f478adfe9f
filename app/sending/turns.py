"""Whose turn it is: campaigns that run at once get equal shares of a worker's time. Pure."""

from collections.abc import Collection


class Turns:
    """What each campaign has had of the worker's time. Who has had the least is next; a campaign that comes
    new, or had nothing to do for a while, is level with the one served last: it is next at once, and does not
    get what it did not use."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._level = 0.0

    def keep(self, campaigns: Collection[int]) -> None:
        """Forgets all others."""
        self._used = {number: used for number, used in self._used.items() if number in campaigns}

    def place(self, campaign: int) -> tuple[float, bool]:
        """What to sort by; among equals those come first that have had no turn yet."""
        return max(self._used.get(campaign, self._level), self._level), campaign in self._used

    def begin(self, campaign: int) -> None:
        """Its turn begins: whoever comes new is level with it."""
        self._level, _ = self.place(campaign)

    def end(self, campaign: int, seconds: float) -> None:
        """Its turn took so long."""
        self._used[campaign] = self.place(campaign)[0] + seconds

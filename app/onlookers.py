"""Onlookers: those who are shown what one source tells. Each is shown first how things are, then what is new.

They are counted as they come, from 1 on. A source notes how many had come before it began to look; only
these may be shown what it saw, so that nobody is shown less than what was true when they came.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shown:
    """To whom something is to be shown: the onlookers from `first` to `last`, both included.

    Whoever has not got yet what was told before under the same topic needs only this.
    """

    topic: int
    first: int
    last: int

    def and_also(self, other: "Shown") -> "Shown":
        """To those of both, whose numbers follow each other or overlap."""
        return Shown(self.topic, min(self.first, other.first), max(self.last, other.last))


class Onlookers:
    """Everybody who came, whether or not they are still there. `shown` is set by the source with whatever it
    tells."""

    def __init__(self) -> None:
        self.come = 0
        self.shown: Shown | None = None
        self._on_arrival: Callable[[], object] | None = None

    def arrive(self) -> int:
        """One more; gives their number, and the source a reason to look."""
        self.come += 1
        if self._on_arrival is not None:
            self._on_arrival()
        return self.come

    def on_arrival(self, wake: Callable[[], object]) -> None:
        """Has `wake` called whenever somebody comes."""
        self._on_arrival = wake

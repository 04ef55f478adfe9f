"""Measuring sending on one kind of database: campaign and floor in turn, as often as asked."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from app import valkey
from scripts.benchmarks.campaign import Run, run_campaign
from scripts.benchmarks.comparing import check_complete
from scripts.benchmarks.floor import SIZES, run_floor
from scripts.benchmarks.places import PlaceName, opened

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    users: int
    repeat: int
    workers: int
    directory: Path | None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured on one kind of database."""

    name: PlaceName
    runs: list[Run] = field(default_factory=list)
    floors: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})

    def fastest_size(self) -> int:
        """The floor's best number of recipients a transaction."""
        return min(SIZES, key=lambda size: median(self.floors[size]))

    def ratio(self) -> float:
        """The floor's time by the campaign's: 1 could not be better."""
        return median(self.floors[self.fastest_size()]) / median(run.seconds for run in self.runs)


def measure(name: PlaceName, plan: Plan, say: Say) -> Result:
    """Campaign and floors, `plan.repeat` times. Raises `Differing` and `WorkerFailed`."""
    result = Result(name)
    with tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True) as made:
        directory = Path(made)
        say(f"{name}: a database with {plan.users:,} users")
        queue = valkey.start(directory / "valkey")
        try:
            with opened(name, directory, plan.users) as place:
                for number in range(1, plan.repeat + 1):
                    at = f"{name}, {number} of {plan.repeat}"
                    say(f"{at}: a campaign to {plan.users:,} users")
                    run = run_campaign(place, plan.workers, queue.url, directory / "workers")
                    check_complete(run.content, plan.users)
                    result.runs.append(run)
                    for size in SIZES:
                        say(f"{at}: the floor, {size:,} recipients a transaction")
                        result.floors[size].append(run_floor(place, run, size))
        finally:
            queue.stop()
    return result

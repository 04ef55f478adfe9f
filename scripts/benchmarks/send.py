"""Measuring sending on one kind of database: campaigns of each kind, the floor, planning, the naive way."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from app import valkey
from scripts.benchmarks.campaign import Run, TemplateName, plan_campaign, run_campaign
from scripts.benchmarks.comparing import check_complete
from scripts.benchmarks.floor import SIZES, run_floor
from scripts.benchmarks.naive import run_naive
from scripts.benchmarks.places import Place, PlaceName, opened

Say = Callable[[str], None]
MOST_REPEATED = 200_000  # recipients; larger campaigns are measured once, theirs is no matter of milliseconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured. Templates other than the simple one are sent by one worker, to the fewest."""

    users: Sequence[int]
    repeat: int
    workers: Sequence[int]
    at_once: Sequence[int]  # batches that a worker has in hand; on PostgreSQL only
    templates: Sequence[TemplateName]
    naive: int  # recipients that are sent one by one; 0: not at all
    directory: Path | None

    def times(self, users: int) -> int:
        """How often a campaign of this size is measured."""
        return self.repeat if users <= MOST_REPEATED else 1


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of campaign."""

    template: TemplateName
    users: int
    workers: int
    at_once: int


@dataclass(slots=True)
class Result:
    """What was measured on one kind of database; floors by users and recipients a transaction."""

    name: PlaceName
    runs: dict[Case, list[Run]] = field(default_factory=dict)
    floors: dict[int, dict[int, list[float]]] = field(default_factory=dict)
    planning: dict[int, float] = field(default_factory=dict)
    naive: tuple[int, float] | None = None  # recipients, seconds

    def floor(self, users: int) -> tuple[int, float] | None:
        """The floor's best number of recipients a transaction, and its seconds."""
        found = [(median(seconds), size) for size, seconds in self.floors.get(users, {}).items()]
        return None if not found else (min(found)[1], min(found)[0])

    def seconds(self, case: Case) -> float:
        """The median."""
        return median(run.seconds for run in self.runs[case])


def measure(name: PlaceName, plan: Plan, say: Say) -> Result:
    """All of the plan. Raises `Differing` and `WorkerFailed`."""
    result = Result(name)
    for users in plan.users:
        made = tempfile.TemporaryDirectory(prefix="car-", dir=plan.directory, ignore_cleanup_errors=True)
        with made as directory:
            say(f"{name}: a database with {users:,} users")
            queue = valkey.start(Path(directory) / "valkey")
            try:
                with opened(name, Path(directory), users) as place:
                    _measure(result, place, plan, users, queue.url, Path(directory) / "workers", say)
                    if users == min(plan.users) and plan.naive:
                        say(f"{name}: {plan.naive:,} jobs, one for each recipient")
                        given = min(plan.naive, users)
                        result.naive = (given, run_naive(place, given, queue.url))
            finally:
                queue.stop()
    return result


def _measure(
    result: Result, place: Place, plan: Plan, users: int, queue: str, directory: Path, say: Say
) -> None:
    at_once = plan.at_once if result.name == "postgresql" else [1]
    simple = [Case("simple", users, each, many) for each in plan.workers for many in at_once]
    cases = simple if "simple" in plan.templates else []
    if users == min(plan.users):
        others = [template for template in plan.templates if template != "simple"]
        cases = cases + [Case(template, users, 1, max(at_once)) for template in others]
    for number in range(1, plan.times(users) + 1):
        at = f"{result.name}, {users:,} users, {number} of {plan.times(users)}"
        for case in cases:
            say(f"{at}: {case.template}, {case.workers} at work")
            settings = {"CARILLON_BATCHES_AT_ONCE": str(case.at_once)}
            run = run_campaign(place, case.workers, queue, directory, case.template, settings)
            result.runs.setdefault(case, []).append(run)
            if case.template in ("simple", "rich"):  # of the others there is what came before, too
                check_complete(run.content, users)
            if case == next(iter(simple)):
                for size in SIZES:
                    say(f"{at}: the floor, {size:,} recipients a transaction")
                    floors = result.floors.setdefault(users, {})
                    floors.setdefault(size, []).append(run_floor(place, run, size))
    say(f"{result.name}, {users:,} users: planning alone")
    result.planning[users] = plan_campaign(place)

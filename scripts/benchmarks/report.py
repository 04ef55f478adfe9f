"""What was measured, as a table for eyes and as one for a note."""

import os
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.chaos import Tallies
from scripts.benchmarks.places import PlaceName
from scripts.benchmarks.send import Plan, Result

_TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def show(plan: Plan, results: Sequence[Result]) -> None:
    """Prints both tables."""
    title = (
        f"A campaign to {plan.users:,} users, {plan.workers} worker{'s' if plan.workers > 1 else ''}, "
        f"{_counted(plan.repeat)}, {os.cpu_count()} cores"
    )
    heads = ["", *(_TITLES[result.name] for result in results)]
    columns = [_column(plan, result) for result in results]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    _print(title, heads, rows, bold=("start to completed", "ratio to the floor"))


_COUNTED = ("rounds", "kills", "targets", "moments", "lost", "doubled", "unbalanced", "unended")


def show_chaos(seed: int, played: Mapping[PlaceName, Tallies]) -> None:
    """Prints what came of each kind of strike, and all together, a database after the other."""
    for name, tallies in played.items():
        rows = [
            (kind, *(f"{getattr(tally, counted):,}" for counted in _COUNTED), f"{len(tally.problems):,}")
            for kind, tally in tallies.items()
        ]
        sums = (sum(getattr(tally, counted) for tally in tallies.values()) for counted in _COUNTED)
        wrong = sum(len(tally.problems) for tally in tallies.values())
        rows.append(("all", *(f"{value:,}" for value in sums), f"{wrong:,}"))
        title = f"Chaos on {_TITLES[name]}, seed {seed}, {os.cpu_count()} cores"
        _print(title, ["", *_COUNTED, "wrong"], rows, bold=("all",))


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, bold: Sequence[str]) -> None:
    table = Table(*heads, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row, style="bold" if row[0] in bold else None)
    console = Console()
    if not console.is_terminal:  # then it takes 80 columns for all there is
        console.width = 120
    console.print(table)
    console.print(f"\n{title}\n", markup=False, highlight=False, soft_wrap=True)
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    console.print(
        *(f"| {' | '.join(line)} |" for line in lines),
        sep="\n",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _counted(repeat: int) -> str:
    return "one run" if repeat == 1 else f"median (least to most) of {repeat} runs"


def _column(plan: Plan, result: Result) -> dict[str, str]:
    seconds = [run.seconds for run in result.runs]
    floor = result.floors[size := result.fastest_size()]
    return {
        "start to completed": _spread(seconds, "s"),
        "recipients a second": f"{plan.users / median(seconds):,.0f}",
        "first message": _spread([run.first_message for run in result.runs], "s"),
        "the floor": _spread(floor, "s"),
        "recipients a second, floor": f"{plan.users / median(floor):,.0f}",
        "at recipients a transaction": f"{size:,}",
        "ratio to the floor": f"{result.ratio():.2f}",
        "worker's processor time": _spread([run.processor_seconds for run in result.runs], "s"),
        "worker's memory, peak": _megabytes(max(run.peak for run in result.runs)),
        "worker's memory, its own": _megabytes(max(run.own_peak for run in result.runs)),
        "rows written, on either side": f"{sum(each.rows for each in result.runs[0].content.values()):,}",
    }


def _spread(values: Sequence[float], unit: str) -> str:
    middle = f"{median(values):.2f} {unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}-{max(values):.2f})"


def _megabytes(value: int) -> str:
    return f"{value / 1_000_000:,.0f} MB"

"""What was measured, as a table for eyes and as one for a note."""

import os
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.benchmarks import delivering, load
from scripts.benchmarks.chaos import Tallies, Tally
from scripts.benchmarks.places import PlaceName
from scripts.benchmarks.refused import Refusal
from scripts.benchmarks.send import MOST_REPEATED, Case, Plan, Result

_TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def show(plan: Plan, results: Sequence[Result]) -> None:
    """Prints a row for each kind of campaign, and what else was measured."""
    runs = _counted(plan.repeat)
    if plan.repeat > 1 and max(plan.users) > MOST_REPEATED:
        runs += f" (one run over {MOST_REPEATED:,} recipients)"
    title = f"Sending, {runs}, {os.cpu_count()} cores"
    heads = ["campaign", "a second", "floor", "ratio", "first", "processor", "peak", "own", "a recipient"]
    rows = [(_named(result, case), *_sent(result, case)) for result in results for case in result.runs]
    _print(title, heads, rows, bold=())
    others = [row for result in results for row in _others(result)]
    _print("Beside it", ["", "recipients", "a second"], others, bold=())


def _named(result: Result, case: Case) -> str:
    workers = f", {case.workers} workers" if case.workers > 1 else ""
    at_once = f", {case.at_once} at once" if result.name == "postgresql" else ""
    return f"{_TITLES[result.name]}: {case.template}, {case.users:,}{workers}{at_once}"


def _sent(result: Result, case: Case) -> tuple[str, ...]:
    runs, seconds, floor = result.runs[case], result.seconds(case), result.floor(case.users)
    comparable = case.template == "simple" and floor is not None
    return (
        spread([case.users / run.seconds for run in runs], ""),
        f"{case.users / floor[1]:,.0f}" if comparable and floor else "-",
        f"{floor[1] / seconds:.2f}" if comparable and floor else "-",
        f"{median(run.first_message for run in runs):.2f} s",
        f"{median(run.processor_seconds for run in runs):.2f} s",
        _megabytes(max(run.peak for run in runs)),
        _megabytes(max(run.own_peak for run in runs)),
        f"{median(run.grown for run in runs) / case.users:,.0f} B",
    )


def _others(result: Result) -> list[tuple[str, ...]]:
    title = _TITLES[result.name]
    rows = [
        (f"{title}: planning alone", f"{users:,}", f"{users / seconds:,.0f}")
        for users, seconds in result.planning.items()
    ]
    if result.naive is not None:
        recipients, seconds = result.naive
        rows.append(
            (f"{title}: a job and ORM objects each", f"{recipients:,}", f"{recipients / seconds:,.0f}")
        )
    return rows


def show_refused(refusals: Sequence[Refusal]) -> None:
    """Prints a line for each document."""
    table = Table("document", "characters", "ms", "answer", title="Documents that are refused")
    for column in table.columns[1:3]:
        column.justify = "right"
    for refusal in refusals:
        answer = refusal.answer if len(refusal.answer) < 70 else f"{refusal.answer[:70]} ..."
        table.add_row(refusal.name, f"{refusal.characters:,}", f"{refusal.milliseconds:.1f}", answer)
    Console().print(table)


def show_webhooks(plan: delivering.Plan, results: Sequence[delivering.Result]) -> None:
    """Prints both tables, for each kind of database."""
    for result in results:
        title = (
            f"{_TITLES[result.name]}: a campaign to {plan.users:,} users, one worker, one deliverer, "
            f"{_counted(plan.repeat)}, {os.cpu_count()} cores"
        )
        alone = [run.campaign_seconds for run in result.runs[delivering.NONE]]
        columns = [_webhooks(plan.users, kind, runs, alone) for kind, runs in result.runs.items()]
        _print_columns(title, [kind.label for kind in result.runs], columns)


def _webhooks(
    users: int, kind: delivering.Kind, runs: Sequence[delivering.Delivered], alone: Sequence[float]
) -> dict[str, str]:
    campaign = [users / run.campaign_seconds for run in runs]
    ratio = median(alone) / median(run.campaign_seconds for run in runs)
    told = [run for run in runs if run.counted]
    first = [run.counted[0] for run in told]
    return {
        "messages a second, campaign": spread(campaign, ""),
        "campaign, of that without": "-" if kind.pace else f"{ratio:.2f}",
        "events a second, while sending": spread([run.during / run.campaign_seconds for run in told], ""),
        "events a second, in all": spread([run.events_a_second() for run in told], ""),
        "posts": spread([each.posts for each in first], ""),
        "doubled": spread([each.doubled for each in first], ""),
        "late, by at most": ", ".join(f"{each.late:,} by {each.furthest}" for each in first) or "-",
        "deliverer's processor time": spread([run.processor_seconds for run in runs], "s"),
        "deliverer's memory, peak": _megabytes(max(run.peak for run in runs)),
        "deliverer's memory, its own": _megabytes(max(run.own_peak for run in runs)),
    }


def _print_columns(title: str, labels: Sequence[str], columns: Sequence[dict[str, str]]) -> None:
    heads = ["", *labels]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    _print(title, heads, rows, bold=())


def show_load(plan: load.Plan, figures: Mapping[PlaceName, Mapping[str, str]]) -> None:
    """Prints both tables; what was not measured on one kind of database has no figure there."""
    title = f"While sending to {plan.large:,} and {plan.middle:,} users, {os.cpu_count()} cores"
    whats = list(dict.fromkeys(what for found in figures.values() for what in found))
    rows = [(what, *(found.get(what, "-") for found in figures.values())) for what in whats]
    _print(title, ["", *(_TITLES[name] for name in figures)], rows, bold=())


_COUNTED = ("rounds", "kills", "targets", "moments", "lost", "doubled", "unbalanced", "unended")


def show_chaos(seed: int, played: Mapping[PlaceName, Tallies]) -> None:
    """Prints what came of each kind of strike, and all together, a database after the other."""
    for name, tallies in played.items():
        rows = [(kind, *_tallied([tally])) for kind, tally in tallies.items()]
        rows.append(("all", *_tallied(list(tallies.values()))))
        title = f"Chaos on {_TITLES[name]}, seed {seed}, {os.cpu_count()} cores"
        _print(title, ["", *_COUNTED, "wrong", "a round"], rows, bold=("all",))


def _tallied(tallies: Sequence[Tally]) -> tuple[str, ...]:
    """The last is how long a round took that counted, with what was played in vain until then."""
    rounds, seconds = sum(tally.rounds for tally in tallies), sum(tally.seconds for tally in tallies)
    return (
        *(f"{sum(getattr(tally, counted) for tally in tallies):,}" for counted in _COUNTED),
        f"{sum(len(tally.problems) for tally in tallies):,}",
        f"{seconds / rounds:.1f} s" if rounds else "-",
    )


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, bold: Sequence[str]) -> None:
    table = Table(*heads, title=title, title_justify="left")
    for each in table.columns[1:]:
        each.justify = "right"
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


def progressing(console: Console) -> Progress:
    """A bar for each task: what is done now, how much of it, and for how long."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as a note has it."""
    lines = [heads, ["---" for _ in heads], *rows]
    print(*(f"| {' | '.join(line)} |" for line in lines), sep="\n")


def _counted(repeat: int) -> str:
    return "one run" if repeat == 1 else f"median (least to most) of {repeat} runs"


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and the least and the most where there are several."""
    if not values:
        return "-"
    shape = ".2f" if unit else ",.0f"
    middle = f"{median(values):{shape}} {unit}".rstrip()
    return middle if len(values) == 1 else f"{middle} ({min(values):{shape}}-{max(values):{shape}})"


def _megabytes(value: int) -> str:
    return f"{value / 1_000_000:,.0f} MB"

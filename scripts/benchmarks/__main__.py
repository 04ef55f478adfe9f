"""The command `scripts/bench`."""

import random
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

from scripts.benchmarks import chaos as striking
from scripts.benchmarks import report
from scripts.benchmarks.comparing import Differing
from scripts.benchmarks.interrupts import ending_in_order
from scripts.benchmarks.places import PLACES, PlaceName
from scripts.benchmarks.send import Plan, measure
from scripts.benchmarks.starting import starts
from scripts.benchmarks.working import WorkerFailed
from tests.chaos.strikes import KINDS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def main() -> None:
    """Measures Carillon as real processes run it, each figure beside what the database could do at best."""


@app.command()
def send(
    users: Annotated[
        int, typer.Option(min=1, max=9_999_999, help="How many users the campaign goes to.")
    ] = 60_000,
    repeat: Annotated[int, typer.Option(min=1, max=99, help="How often all is measured; medians count.")] = 3,
    databases: Annotated[str, typer.Option(help="Which databases, with commas between.")] = ",".join(PLACES),
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many worker processes send.")] = 1,
    directory: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            exists=True,
            help="Where the databases are made for the time of the run: a directory on the disk in question. "
            "Its path must be short (Unix sockets). By default the one for temporary files.",
        ),
    ] = None,
) -> None:
    """A campaign to many users, end to end, and the floor below which its time cannot go.

    **The campaign**: real worker processes send "Hello {{ receiver.name }}" into a new channel for each
    user, with sender and receiver as members. *Start to completed* is the time from the call that starts the
    campaign until a reader in another process sees it COMPLETED; *first message* until one sees a message.
    Both are looked at every 50 ms.

    **The floor**: the same rows into the same tables of a copy of the same database (same schema, indexes,
    users, settings and durability), by one INSERT ... SELECT per table and transaction, with the text as an
    SQL expression, nothing looked up, rendered, planned or checked; at the fastest of 500, 1,000 and 5,000
    recipients a transaction. Three values stand for others of the same length: the hash in a channel's
    members_key, the number in a message's id, and the batch that a ledger row names.

    After every measurement the rows of channels, members, messages, recipients and batches are counted, and
    the characters in their texts; the run **fails** if the floor wrote anything but what the campaign did.

    **Memory** is that of the largest worker: *peak* is what the kernel reports (VmHWM), which on SQLite has
    pages of the database file that are only mapped; *its own* is memory that belongs to it (RssAnon, sampled
    every 50 ms). **Processor time** is the sum over workers, and the figure that a busy machine disturbs
    least. Compare nothing but ratios across machines or runs.
    """
    names = _names(databases)
    errors = Console(stderr=True)
    try:
        with ending_in_order(), errors.status("") as status:
            plan = Plan(users, repeat, workers, directory)
            results = [measure(name, plan, status.update) for name in names]
    except (Differing, WorkerFailed) as failure:
        errors.print(f"[bold red]Failed:[/] {failure}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    report.show(plan, results)


@app.command()
def start(
    repeat: Annotated[int, typer.Option(min=1, max=99, help="How many starts are measured.")] = 5,
) -> None:
    """A second start of `carillon run`: seconds from the command until /readyz answers 200."""
    seconds = starts(repeat)
    typer.echo(
        f"ready after {median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}), "
        f"median (least to most) of {repeat}"
    )


@app.command()
def chaos(
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="How many rounds on each database.")] = 300,
    seed: Annotated[
        int | None, typer.Option(help="Draws kinds, moments and campaigns as the run of that seed did.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only this kind; may be repeated. One of: {', '.join(KINDS)}.")
    ] = None,
    away: Annotated[
        float, typer.Option(min=0, max=3_600, help="For how many seconds Valkey is away.")
    ] = 60.0,
    databases: Annotated[str, typer.Option(help="Which databases, with commas between.")] = ",".join(PLACES),
    directory: Annotated[
        Path | None,
        typer.Option(file_okay=False, exists=True, help="Where all is stored for the time of the run."),
    ] = None,
) -> None:
    """Strikes a running Carillon at random moments, and counts what was lost.

    **A round**: a campaign to 6,000 targets (42,000 or 600 for some kinds) is started by the API, struck at a
    random moment of its middle, left alone, and judged once it has completed. It counts only if something was
    sent before the strike and something still pending after it. Campaigns differ: users and channels as
    targets, channels that are created or there, throttled or not, paused and resumed all the while, retried
    for those who failed. SQLite has one worker, PostgreSQL two behind a proxy that can cut connections.

    **Judged**: each target has exactly one message or one reason; the API's stats are the counted rows;
    channels count their messages and members; the campaign's events exist exactly once. *lost*: targets with
    neither message nor reason. *doubled*: messages too many. *moments*: how often the stats were read over
    the API meanwhile; *unbalanced*: at how many of them they did not add up. *unended*: not completed by
    itself within three minutes. *wrong*: all of this and everything else. The command **fails** if there is
    any.

    A full disk is a small file system in memory if this process may mount one (every second instance),
    otherwise a limit of file sizes on SQLite, and the error alone on PostgreSQL.
    """
    names, kinds = _names(databases), only or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        raise typer.BadParameter(f"no such kind: {', '.join(sorted(unknown))}", param_hint="--only")
    seed = random.randrange(1_000_000) if seed is None else seed
    played: dict[PlaceName, striking.Tallies] = {name: {} for name in names}
    try:
        with ending_in_order():
            striking.run(striking.Plan(rounds, seed, kinds, away, directory), played)
    finally:  # interrupted, it tells what it has seen
        report.show_chaos(seed, played)
    if any(tally.problems for tallies in played.values() for tally in tallies.values()):
        raise SystemExit(1)


def _names(databases: str) -> list[PlaceName]:
    given = [name.strip() for name in databases.split(",")]
    known = [name for name in PLACES if name in given]
    if len(known) != len(given):
        raise typer.BadParameter(f"choose from {', '.join(PLACES)}", param_hint="--databases")
    return known


if __name__ == "__main__":
    app()

"""The command `scripts/bench`."""

import logging
import os
import random
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import structlog
import typer
from rich.console import Console

from scripts.benchmarks import chaos as striking
from scripts.benchmarks import delivering, queries, refused, report, sizes, subscribe
from scripts.benchmarks import load as loading
from scripts.benchmarks import pages as big_pages
from scripts.benchmarks.campaign import TEMPLATES, TemplateName
from scripts.benchmarks.comparing import Differing
from scripts.benchmarks.interrupts import ending_in_order
from scripts.benchmarks.places import PLACES, PlaceName
from scripts.benchmarks.send import Plan, measure
from scripts.benchmarks.starting import starts
from scripts.benchmarks.working import WorkerFailed
from tests.chaos.strikes import KINDS

BOTH = ",".join(PLACES)
Databases = Annotated[str, typer.Option(help="Which databases, with commas between.")]
Directory = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        exists=True,
        help="Where the databases are made for the time of the run: a directory on the disk in question. "
        "Its path must be short (Unix sockets). By default the one for temporary files.",
    ),
]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def main() -> None:
    """Measures Carillon as real processes run it, each figure beside what the database could do at best."""


@app.command("refused")
def refuse(
    repeat: Annotated[
        int, typer.Option(min=1, max=99, help="How often each is asked; the least counts.")
    ] = 5,
) -> None:
    """What hostile documents cost until they are refused, in milliseconds of the processor.

    It **fails** if one is admitted, or costs 50 ms or more.
    """
    found = refused.measure(repeat)
    report.show_refused(found)
    if any(each.milliseconds >= refused.TARGET_MS for each in found):
        raise typer.Exit(1)


@app.command()
def send(
    users: Annotated[
        str, typer.Option(help="How many users the campaigns go to, with commas between.")
    ] = "60000,1000000",
    repeat: Annotated[int, typer.Option(min=1, max=99, help="How often all is measured; medians count.")] = 3,
    databases: Databases = BOTH,
    workers: Annotated[str, typer.Option(help="How many processes send, with commas between.")] = "1,2",
    at_once: Annotated[
        str,
        typer.Option(help="How many batches each has in hand at once, on PostgreSQL, with commas between."),
    ] = "2",
    templates: Annotated[str, typer.Option(help="Which campaigns, with commas between.")] = ",".join(
        TEMPLATES
    ),
    naive: Annotated[int, typer.Option(min=0, help="How many recipients are sent one by one.")] = 2_000,
    quick: Annotated[bool, typer.Option("--quick", help="60,000 users, one worker, each kind once.")] = False,
    directory: Directory = None,
) -> None:
    """Campaigns to many users, end to end, and the floor below which their time cannot go.

    **The campaigns**: real worker processes send "Hello {{ receiver.name }}" into a new channel for each
    user, with sender and receiver as members (*simple*); the same into channels that are there (*existing*);
    the same when nine campaigns to the same users, into other new channels, have been before (*tenth*); and a
    message with a condition, a loop, filters, an attachment and custom fields (*rich*). *A second* are
    recipients, from the call that starts the campaign until a reader in another process sees it COMPLETED;
    *first* is the time until one sees a message. Both are looked at every 50 ms. *A recipient* are the bytes
    by which the database grew.

    **The floor**: the same rows into the same tables of a copy of the same database (same schema, indexes,
    users, settings and durability), by one INSERT ... SELECT per table and transaction, with the text as an
    SQL expression, nothing looked up, rendered, planned or checked; at the fastest of 500, 1,000 and 5,000
    recipients a transaction. Three values stand for others of the same length: the hash in a channel's
    members_key, the number in a message's id, and the batch that a ledger row names.

    After every measurement the rows of channels, members, messages, recipients and batches are counted, and
    the characters in their texts; the run **fails** if the floor wrote anything but what the campaign did.

    **Memory** is that of the largest worker: *peak* is what the kernel reports (VmHWM), which on SQLite has
    pages of the database file that are only mapped; *own* is memory that belongs to it (RssAnon, sampled
    every 50 ms). **Processor time** is the sum over workers, and the figure that a busy machine disturbs
    least. Compare nothing but ratios across machines or runs.
    """
    names = _names(databases)
    errors = Console(stderr=True)
    plan = Plan(
        (60_000,) if quick else _numbers(users, "--users"),
        1 if quick else repeat,
        (1,) if quick else _numbers(workers, "--workers"),
        _numbers(at_once, "--at-once"),
        _templates(templates),
        0 if quick else naive,
        directory,
    )
    try:
        with ending_in_order(), errors.status("") as status:
            results = [measure(name, plan, status.update) for name in names]
    except (Differing, WorkerFailed) as failure:
        errors.print(f"[bold red]Failed:[/] {failure}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    report.show(plan, results)


@app.command()
def load(
    large: Annotated[
        int, typer.Option(min=1_000, max=9_999_999, help="How many users the large campaigns go to.")
    ] = 500_000,
    middle: Annotated[
        int, typer.Option(min=100, max=9_999_999, help="How many users the others go to.")
    ] = 60_000,
    repeat: Annotated[
        int, typer.Option(min=1, max=999, help="How often it is paused, stopped and shared.")
    ] = 5,
    idle_seconds: Annotated[
        float, typer.Option(min=1, max=3_600, help="For how long nothing happens at the end.")
    ] = 60.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the users, and two seconds where it would be ten.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this part; may be repeated. One of: {', '.join(loading.PARTS)}."),
    ] = None,
    databases: Databases = BOTH,
    directory: Directory = None,
) -> None:
    """How a running Carillon behaves while it sends; everything is asked of its API.

    **pausing**: from the mutation to its answer, which tells how many messages were sent: half a second later
    there must be just as many, or the run **fails**. *stopAt*: how late a campaign was STOPPED; half of them
    got their stopAt while they were sent.

    **throttling**: messages a second of those asked for, over 15 s, and over the ten of them with most.

    **sharing**: a campaign to ten users beside two to `large` and one to `middle` users, from the call that
    creates it until it is seen COMPLETED; and who got how much meanwhile. **adding**: workers that come and
    go (PostgreSQL); the run **fails** if a message is lost or doubled.

    **asking**: one connection, a query of a campaign with its stats and the upsert of one user in turn, while
    `large` users are sent to. *Idle* is the processor time of all processes of Carillon, Valkey's too.
    """
    names, parts = _names(databases), only or list(loading.PARTS)
    if unknown := set(parts) - set(loading.PARTS):
        raise typer.BadParameter(f"no such part: {', '.join(sorted(unknown))}", param_hint="--only")
    parts = [part for part in loading.PARTS if part in parts]  # `asking` makes users: it has to come last
    by = 10 if quick else 1
    seconds = 2.0 if quick else 10.0
    plan = loading.Plan(large // by, middle // by, repeat, seconds, idle_seconds / by, parts, directory)
    try:
        with ending_in_order():
            figures = loading.measure(plan, names)
    except (loading.Misbehaved, WorkerFailed) as failure:
        Console(stderr=True).print(f"[bold red]Failed:[/] {failure}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    report.show_load(plan, figures)


@app.command()
def webhooks(
    users: Annotated[
        int, typer.Option(min=1_000, max=9_999_999, help="How many messages each campaign sends.")
    ] = 60_000,
    repeat: Annotated[int, typer.Option(min=1, max=99, help="How often all is measured; medians count.")] = 1,
    databases: Databases = BOTH,
    directory: Directory = None,
) -> None:
    """Campaigns whose messages are told by webhook: how fast, and what that costs the campaign.

    A real worker sends, a real deliverer posts, and a receiver in a process of its own verifies every
    signature with the published library. In turn: no endpoint; an endpoint that takes batches of 500; the
    same beside one that answers after a second and one that never does; an endpoint that takes single
    posts; and that with a campaign at 5,000 messages a second.

    *While sending* is what had arrived when the campaign was completed, by the time of the campaign; *in
    all* is until the last one had arrived. *Campaign, of that without* is the speed of the campaign by that
    without an endpoint, within the same run. *Late* are first attempts that arrived after a later one, and by
    how many places at most. The run **fails** if anything was lost, forged or doubled.
    """
    names = _names(databases)
    errors = Console(stderr=True)
    try:
        with ending_in_order(), errors.status("") as status:
            plan = delivering.Plan(users, repeat, directory)
            results = [delivering.measure(name, plan, status.update) for name in names]
    except (delivering.Unfaithful, WorkerFailed) as failure:
        errors.print(f"[bold red]Failed:[/] {failure}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    report.show_webhooks(plan, results)


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
def pages(
    repeat: Annotated[
        int, typer.Option(min=1, max=99, help="How often; the least of each cost counts.")
    ] = 15,
    databases: Databases = BOTH,
) -> None:
    """The targets of a segment with their users, up to 10,000 of them, and pages of other lists, from request
    to last byte, beside graphql-core's own execution of the same query; the run **fails** if answers differ.

    *Statements* is the time from the driver being asked to its having all rows, and part of the whole.
    *Processor* is what the API's process spent until it had the answer as JSON: the figure that a busy
    machine disturbs least.
    """
    rows = []
    for name in _names(databases):
        with TemporaryDirectory(prefix="car-", ignore_cleanup_errors=True) as directory:
            found = big_pages.measure(name, Path(directory), repeat)
        for (listed, size), costs in found.items():
            for variant, cost in costs.items():
                spent = (cost.seconds, cost.processor, cost.statements)
                times = (f"{each * 1_000:.1f} ms" for each in spent)
                rows.append([name, listed, f"{size:,}", variant, *times])
    report.table(["database", "list", "items", "execution", "whole", "processor", "statements"], rows)


@app.command()
def segments(
    users: Annotated[
        int, typer.Option(min=1_000, max=9_999_999, help="How many users there are.")
    ] = 1_000_000,
    repeat: Annotated[int, typer.Option(min=1, max=99, help="How often; medians count.")] = 3,
    databases: Databases = BOTH,
    directory: Directory = None,
) -> None:
    """A filter by a custom field: its count, in short reads as segments are counted, and its first 100
    targets, without an index and with the one that the README tells how to declare."""
    rows = []
    for name in _names(databases):
        with TemporaryDirectory(prefix="car-", dir=directory, ignore_cleanup_errors=True) as made:
            found = sizes.measure(name, Path(made), users, repeat)
        for label, index, size, counted, page in found:
            rows.append([name, label, index, f"{size:,}", f"{counted:.3f} s", f"{page:.3f} s"])
    report.table(["database", "filter matches", "index", "size", "count", "first page"], rows)


@app.command()
def api(
    requests: Annotated[int, typer.Option(min=32, max=1_000_000, help="Of each variant and round.")] = 500,
    connections: Annotated[int, typer.Option(min=1, max=1_000, help="How many at a time.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, max=99, help="How often; medians count.")] = 9,
    databases: Databases = BOTH,
) -> None:
    """A dashboard's list, twenty campaigns with their stats, asked of one API process over and over.

    *carillon* is the API as it is; *unlimited* is without the limits for documents; *stock* is with
    graphql-core's own execution of lists; *bare* is the schema as Strawberry runs it, with its caches of
    parsed and validated documents and nothing of ours but HTTP.

    All variants run in every round, in an order that turns. Figures are medians over the rounds, with the
    least and the most; *to carillon* is each round's ratio of processor time to that of *carillon*.
    """
    rows = []
    for name in _names(databases):
        with TemporaryDirectory(prefix="car-", ignore_cleanup_errors=True) as directory:
            found = queries.measure(name, Path(directory), requests, connections, rounds)
        for variant, loads in found.items():
            ratios = [
                each.processor / ours.processor for each, ours in zip(loads, found["carillon"], strict=True)
            ]
            rows.append(
                [
                    *(name, variant, report.spread([load.per_second for load in loads], "")),
                    *(report.spread([load.quantile(q) * 1_000 for load in loads], "ms") for q in (0.5, 0.99)),
                    report.spread([load.processor * 1_000 for load in loads], "ms"),
                    report.spread(ratios, "x"),
                ]
            )
    heads = ["requests a second", "median", "p99", "processor each", "to carillon"]
    report.table(["database", "variant", *heads], rows)


@app.command(name="subscribe")
def subscribed(
    subscribers: Annotated[
        str, typer.Option(help="How many of them, with commas between.")
    ] = "100,1000,5000",
    users: Annotated[
        int, typer.Option(min=1_000, max=9_999_999, help="How many users the campaign goes to.")
    ] = 200_000,
    sse: Annotated[bool, typer.Option("--sse", help="By event streams instead of WebSockets.")] = False,
    databases: Databases = BOTH,
    directory: Directory = None,
) -> None:
    """Many subscribers of one campaign while it is sent, all asking the same of one API process.

    One worker sends at full speed, or so that it takes 12 seconds; all subscribers are in one process of
    their own, on the same machine. *p50, p99, max* are from the instant at which the API read the state
    (`asOf`) to its receipt, over all updates of all subscribers. *First* is from subscribing to the first
    state, where all subscribe as fast as they can. *Updates* are a subscriber's, least and most. *Memory* is
    what belongs to the API's processes: alone, with everybody connected, at most, at the end.

    Each database has a row for each of five ways of looking on and each number of subscribers. A row takes 20
    to 30 seconds, more with 5,000 subscribers; the table comes at the end.

    The run **fails** if anybody gets a first state that is older than the subscription, misses the end, or
    sees another end than the others, however they look on.
    """
    names = _names(databases)
    errors = Console(stderr=True)
    counts = [int(count) for count in subscribers.split(",")]
    try:
        with ending_in_order(), report.progressing(errors) as progress:
            plan = subscribe.Plan(users, counts, sse, directory)
            seen = [(name, each) for name in names for each in subscribe.measure(name, plan, progress)]
    except (subscribe.Incomplete, WorkerFailed) as failure:
        errors.print(f"[bold red]Failed:[/] {failure}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    report.table(subscribe.HEADS, [subscribe.row(name, each) for name, each in seen])


@app.command()
def chaos(
    rounds: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many rounds on each database, at least.")
    ] = 300,
    seed: Annotated[
        int | None, typer.Option(help="Draws kinds, moments and campaigns as the run of that seed did.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only this kind; may be repeated. One of: {', '.join(KINDS)}.")
    ] = None,
    away: Annotated[
        float, typer.Option(min=0, max=3_600, help="For how many seconds Valkey is away.")
    ] = 60.0,
    abreast: Annotated[
        int,
        typer.Option(
            min=1,
            max=50,
            help="How many instances on each database are struck at the same time, PostgreSQL's each on a "
            "server of its own. By default as many as there are cores.",
        ),
    ] = os.cpu_count() or 1,
    databases: Databases = BOTH,
    directory: Directory = None,
) -> None:
    """Strikes a running Carillon at random moments, and counts what was lost.

    **A round**: a campaign to 6,000 targets (42,000 or 600 for some kinds) is started by the API, struck at a
    random moment of its middle, left alone, and judged once it has completed. It counts only if something was
    sent before the strike and something still pending after it. Campaigns differ: users and channels as
    targets, channels that are created or there, throttled or not, paused and resumed all the while, retried
    for those who failed. SQLite has one worker, PostgreSQL two behind a proxy that can cut connections. It is
    made to plan slowly where planners are killed: it would have planned before it were struck.

    **Judged**: each target has exactly one message or one reason; the API's stats are the counted rows;
    channels count their messages and members; the campaign's events exist exactly once. *lost*: targets with
    neither message nor reason. *doubled*: messages too many. *moments*: how often the stats were read over
    the API meanwhile; *unbalanced*: at how many of them they did not add up. *unended*: not completed by
    itself within three minutes. *wrong*: all of this and everything else. The command **fails** if there is
    any. *a round*: how long one took on average, with those that did not count. 300 rounds on both databases
    take about half an hour on two cores.

    A full disk is a small file system in memory if this process may mount one (every second instance),
    otherwise a limit of file sizes on SQLite, and the error alone on PostgreSQL. Only who may mount one
    fills the disk of PostgreSQL's log: the server ends in a panic, and is started again once there is room.
    """
    names, kinds = _names(databases), only or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        raise typer.BadParameter(f"no such kind: {', '.join(sorted(unknown))}", param_hint="--only")
    seed = random.randrange(1_000_000) if seed is None else seed
    played: dict[PlaceName, striking.Tallies] = {name: {} for name in names}
    try:
        with ending_in_order():
            striking.run(striking.Plan(rounds, seed, kinds, away, abreast, directory), played)
    finally:  # interrupted, it tells what it has seen
        report.show_chaos(seed, played)
    if any(tally.problems for tallies in played.values() for tally in tallies.values()):
        raise SystemExit(1)


def _numbers(given: str, option: str) -> tuple[int, ...]:
    numbers = [each.strip() for each in given.split(",")]
    if not all(each.isdecimal() and 0 < int(each) < 10_000_000 for each in numbers):
        raise typer.BadParameter("whole numbers above 0, with commas between", param_hint=option)
    return tuple(sorted({int(each) for each in numbers}))


def _templates(given: str) -> tuple[TemplateName, ...]:
    named = [each.strip() for each in given.split(",")]
    if unknown := set(named) - set(TEMPLATES):
        raise typer.BadParameter(f"no such campaign: {', '.join(sorted(unknown))}", param_hint="--templates")
    return tuple(each for each in TEMPLATES if each in named)


def _names(databases: str) -> list[PlaceName]:
    given = [name.strip() for name in databases.split(",")]
    known = [name for name in PLACES if name in given]
    if len(known) != len(given):
        raise typer.BadParameter(f"choose from {', '.join(PLACES)}", param_hint="--databases")
    return known


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    app(prog_name="scripts/bench")

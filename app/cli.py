"""The `carillon` command. Imports wait until a command needs them: `run` starts in well under a second."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.exits import EXPLANATIONS, ExitCode, Stop, explained

if TYPE_CHECKING:
    from app.database import Database
    from app.settings import Settings

Found = TypeVar("Found")
EPILOG = "\b\nExit codes:\n" + "\n".join(f"{code.value:>4}  {text}" for code, text in EXPLANATIONS.items())

cli = typer.Typer(
    name="carillon",
    help="Sends a personalised chat message to a large audience, "
    "and proves that every target got exactly one.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys = typer.Typer(help="API keys: who may use this Carillon.", no_args_is_help=True)
cli.add_typer(keys, name="keys")
imports = typer.Typer(help="Bring data in from files.", no_args_is_help=True)
cli.add_typer(imports, name="import")


class Format(StrEnum):
    """What a file of users may be."""

    CSV = "csv"
    NDJSON = "ndjson"


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"
    VIEWER = "viewer"


def main() -> None:
    """The command's entry."""
    with explained():
        cli()


@cli.command()
def run(
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Show the main job: import 60,000 made-up users and send them a campaign, in a data "
            "directory of its own (./carillon-demo, unless CARILLON_DATA_DIR is set). Can be repeated.",
        ),
    ] = False,
) -> None:
    """Run everything in this terminal.

    Migrates the database, starts the queue, the API, workers and deliverers, and prints the address and, on
    the first start, an admin key. Ctrl-C stops everything. What dies is started again. Settings are
    environment variables; the README lists them all:

    \b
    CARILLON_HOST          127.0.0.1
    CARILLON_PORT          8000
    CARILLON_DATA_DIR      ./carillon-data
    CARILLON_DATABASE_URL  by default SQLite in the data directory
    CARILLON_REDIS_URL     by default a queue server of its own
    CARILLON_ADMIN_KEY     by default made up on the first start
    CARILLON_WORKERS       1
    CARILLON_DELIVERERS    1
    CARILLON_LOG_LEVEL     info (or debug, warning, error)
    CARILLON_LOG_FORMAT    console (or json)
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the supervisor listens there is nothing to end
    from app import supervisor
    from app.children import Once

    if demo:
        from app.demo.place import choose

        choose()
    supervisor.run(_configured("carillon"), guests=[Once("demo", "demo")] if demo else [])


@cli.command()
def api() -> None:
    """Run one API process, and nothing else.

    For deployments of many machines: set CARILLON_DATABASE_URL (PostgreSQL) and CARILLON_REDIS_URL.
    """
    _run_program("api")


@cli.command()
def worker() -> None:
    """Run one worker process, and nothing else.

    Workers plan and send campaigns; start as many as you like.

    For deployments of many machines: set CARILLON_DATABASE_URL (PostgreSQL) and CARILLON_REDIS_URL.
    """
    _run_program("worker")


@cli.command()
def deliver() -> None:
    """Run one deliverer process, and nothing else.

    Deliverers post to webhook endpoints, each endpoint one of them at a time; start as many as you like.

    For deployments of many machines: set CARILLON_DATABASE_URL (PostgreSQL) and CARILLON_REDIS_URL.
    """
    _run_program("deliverer")


def _run_program(role: str) -> None:
    from app import child, migrations

    program = child.load(role)
    migrations.check(_configured(role).database)
    program.main()


@cli.command()
def migrate(
    down: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="Go back to this revision instead; `base` drops every table."),
    ] = None,
) -> None:
    """Bring the database to this schema.

    `carillon run` does so by itself.

    On an empty database this also makes an admin key and prints it, this once.
    """
    from app import migrations
    from app.prepare import prepare

    settings = _configured("migrate")
    if down is not None:
        before, after = migrations.downgrade(settings.database, down)
        typer.echo(f"Schema {before or 'none'} -> {after or 'none'}")
        return
    secret = prepare(settings)
    typer.echo(f"Schema {migrations.head()}")
    if secret is not None:
        typer.echo(f"Admin key (shown this once): {secret}")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is or what it is for; shown wherever keys are.")],
    role: Annotated[
        Role, typer.Option(help="admin: everything, in every user's name. viewer: read only.")
    ] = Role.VIEWER,
) -> None:
    """Make a key and print its secret.

    Only this once: nothing but a hash of it is kept.

    This is also the way back in when the admin key is lost: carillon keys create --role admin NAME
    """
    from app.keys import service
    from app.keys.roles import Role as Granted

    async def create(database: "Database") -> str:
        async with database.transaction() as session:
            _, secret = await service.create(session, name, Granted[role.name])
            return secret

    typer.echo(_with_database(create))


@keys.command("list")
def list_keys() -> None:
    """List every key, revoked ones too."""
    from app.keys import queries

    async def read(database: "Database") -> list[str]:
        async with database.read() as session:
            return [
                f"{key.key_id:<36}  {key.role.lower():<6}  {_day(key.created_at)}  {_day(key.last_used_at)}  "
                f"{_day(key.revoked_at)}  {key.name}"
                for key in await queries.listed(session)
            ]

    lines = _with_database(read)
    typer.echo(f"{'ID':<36}  {'ROLE':<6}  {'MADE':<10}  {'LAST USED':<10}  {'REVOKED':<10}  NAME")
    for line in lines:
        typer.echo(line)


def _day(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d}" if instant else f"{'-':<10}"


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")]) -> None:
    """Make a key useless.

    Within ten seconds, for new requests and for open connections.
    """
    from app.keys import service

    async def revoke(database: "Database") -> None:
        async with database.transaction() as session:
            await service.revoke(session, key_id)

    _with_database(revoke)
    typer.echo(f"Revoked {key_id}")


@cli.command("export-schema")
def export_schema() -> None:
    """Print the GraphQL schema.

    In the form in which schema.graphql is committed.
    """
    from app.schema import export

    typer.echo(export(), nl=False)


@imports.command("users")
def import_users(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV or NDJSON file.")
    ],
    format: Annotated[
        Format | None, typer.Option(help="By default as the file's name ends: .csv, .ndjson or .jsonl.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave bad lines out instead of refusing the whole file.")
    ] = False,
) -> None:
    """Create or update the users in FILE.

    NDJSON has an object a line, with the fields of the API's UserInput: {"userId": "anna", "name": "Anna",
    "language": "de", "custom": {"plan": "pro"}}. CSV has the same names as columns; other columns become
    fields of custom. A bad line is reported with its number and reason, and nothing of the file is stored.
    """
    from app.importing import import_visibly
    from app.users.importing import format_of

    chosen = format.value if format else format_of(file)
    report = _with_database(
        lambda database: import_visibly(database, file, chosen, skip_invalid=skip_invalid)
    )
    for bad in report.bad_lines:
        typer.echo(f"line {bad.line}: {bad.reason}", err=True)
    if report.bad > len(report.bad_lines):
        typer.echo(f"... and {report.bad - len(report.bad_lines):,} more bad lines", err=True)
    if report.bad and not skip_invalid:
        raise Stop(
            ExitCode.REFUSED,
            f"{_counted(report.bad, 'bad line')}; nothing was stored. "
            "Mend the file, or leave them out: --skip-invalid",
        )
    left_out = f"; {_counted(report.bad, 'bad line')} left out" if report.bad else ""
    typer.echo(f"{_counted(report.stored, 'user')} stored{left_out}")


@cli.command()
def verify(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's campaignId.")],
) -> None:
    """Prove that a campaign's books balance.

    Counts ledger rows, messages and waiting targets in one snapshot of the database, running or not, and
    compares them with each other and with the stats. Ends with 10 and says what differs if anything does.
    """
    from app.campaigns import queries
    from app.ledger.verification import Books, audit

    async def count(database: "Database") -> tuple[str, Books]:
        async with database.read() as session:
            campaign = await queries.by_id(session, campaign_id)
            if campaign is None:
                raise Stop(ExitCode.REFUSED, f"There is no campaign {campaign_id}.")
            return campaign.status, await audit(session, campaign.campaign_no)

    status, books = _with_database(count)
    still_planning = not books.planned and status in ("IN_PROGRESS", "PAUSED")
    typer.echo(f"{campaign_id}: {status}{', audience still being planned' if still_planning else ''}")
    typer.echo(
        f"  {books.targets:,} targets = {books.sent:,} sent + {books.skipped:,} skipped"
        f" + {books.failed:,} failed + {books.pending:,} pending"
    )
    typer.echo(f"  {books.messages:,} messages{f', {books.erased:,} deleted since' if books.erased else ''}")
    if not books.balanced:
        problems = "".join(f"\n  {problem}" for problem in books.problems)
        raise Stop(ExitCode.UNBALANCED, f"THE BOOKS DO NOT BALANCE:{problems}")
    typer.echo("  The books balance: every target has one message, or one reason why not, or waits its turn.")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _configured(process: str) -> "Settings":
    """The settings, once logs are on their way as they say."""
    from app import logs
    from app.settings import load, unknown

    settings = load()
    logs.configure(settings, process=process)
    for name, nearest in unknown(os.environ).items():
        meant = f"; did you mean {nearest}?" if nearest else ""
        typer.echo(f"{name} is set, but there is no such setting{meant}", err=True)
    return settings


def _with_database(work: "Callable[[Database], Awaitable[Found]]") -> Found:
    """What `work` finds in the database that is set, whose schema must be this program's."""
    from app import migrations
    from app.database import Database

    settings = _configured("carillon")
    migrations.check(settings.database)

    async def open_and_work() -> Found:
        database = Database(settings.database)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(open_and_work())

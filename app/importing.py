"""Importing users in a terminal, with a progress bar."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.database import Database
from app.users import importing
from app.users.files import Format
from app.users.importing import ImportReport

PHASES = {"check": "checking", "store": "storing "}


async def import_visibly(
    database: Database, file: Path, form: Format, *, skip_invalid: bool = False
) -> ImportReport:
    """Imports the file and shows on stderr how far it is; without a terminal it says nothing."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[users]:,} users"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(PHASES["check"], users=0)

        def show(made: importing.Progress) -> None:
            progress.update(
                task,
                description=PHASES[made.phase],
                completed=made.bytes_read,
                total=max(made.bytes_total, 1),
                users=made.users,
            )

        return await importing.import_users(database, file, form, skip_invalid=skip_invalid, on_progress=show)

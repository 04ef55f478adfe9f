"""Before anything serves: the database is migrated, and there is an admin key."""

import asyncio
import sys

from app import migrations
from app.database import Database
from app.exits import explained
from app.keys import service as keys
from app.settings import Settings, load


def prepare(settings: Settings) -> str | None:
    """Migrates the database and makes sure of an admin key.

    Returns its secret when one was made up just now: it is stored nowhere and cannot be shown again.
    """
    migrations.upgrade(settings.database)
    return asyncio.run(_ensure_admin_key(settings))


async def _ensure_admin_key(settings: Settings) -> str | None:
    database = Database(settings.database)
    try:
        async with database.transaction() as session:
            return await keys.ensure_admin_key(session, settings.admin_key)
    finally:
        await database.close()


def main() -> None:
    """The process that `carillon run` starts first: a new admin key's secret goes to stdout."""
    with explained():
        secret = prepare(load())
    if secret is not None:
        sys.stdout.write(secret)

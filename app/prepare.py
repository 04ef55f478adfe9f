"""Before anything serves: the database is migrated, and there is an admin key."""

import asyncio

from app import migrations
from app.database import Database
from app.keys import service as keys
from app.settings import Settings


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

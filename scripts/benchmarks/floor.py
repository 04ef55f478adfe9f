"""The floor: what the database takes for the rows of a campaign when it does nothing but write them."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.checkpoint import WAL_BYTES_BEFORE_CHECKPOINT
from app.database import Database, microseconds
from app.ids import new_number
from scripts.benchmarks.campaign import CAMPAIGN, Run
from scripts.benchmarks.comparing import check_same, content
from scripts.benchmarks.places import SENDER, Place, user_id

SIZES = (500, 1_000, 5_000)
_PRAGMAS = ("wal_autocheckpoint", "synchronous", "temp_store", "cache_size", "mmap_size")
_SETTINGS = ("plan_cache_mode", "synchronous_commit", "timezone")

# One statement a table. The hash and the beginning of the ids are the same for all rows: what is written
# is as long as the real thing and sorts the same way.
_HASH = "71379217e02554949e8ac744aa1b71aa57a0b436381776b8e074e9c80e6e9c0c"
_MESSAGE_ID = "'01a1fdd9-4aaf-7910-91cf-' || id"  # the ids of users have as many characters as are missing
_CID = "'messaging:' || id || '-news'"
_USERS = "FROM users WHERE id BETWEEN :first AND :last ORDER BY id"
_STATEMENTS = (
    "INSERT INTO batches (campaign_no, batch_no, first_target, last_target, targets, pending, sent, skipped,"
    " failed, messages_sent, channels_created, users_sent, attempts, settled_at)"
    " SELECT :campaign_no, batch_no, first_target, last_target, targets, 0, targets, 0, 0, targets, targets,"
    " targets, 0, :now FROM planned WHERE first_target BETWEEN :first AND :last",
    "INSERT INTO channels (cid, type, channel_id, custom, created_by_id, frozen, member_count, members_key,"
    f" last_seq, last_message_at, created_at, updated_at) SELECT {_CID}, 'messaging', id || '-news', '{{}}',"
    f" '{SENDER}', false, 2, '{SENDER}~' || id || '~{_HASH}', 1, :now, :now, :now {_USERS}",
    "INSERT INTO members (cid, user_id, channel_role, custom, hidden, archived, muted, read_seq, created_at)"
    f" SELECT {_CID}, CASE who WHEN 0 THEN '{SENDER}' ELSE id END, 'channel_member', '{{}}', false, false,"
    f" false, 0, :now FROM users CROSS JOIN (SELECT 0 AS who UNION ALL SELECT 1) AS two"
    " WHERE id BETWEEN :first AND :last ORDER BY id",
    "INSERT INTO messages (id, cid, seq, sender_id, type, text, attachments, custom, campaign_no, target_id,"
    " created_at)"
    f" SELECT {_MESSAGE_ID}, {_CID}, 1, '{SENDER}', 'regular', 'Hello ' || name, '[]',"
    f""" '{{"campaign_id":"{CAMPAIGN}"}}', :campaign_no, id, :now {_USERS}""",
    "INSERT INTO recipients (campaign_no, target_id, status, batch_no, cid, message_id, settled_at)"
    f" SELECT :campaign_no, id, 1, :batch_no, {_CID}, {_MESSAGE_ID}, :now {_USERS}",
)
_PLANNED = "CREATE TEMPORARY TABLE planned (batch_no int, first_target text, last_target text, targets int)"


def run_floor(place: Place, run: Run, size: int) -> float:
    """Writes what the campaign wrote into a fresh database, `size` recipients a transaction; the seconds.

    Raises `Differing` if it wrote anything else.
    """
    url = place.fresh()
    connection = place.connect(url)
    try:
        seconds = (_on_sqlite if url.startswith("sqlite:") else _on_postgres)(connection, url, run, size)
        check_same(run.content, content(connection))
    finally:
        connection.close()
    place.drop(url)
    return seconds


def _on_sqlite(connection: Any, url: str, run: Run, size: int) -> float:
    for name, value in asyncio.run(_asked(url, "PRAGMA", _PRAGMAS)):
        connection.execute(f"PRAGMA {name} = {value}")
    log = Path(url.removeprefix("sqlite:///") + "-wal")
    _plan(connection, "INSERT INTO planned VALUES (?, ?, ?, ?)", run)
    now = microseconds(datetime.now(UTC))
    began = time.perf_counter()
    for bound in _parts(run, size, now):
        connection.execute("BEGIN IMMEDIATE")
        for statement in _STATEMENTS:
            connection.execute(statement, bound)
        connection.execute("COMMIT")
        if log.stat().st_size > WAL_BYTES_BEFORE_CHECKPOINT:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return time.perf_counter() - began


def _on_postgres(connection: Any, url: str, run: Run, size: int) -> float:
    for name, value in asyncio.run(_asked(url, "SHOW", _SETTINGS)):
        connection.execute(f"SET {name} = '{value}'")
    _plan(connection, "INSERT INTO planned VALUES (%s, %s, %s, %s)", run)
    statements = [_for_psycopg(statement) for statement in _STATEMENTS]
    began = time.perf_counter()
    for bound in _parts(run, size, datetime.now(UTC)):
        with connection.transaction():
            for statement in statements:
                connection.execute(statement, bound)
    return time.perf_counter() - began


async def _asked(url: str, how: str, names: Sequence[str]) -> list[tuple[str, Any]]:
    """How a sender's connection is set up, asked of one."""
    database = Database(url, durable=False, inline=True)
    async with database.transaction() as session:
        values = [(name, (await session.execute(text(f"{how} {name}"))).scalar_one()) for name in names]
    await database.close()
    return values


def _plan(connection: Any, statement: str, run: Run) -> None:
    """The batches that the campaign had, ready to be copied."""
    connection.execute(_PLANNED)
    connection.cursor().executemany(statement, run.batches)


def _parts(run: Run, size: int, now: Any) -> list[dict[str, Any]]:
    """What the statements of each transaction are given."""
    campaign_no, number_of_users = new_number(), run.content["recipients"].rows
    return [
        {
            "first": user_id(first),
            "last": user_id(min(first + size, number_of_users) - 1),
            "batch_no": 1 + first // 1_000,
            "campaign_no": campaign_no,
            "now": now,
        }
        for first in range(0, number_of_users, size)
    ]


def _for_psycopg(statement: str) -> str:
    for name in ("first", "last", "batch_no", "campaign_no", "now"):
        statement = statement.replace(f":{name}", f"%({name})s")
    return statement

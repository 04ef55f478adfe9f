"""How a batch is written on PostgreSQL: channels in one sorted upsert, then COPY into a temporary table and
set-based inserts from it.

Rows of channels are locked in the order of cid, by bytes, and before anything in them: so batches,
campaigns and mutations that meet in a channel wait for each other and never deadlock.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from psycopg import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncSession

from app.channels.distinct import DISTINCT_PREFIX
from app.ledger.models import RecipientStatus
from app.sending.writing import (
    ChannelState,
    CreatedChannels,
    Disagreement,
    Entry,
    Person,
    Shared,
    TakenChannel,
    WantedChannel,
)

_CHANNEL = (
    "cid, type, channel_id, name, team, custom::text, frozen, last_seq, members_key, last_message_at,"
    " member_count"
)
_MEMBER = "cid, user_id, channel_role, custom, hidden, archived, muted, read_seq, last_read_at, created_at"
_STAGE = """CREATE TEMPORARY TABLE IF NOT EXISTS staged (
    position int, target_id text, status smallint, reason smallint, detail text, cid text COLLATE "C",
    created boolean, seq bigint, message_id text, text text, attachments jsonb, custom jsonb
    ) ON COMMIT DELETE ROWS"""
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class PostgresWriter:
    """The `BatchWriter` of PostgreSQL, bound to the connection of one transaction."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    @classmethod
    async def of(cls, session: AsyncSession) -> "PostgresWriter":
        """The writer of this session's transaction."""
        raw = await (await session.connection()).get_raw_connection()
        connection = raw.driver_connection
        assert isinstance(connection, AsyncConnection)
        return cls(connection)

    async def people(self, user_ids: Sequence[str]) -> dict[str, Person]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT id, name, role, language, created_at, custom::text,"
            " deactivated_at IS NULL AND deleted_at IS NULL FROM users WHERE id = ANY(%s)",
            [list(user_ids)],
        )
        return {row[0]: Person(*row) for row in rows}

    async def deleted(self, user_ids: Sequence[str]) -> list[str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT id FROM users WHERE id = ANY(%s) AND deleted_at IS NOT NULL", [list(user_ids)]
        )
        return [row[0] for row in rows]

    async def channels(self, cids: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        rows = await self._rows(f"SELECT {_CHANNEL} FROM channels WHERE cid = ANY(%s)", [list(cids)])
        return {row[0]: ChannelState(*row) for row in rows}

    async def receivers(self, cids: Sequence[str], sender_id: str) -> dict[str, str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT other.cid, other.user_id FROM channels c"
            " JOIN members own ON own.cid = c.cid AND own.user_id = %s"
            " JOIN members other ON other.cid = c.cid AND other.user_id <> %s"
            " WHERE c.cid = ANY(%s) AND c.member_count = 2",
            [sender_id, sender_id, list(cids)],
        )
        return dict(rows)

    async def pair_channels(self, members_keys: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT {_CHANNEL} FROM channels WHERE members_key = ANY(%s) AND starts_with(channel_id, %s)"
            " ORDER BY last_message_at NULLS FIRST, cid",
            [list(members_keys), DISTINCT_PREFIX],
        )
        return {row[8]: ChannelState(*row) for row in rows}

    async def take_existing(self, wanted: Sequence[WantedChannel], shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`."""
        messages = {channel.cid: len(channel.targets) for channel in wanted}
        rows = await self._rows(
            "WITH wanted AS (SELECT * FROM unnest(%s::text[], %s::int[]) AS w (cid, messages)),"
            " taken AS (SELECT c.cid FROM channels c JOIN wanted w ON w.cid = c.cid"
            " ORDER BY c.cid FOR UPDATE OF c)"
            " UPDATE channels c SET last_seq = c.last_seq + CASE WHEN c.frozen THEN 0 ELSE w.messages END,"
            " last_message_at = CASE WHEN c.frozen THEN c.last_message_at ELSE %s END"
            " FROM taken JOIN wanted w ON w.cid = taken.cid WHERE c.cid = taken.cid"
            " RETURNING c.cid, c.frozen, c.last_seq, c.members_key",
            [list(messages), list(messages.values()), shared.now],
        )
        return {
            cid: TakenChannel(False, frozen, last - messages[cid] + 1, members_key)
            for cid, frozen, last, members_key in rows
        }

    async def take_or_create(
        self, wanted: Sequence[WantedChannel], shared: Shared
    ) -> dict[str, TakenChannel]:
        """See `BatchWriter`. One sorted upsert, that no other batch can come between."""
        created = shared.created
        assert created is not None
        messages = {channel.cid: len(channel.targets) for channel in wanted}
        founding = [created.founding(channel.cid, channel.targets) for channel in wanted]
        rows = await self._rows(
            "INSERT INTO channels AS c (cid, channel_id, member_count, members_key, last_seq, type, team,"
            " custom, created_by_id, frozen, last_message_at, created_at, updated_at)"
            " SELECT w.cid, w.channel_id, w.member_count, w.members_key, w.messages, %s, %s, %s::jsonb, %s,"
            " false, %s, %s, %s FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::int[])"
            " AS w (cid, channel_id, member_count, members_key, messages)"
            ' ORDER BY w.cid COLLATE "C" ON CONFLICT (cid) DO UPDATE SET'
            " last_seq = c.last_seq + CASE WHEN c.frozen THEN 0 ELSE excluded.last_seq END,"
            " last_message_at = CASE WHEN c.frozen THEN c.last_message_at ELSE excluded.last_message_at END"
            " RETURNING c.cid, xmax = 0, c.frozen, c.last_seq",
            [
                created.type,
                created.team,
                created.custom,
                created.created_by_id,
                shared.now,
                shared.now,
                shared.now,
                [channel.cid for channel in wanted],
                [channel.cid[len(created.type) + 1 :] for channel in wanted],
                [member_count for member_count, _ in founding],
                [members_key for _, members_key in founding],
                list(messages.values()),
            ],
        )
        return {
            cid: TakenChannel(created, frozen, last - messages[cid] + 1)
            for cid, created, frozen, last in rows
        }

    async def write(self, entries: Sequence[Entry], shared: Shared) -> None:
        """See `BatchWriter`."""
        await self._stage(entries)
        if shared.created is not None:
            await self._create_members(shared.created, shared)
        messages = await self._count(
            "INSERT INTO messages (id, cid, seq, sender_id, type, text, attachments, custom, poll_id,"
            " campaign_no, target_id, created_at) SELECT message_id, cid, seq, %s, 'regular', text,"
            " attachments, custom, %s, %s, target_id, %s FROM staged WHERE status = %s ORDER BY position",
            [shared.sender_id, shared.poll_id, shared.campaign_no, shared.now, int(RecipientStatus.SENT)],
        )
        ledger = len(entries) if shared.campaign_no is None else await self._write_ledger(shared)
        sent = sum(entry.status == RecipientStatus.SENT for entry in entries)
        if (messages, ledger) != (sent, len(entries)):
            raise Disagreement(
                f"{len(entries)} entries, {sent} sent: {ledger} ledger rows, {messages} messages"
            )

    async def _write_ledger(self, shared: Shared) -> int:
        return await self._count(
            "INSERT INTO recipients (campaign_no, target_id, status, reason, detail, batch_no, cid,"
            " message_id, settled_at) SELECT %s, target_id, status, reason, detail, %s, cid, message_id, %s"
            " FROM staged ORDER BY position",
            [shared.campaign_no, shared.batch_no, shared.now],
        )

    async def _stage(self, entries: Iterable[Entry]) -> None:
        await self._connection.execute(_STAGE)
        lines = [
            _line(
                position,
                entry.target_id,
                int(entry.status),
                None if entry.reason is None else int(entry.reason),
                entry.detail,
                entry.cid,
                "t" if entry.created else "f",
                entry.seq,
                entry.message_id,
                entry.text,
                entry.attachments,
                entry.custom,
            )
            for position, entry in enumerate(entries)
        ]
        async with self._connection.cursor() as cursor, cursor.copy("COPY staged FROM STDIN") as copy:
            await copy.write("".join(lines))

    async def _create_members(self, created: CreatedChannels, shared: Shared) -> None:
        await self._connection.execute(
            f"INSERT INTO members ({_MEMBER}) SELECT cid, target_id, 'channel_member', '{{}}', false, false,"
            " false, 0, NULL, %s FROM staged WHERE created",
            [shared.now],
        )
        await self._connection.execute(
            f"INSERT INTO members ({_MEMBER}) SELECT s.cid, m.user_id, m.channel_role, m.custom::jsonb,"
            " m.hidden, m.archived, false, 0, NULL, %s"
            " FROM (SELECT DISTINCT cid FROM staged WHERE created) s CROSS JOIN"
            " unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::boolean[])"
            " AS m (user_id, channel_role, custom, hidden, archived)"
            " ON CONFLICT (cid, user_id) DO UPDATE SET channel_role = excluded.channel_role,"
            " custom = excluded.custom",
            [
                shared.now,
                [member.user_id for member in created.members],
                [member.channel_role for member in created.members],
                [orjson.dumps(member.custom).decode() for member in created.members],
                [member.hidden for member in created.members],
                [member.archived for member in created.members],
            ],
        )

    async def add_receivers(self, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("target_id", [], shared)

    async def add_to_all(self, user_id: str, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("%s::text", [user_id], shared)

    async def _add(self, who: str, bound: list[Any], shared: Shared) -> Mapping[str, int]:
        rows = await self._rows(
            "WITH added AS ("
            f"INSERT INTO members ({_MEMBER}) SELECT DISTINCT cid, {who}, 'channel_member', '{{}}'::jsonb,"
            " false, false, false, min(seq) OVER (PARTITION BY cid) - 1, NULL::timestamptz, %s::timestamptz"
            " FROM staged WHERE status = %s AND NOT created ON CONFLICT DO NOTHING RETURNING cid)"
            " SELECT cid, count(*) FROM added GROUP BY cid",
            [*bound, shared.now, int(RecipientStatus.SENT)],
        )
        return dict(rows)

    async def show_to_receivers(self) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members m SET hidden = false FROM staged s WHERE s.status = %s AND NOT s.created"
            " AND m.cid = s.cid AND m.user_id = s.target_id AND m.hidden",
            [int(RecipientStatus.SENT)],
        )

    async def show_to_members(self, sender_id: str) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members m SET hidden = false FROM staged s WHERE s.status = %s"
            " AND m.cid = s.cid AND m.user_id <> %s AND m.hidden",
            [int(RecipientStatus.SENT), sender_id],
        )

    async def count_members(self, sender_id: str) -> int:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT coalesce(sum(c.member_count - (own.user_id IS NOT NULL)::int), 0) FROM staged s"
            " JOIN channels c ON c.cid = s.cid LEFT JOIN members own ON own.cid = c.cid AND own.user_id = %s"
            " WHERE s.status = %s",
            [sender_id, int(RecipientStatus.SENT)],
        )
        return int(rows[0][0])

    async def _rows(self, statement: str, bound: Sequence[Any]) -> list[Any]:
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement, bound)
            return await cursor.fetchall()

    async def _count(self, statement: str, bound: Sequence[Any]) -> int:
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement, bound)
            return cursor.rowcount


def _line(*values: str | int | None) -> str:
    """One row in COPY's text form."""
    fields = [
        "\\N" if value is None else value.translate(_ESCAPES) if isinstance(value, str) else str(value)
        for value in values
    ]
    return "\t".join(fields) + "\n"

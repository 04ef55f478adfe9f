"""How a batch is written on PostgreSQL: channels in one sorted upsert, then COPY into a temporary table and
set-based inserts from it.

Rows of channels are locked in the order of cid, by bytes, and before anything in them: so batches,
campaigns and mutations that meet in a channel wait for each other and never deadlock.
"""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import orjson
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from sqlalchemy.ext.asyncio import AsyncSession

from app.channels.models import IS_DISTINCT_ON_POSTGRESQL
from app.ledger.models import RecipientStatus
from app.sending.copying import lines, table
from app.sending.writing import (
    NEW,
    ChannelsTaken,
    ChannelState,
    CreatedChannels,
    CreatedMember,
    Disagreement,
    Entry,
    Person,
    Sending,
    Shared,
    Standing,
    TakenChannel,
    Wanted,
)

_CHANNEL = (
    "cid, type, channel_id, name, team, custom::text, frozen, last_seq, members_key, last_message_at,"
    " member_count"
)
_STANDING = "cid, frozen, last_seq, member_count"
_MEMBER = "cid, user_id, channel_role, custom, hidden, archived, muted, read_seq, last_read_at, created_at"
# The messages to be sent. The defaults are those of most batches: a channel for each receiver, just created.
_STAGE = """CREATE TEMPORARY TABLE IF NOT EXISTS staged (
    target_id text, cid text COLLATE "C", message_id text, text text, attachments jsonb, custom jsonb,
    seq bigint DEFAULT 1, created boolean DEFAULT true, member_count int DEFAULT 2, members_key text
    ) ON COMMIT DELETE ROWS"""
_FOUND = (
    "(cid, channel_id, member_count, members_key, last_seq, type, team, custom, created_by_id, frozen,"
    " last_message_at, created_at, updated_at) SELECT cid, substr(cid, %s), member_count, members_key, 1, %s,"
    " %s, %s::jsonb, %s, false, %s, %s, %s FROM staged ORDER BY cid"
)
# For channels that get one message each. One that is frozen, or that is created though it stood when it was
# looked up, or the other way round, leaves its message without a number. An upsert even where none is to be
# created: to lock those that exist and raise them afterwards took 16 to 28 us a channel, this 12 to 15.
_TAKE = (
    f"WITH taken AS (INSERT INTO channels AS c {_FOUND} ON CONFLICT (cid) DO UPDATE SET"
    " last_seq = c.last_seq + 1, last_message_at = excluded.last_message_at WHERE NOT c.frozen"
    " RETURNING c.cid, xmax = 0 AS created, c.last_seq)"
    " UPDATE staged s SET seq = t.last_seq FROM taken t WHERE t.cid = s.cid AND t.created = s.created"
)
# Many values as one JSON text: the driver takes 2 us to make an element of an array.
_THESE = "ANY(ARRAY(SELECT jsonb_array_elements_text(%s)))"


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

    async def people(self, user_ids: Sequence[str], *, details: bool = True) -> dict[str, Person]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT id, name, role, language, {'created_at, custom::text' if details else 'NULL, NULL'},"
            f" deactivated_at IS NULL AND deleted_at IS NULL FROM users WHERE id = {_THESE}",
            [_json(user_ids)],
        )
        return {row[0]: Person._make(row) for row in rows}

    async def deleted(self, user_ids: Sequence[str]) -> list[str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT id FROM users WHERE id = {_THESE} AND deleted_at IS NOT NULL", [_json(user_ids)]
        )
        return [row[0] for row in rows]

    async def channels(self, cids: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        rows = await self._rows(f"SELECT {_CHANNEL} FROM channels WHERE cid = {_THESE}", [_json(cids)])
        return {row[0]: ChannelState(*row) for row in rows}

    async def receivers(self, cids: Sequence[str], sender_id: str) -> dict[str, str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT other.cid, other.user_id FROM channels c"
            " JOIN members own ON own.cid = c.cid AND own.user_id = %s"
            " JOIN members other ON other.cid = c.cid AND other.user_id <> %s"
            f" WHERE c.cid = {_THESE} AND c.member_count = 2",
            [sender_id, sender_id, _json(cids)],
        )
        return dict(rows)

    async def pair_channels(self, members_keys: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        return {row[8]: ChannelState(*row) for row in await self._pairs(_CHANNEL, members_keys)}

    async def standing(self, cids: Sequence[str]) -> dict[str, Standing]:
        """See `BatchWriter`."""
        rows = await self._rows(f"SELECT {_STANDING} FROM channels WHERE cid = {_THESE}", [_json(cids)])
        return {row[0]: Standing._make(row) for row in rows}

    async def standing_pairs(self, members_keys: Sequence[str]) -> dict[str, Standing]:
        """See `BatchWriter`."""
        rows = await self._pairs(f"members_key, {_STANDING}", members_keys)
        return {key: Standing._make(row) for key, *row in rows}

    async def _pairs(self, columns: str, members_keys: Sequence[str]) -> list[Any]:
        return await self._rows(
            f"SELECT {columns} FROM channels WHERE members_key = {_THESE} AND {IS_DISTINCT_ON_POSTGRESQL}"
            " ORDER BY last_message_at NULLS FIRST, cid",
            [_json(members_keys)],
        )

    async def take_existing(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`."""
        messages = {cid: len(targets) for cid, targets in wanted.items()}
        rows = await self._rows(
            f"WITH wanted AS MATERIALIZED (SELECT * FROM {table('cid text', 'messages int')}),"
            " taken AS (SELECT c.cid FROM channels c JOIN wanted w ON w.cid = c.cid"
            " ORDER BY c.cid FOR UPDATE OF c)"
            " UPDATE channels c SET last_seq = c.last_seq + CASE WHEN c.frozen THEN 0 ELSE w.messages END,"
            " last_message_at = CASE WHEN c.frozen THEN c.last_message_at ELSE %s END"
            " FROM taken JOIN wanted w ON w.cid = taken.cid WHERE c.cid = taken.cid"
            " RETURNING c.cid, c.frozen, c.last_seq, c.members_key",
            [_json(list(messages)), _json(list(messages.values())), shared.now],
        )
        return {
            cid: TakenChannel(False, frozen, last - messages[cid] + 1, members_key)
            for cid, frozen, last, members_key in rows
        }

    async def take_or_create(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`. One sorted upsert, that no other batch can come between."""
        created = shared.created
        assert created is not None
        cids, messages = list(wanted), [len(targets) for targets in wanted.values()]
        founding = _foundings(created, wanted)
        *existing, (*_, number) = await self._rows(
            "WITH taken AS (INSERT INTO channels AS c (cid, channel_id, member_count, members_key, last_seq,"
            " type, team, custom, created_by_id, frozen, last_message_at, created_at, updated_at)"
            " SELECT w.cid, substr(w.cid, %s), w.member_count, w.members_key, w.messages, %s, %s, %s::jsonb,"
            " %s, false, %s, %s, %s"
            f" FROM {table('cid text', 'member_count int', 'members_key text', 'messages int')}"
            ' ORDER BY w.cid COLLATE "C" ON CONFLICT (cid) DO UPDATE SET'
            " last_seq = c.last_seq + CASE WHEN c.frozen THEN 0 ELSE excluded.last_seq END,"
            " last_message_at = CASE WHEN c.frozen THEN c.last_message_at ELSE excluded.last_message_at END"
            " RETURNING c.cid, xmax = 0 AS is_new, c.frozen, c.last_seq)"
            " SELECT cid, frozen, last_seq FROM taken WHERE NOT is_new"
            " UNION ALL SELECT NULL, NULL, count(*) FROM taken",
            [
                *_alike(shared),
                _json(cids),
                _json([member_count for member_count, _ in founding]),
                _json([members_key for _, members_key in founding]),
                _json(messages),
            ],
        )
        if number != len(wanted):
            raise Disagreement(f"{len(wanted)} channels wanted, {number} taken")
        return dict.fromkeys(wanted, NEW) | {
            cid: TakenChannel(False, frozen, last - len(wanted[cid]) + 1) for cid, frozen, last in existing
        }

    async def write(self, sending: Sending, others: Sequence[Entry], shared: Shared) -> None:
        """See `BatchWriter`."""
        sent, ledger = len(sending.target_ids), len(sending.target_ids) + len(others)
        messages, written = 0, ledger
        if sent:
            await self._stage(sending, shared)
            if sending.takes:
                await self._take(sending, shared)
            if shared.created is not None and sending.into_created:
                await self._create_members(shared.created, shared)
            messages = await self._write_messages(shared)
        if shared.campaign_no is not None:
            written = await self._write_ledger(shared) if sent else 0
            written += await self._write_others(others, shared)
        if (messages, written) != (sent, ledger):
            raise Disagreement(f"{ledger} entries, {sent} sent: {written} rows, {messages} messages")

    async def _write_messages(self, shared: Shared) -> int:
        attachments, custom = shared.same_for_all or (None, None)
        return await self._count(
            "INSERT INTO messages (id, cid, seq, sender_id, type, text, attachments, custom, poll_id,"
            " campaign_no, target_id, created_at) SELECT message_id, cid, seq, %s, 'regular', text,"
            " coalesce(attachments, %s::jsonb), coalesce(custom, %s::jsonb), %s, %s, target_id, %s"
            " FROM staged",
            [shared.sender_id, attachments, custom, shared.poll_id, shared.campaign_no, shared.now],
        )

    async def _write_ledger(self, shared: Shared) -> int:
        return await self._count(
            "INSERT INTO recipients (campaign_no, target_id, status, batch_no, cid, message_id, settled_at)"
            " SELECT %s, target_id, %s, %s, cid, message_id, %s FROM staged",
            [shared.campaign_no, int(RecipientStatus.SENT), shared.batch_no, shared.now],
        )

    async def _write_others(self, entries: Sequence[Entry], shared: Shared) -> int:
        """The ledger rows of those that get nothing."""
        if not entries:
            return 0
        columns: dict[str, Sequence[str | None]] = {
            "campaign_no": [str(shared.campaign_no)] * len(entries),
            "batch_no": [str(shared.batch_no)] * len(entries),
            "settled_at": [shared.now.isoformat()] * len(entries),
            "target_id": [entry.target_id for entry in entries],
            "status": [str(int(entry.status)) for entry in entries],
            "reason": [str(int(entry.reason or 0)) for entry in entries],
            "detail": [entry.detail for entry in entries],
            "cid": [entry.cid for entry in entries],
        }
        return await self._copy("recipients", tuple(columns), lines(columns))

    def stage(self, sending: Sending, created: CreatedChannels | None) -> None:
        """See `BatchWriter`."""
        columns: dict[str, Sequence[str | None]] = {**sending.staged()}
        if sending.numbers is not None:
            seqs, are_created = sending.numbers
            columns["created"] = ["t" if created else "f" for created in are_created]
            if not sending.takes:  # else they are known when the channels are locked
                columns["seq"] = list(map(str, seqs))
        if sending.takes and created is not None and sending.into_created:
            columns |= _founding_columns(created, sending)
        sending.staged_as = (tuple(columns), lines(columns))

    async def _stage(self, sending: Sending, shared: Shared) -> None:
        if sending.staged_as is None:
            self.stage(sending, shared.created)
        await self._connection.execute(_STAGE)
        await self._copy("staged", *sending.staged_as)

    async def _take(self, sending: Sending, shared: Shared) -> None:
        """Locks or creates the channels, in the order of cid, and numbers the messages. Others come between
        look and lock: one channel that is not as it was seen, and nothing of this is to be committed."""
        if sending.numbers is None:
            await self._found_channels(shared)
        elif await self._count(_TAKE, _alike(shared)) != len(sending.cids):
            raise ChannelsTaken

    async def _found_channels(self, shared: Shared) -> None:
        """Creates a channel for each message, in the order of cid. Where none exists this takes two thirds
        of the time of an upsert."""
        try:
            await self._connection.execute(f"INSERT INTO channels {_FOUND}", _alike(shared))
        except UniqueViolation:
            raise ChannelsTaken from None

    async def _copy(self, table: str, columns: Sequence[str], lines: str) -> int:
        """Copies lines into a table; returns how many."""
        async with self._connection.cursor() as cursor:
            async with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                await copy.write(lines)
            return cursor.rowcount

    async def _create_members(self, created: CreatedChannels, shared: Shared) -> None:
        """Adds the members of created channels. A receiver whom the campaign names is added as named."""
        named = [member.user_id for member in created.members]
        founders = [*created.members, CreatedMember("", "channel_member", {})]  # the last one: the receiver
        await self._connection.execute(
            f"INSERT INTO members ({_MEMBER}) SELECT s.cid, coalesce(m.user_id, s.target_id), m.channel_role,"
            " m.custom::jsonb, m.hidden, m.archived, false, 0, NULL, %s FROM staged s CROSS JOIN"
            " unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::boolean[])"
            " AS m (user_id, channel_role, custom, hidden, archived) WHERE s.created"
            " AND CASE WHEN m.user_id IS NULL THEN s.target_id <> ALL(%s::text[]) ELSE s.seq = 1 END",
            [
                shared.now,
                [*named, None],
                [member.channel_role for member in founders],
                [_json(member.custom) for member in founders],
                [member.hidden for member in founders],
                [member.archived for member in founders],
                named,
            ],
        )

    async def add_receivers(self, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("target_id", [], shared)

    async def add_to_all(self, user_id: str, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("%s::text", [user_id], shared)

    async def _add(self, who: str, bound: list[Any], shared: Shared) -> Mapping[str, int]:
        # Most often nobody joins. To see that takes half the time of inserts that come to nothing.
        if not await self._rows(
            "SELECT 1 FROM staged s WHERE NOT s.created AND NOT EXISTS"
            f" (SELECT 1 FROM members WHERE cid = s.cid AND user_id = {who}) LIMIT 1",
            bound,
        ):
            return {}
        rows = await self._rows(
            "WITH added AS ("
            f"INSERT INTO members ({_MEMBER}) SELECT DISTINCT cid, {who}, 'channel_member', '{{}}'::jsonb,"
            " false, false, false, min(seq) OVER (PARTITION BY cid) - 1, NULL::timestamptz, %s::timestamptz"
            " FROM staged WHERE NOT created ON CONFLICT DO NOTHING RETURNING cid)"
            " SELECT cid, count(*) FROM added GROUP BY cid",
            [*bound, shared.now],
        )
        return dict(rows)

    async def show_to_receivers(self) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members m SET hidden = false FROM staged s WHERE NOT s.created"
            " AND m.cid = s.cid AND m.user_id = s.target_id AND m.hidden"
        )

    async def show_to_members(self, sender_id: str) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members m SET hidden = false FROM staged s"
            " WHERE m.cid = s.cid AND m.user_id <> %s AND m.hidden",
            [sender_id],
        )

    async def count_members(self, sender_id: str) -> int:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT coalesce(sum(c.member_count - (own.user_id IS NOT NULL)::int), 0) FROM staged s"
            " JOIN channels c ON c.cid = s.cid LEFT JOIN members own ON own.cid = c.cid AND own.user_id = %s",
            [sender_id],
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


def _foundings(created: CreatedChannels, wanted: Wanted) -> list[tuple[int, str | None]]:
    """member_count and members_key of each channel, if it is created."""
    receivers = [targets[0] for targets in wanted.values() if len(targets) == 1]
    keys = created.pair_keys(list(wanted), receivers) if len(receivers) == len(wanted) else None
    if keys is not None:
        return [(2, key) for key in keys]
    return [created.founding(cid, targets) for cid, targets in wanted.items()]


def _founding_columns(created: CreatedChannels, sending: Sending) -> dict[str, Sequence[str | None]]:
    """The same for each message's own channel, in the form of COPY; nothing for one that exists."""
    new = sending.created_cids
    made = [True] * len(new) if sending.numbers is None else sending.numbers[1]
    wanted = dict(zip(new, zip(compress(sending.target_ids, made)), strict=True))
    founding = iter(_foundings(created, wanted))
    pairs = [next(founding) if is_new else (2, None) for is_new in made]
    columns: dict[str, Sequence[str | None]] = {"members_key": [members_key for _, members_key in pairs]}
    if any(member_count != 2 for member_count, _ in pairs):
        columns["member_count"] = [str(member_count) for member_count, _ in pairs]
    return columns


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _alike(shared: Shared) -> list[Any]:
    """What channels that are created have alike: where their ids begin in a cid, then their columns. Where
    none is to be created it does not matter: none is committed."""
    created = shared.created
    if created is None:
        return [1, "", None, "{}", None, *[shared.now] * 3]
    return [
        len(created.type) + 2,
        created.type,
        created.team,
        created.custom,
        created.created_by_id,
        *[shared.now] * 3,
    ]

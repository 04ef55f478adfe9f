"""How a batch is written on SQLite: rows go once into a table in memory, then set-based into each table.

The transaction holds the writer lock from its start, so what it read stays true until it commits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.channels.distinct import DISTINCT_PREFIX
from app.database import microseconds
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
    "cid, type, channel_id, name, team, custom, frozen, last_seq, members_key, last_message_at, member_count"
)
_MEMBER = "cid, user_id, channel_role, custom, hidden, archived, muted, read_seq, last_read_at, created_at"
_STAGED = (
    "target_id TEXT, status INTEGER, reason INTEGER, detail TEXT, cid TEXT, created INTEGER, seq INTEGER,"
    " message_id TEXT, text TEXT, attachments TEXT, custom TEXT, messages INTEGER, member_count INTEGER,"
    " members_key TEXT"
)
_STAGE = f"CREATE TEMP TABLE IF NOT EXISTS staged (position INTEGER PRIMARY KEY, {_STAGED})"
_INTO_STAGE = f"INSERT INTO staged VALUES (NULL{', ?' * 14})"
_FOUNDERS = (
    "CREATE TEMP TABLE IF NOT EXISTS founders (position INTEGER PRIMARY KEY, user_id TEXT, channel_role TEXT,"
    " custom TEXT, hidden INTEGER, archived INTEGER)"
)
_INTO_FOUNDERS = "INSERT INTO founders VALUES (NULL, ?, ?, ?, ?, ?)"
_RECEIVER = (None, "channel_member", "{}", 0, 0)  # the founder that stands for a channel's receivers
_NEW = TakenChannel(created=True, frozen=False, first_seq=1)


class SqliteWriter:
    """The `BatchWriter` of SQLite, bound to the connection of one transaction (aiosqlite's or
    an `InlineConnection`)."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._seen: dict[str, ChannelState] = {}
        self._to_create: dict[str, Sequence[str]] = {}  # cid: receivers

    @classmethod
    async def of(cls, session: AsyncSession) -> "SqliteWriter":
        """The writer of this session's transaction."""
        raw = await (await session.connection()).get_raw_connection()
        return cls(raw.driver_connection)

    async def people(self, user_ids: Sequence[str]) -> dict[str, Person]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT users.id, name, role, language, created_at, custom,"
            " deactivated_at IS NULL AND deleted_at IS NULL"
            " FROM json_each(?) AS wanted CROSS JOIN users ON users.id = wanted.value",
            [_json(user_ids)],
        )
        return {row[0]: Person._make(row) for row in rows}

    async def deleted(self, user_ids: Sequence[str]) -> list[str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT users.id FROM json_each(?) AS wanted CROSS JOIN users ON users.id = wanted.value"
            " WHERE deleted_at IS NOT NULL",
            [_json(user_ids)],
        )
        return [row[0] for row in rows]

    async def channels(self, cids: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT {_CHANNEL} FROM channels WHERE cid IN (SELECT value FROM json_each(?))", [_json(cids)]
        )
        return self._see({row[0]: ChannelState(*row) for row in rows})

    async def receivers(self, cids: Sequence[str], sender_id: str) -> dict[str, str]:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT other.cid, other.user_id FROM json_each(?) AS wanted"
            " CROSS JOIN channels AS c ON c.cid = wanted.value AND c.member_count = 2"
            " CROSS JOIN members AS own ON own.cid = c.cid AND own.user_id = ?"
            " CROSS JOIN members AS other ON other.cid = c.cid AND other.user_id <> ?",
            [_json(cids), sender_id, sender_id],
        )
        return dict(rows)

    async def pair_channels(self, members_keys: Sequence[str]) -> dict[str, ChannelState]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT {_CHANNEL} FROM channels WHERE members_key IN (SELECT value FROM json_each(?))"
            " AND substr(channel_id, 1, ?) = ? ORDER BY last_message_at IS NOT NULL, last_message_at, cid",
            [_json(members_keys), len(DISTINCT_PREFIX), DISTINCT_PREFIX],
        )
        pairs = {row[8]: ChannelState(*row) for row in rows}
        self._see({state.cid: state for state in pairs.values()})
        return pairs

    def _see(self, states: dict[str, ChannelState]) -> dict[str, ChannelState]:
        self._seen.update(states)
        return states

    async def take_existing(self, wanted: Sequence[WantedChannel], shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`. What was read is locked already: by the writer lock."""
        taken = {
            channel.cid: TakenChannel(False, bool(state.frozen), state.last_seq + 1, state.members_key)
            for channel in wanted
            if (state := self._seen.get(channel.cid)) is not None
        }
        if not taken:
            return taken
        await self._connection.executemany(
            "UPDATE channels SET last_seq = last_seq + ?, last_message_at = ? WHERE cid = ? AND NOT frozen",
            [
                (len(channel.targets), microseconds(shared.now), channel.cid)
                for channel in wanted
                if channel.cid in taken
            ],
        )
        return taken

    async def take_or_create(
        self, wanted: Sequence[WantedChannel], shared: Shared
    ) -> dict[str, TakenChannel]:
        """See `BatchWriter`. With the writer lock in hand it is enough that `write` creates them."""
        taken = await self.take_existing(wanted, shared)
        for channel in wanted:
            if channel.cid not in taken:
                taken[channel.cid] = _NEW
                self._to_create[channel.cid] = channel.targets
        return taken

    async def write(self, entries: Sequence[Entry], shared: Shared) -> None:
        """See `BatchWriter`."""
        await self._stage(entries, shared)
        instant = microseconds(shared.now)
        if shared.created is not None and self._to_create:
            await self._create_channels(shared.created, _order(entries), instant)
        messages = await self._count(
            "INSERT INTO messages (id, cid, seq, sender_id, type, text, attachments, custom, poll_id,"
            " campaign_no, target_id, created_at) SELECT message_id, cid, seq, ?, 'regular', text,"
            " attachments, custom, ?, ?, target_id, ? FROM staged WHERE status = ? ORDER BY position",
            [shared.sender_id, shared.poll_id, shared.campaign_no, instant, RecipientStatus.SENT],
        )
        ledger = len(entries) if shared.campaign_no is None else await self._write_ledger(shared)
        sent = sum(entry.status == RecipientStatus.SENT for entry in entries)
        if (messages, ledger) != (sent, len(entries)):
            raise Disagreement(f"{len(entries)} entries, {sent} sent: {ledger} rows, {messages} messages")

    async def _write_ledger(self, shared: Shared) -> int:
        return await self._count(
            "INSERT INTO recipients (campaign_no, target_id, status, reason, detail, batch_no, cid,"
            " message_id, settled_at) SELECT ?, target_id, status, nullif(reason, 0), nullif(detail, ''), ?,"
            " cid, message_id, ? FROM staged ORDER BY position",
            [shared.campaign_no, shared.batch_no, microseconds(shared.now)],
        )

    async def _stage(self, entries: Iterable[Entry], shared: Shared) -> None:
        await self._connection.execute(_STAGE)
        await self._connection.execute("DELETE FROM staged")
        rows = [self._row(entry, shared.created) for entry in entries]
        await self._connection.executemany(_INTO_STAGE, rows)

    def _row(self, entry: Entry, created: CreatedChannels | None) -> tuple[Any, ...]:
        """The entry, and with the first of a channel to create what that is made of. Text and plain integers
        where possible: the driver takes 0.4 us to find out what to do with a None, bool or enum."""
        member_count = members_key = messages = None
        if entry.created and created is not None and entry.seq == 1 and entry.cid is not None:
            receivers = self._to_create[entry.cid]
            messages = len(receivers)
            member_count, members_key = created.founding(entry.cid, receivers)
        return (
            entry.target_id,
            int(entry.status),
            int(entry.reason or 0),
            entry.detail or "",
            entry.cid,
            1 if entry.created else 0,
            entry.seq,
            entry.message_id,
            entry.text,
            entry.attachments,
            entry.custom,
            messages,
            member_count,
            members_key,
        )

    async def _create_channels(self, created: CreatedChannels, order: str, instant: int) -> None:
        await self._connection.execute(
            "INSERT INTO channels (cid, type, channel_id, team, custom, created_by_id, frozen, member_count,"
            " members_key, last_seq, last_message_at, created_at, updated_at)"
            " SELECT cid, ?, substr(cid, ?), ?, ?, ?, 0, member_count, members_key, messages, ?, ?, ?"
            f" FROM staged WHERE member_count IS NOT NULL{order}",
            [
                created.type,
                len(created.type) + 2,
                created.team,
                created.custom,
                created.created_by_id,
                instant,
                instant,
                instant,
            ],
        )
        await self._found(created, order, instant)

    async def _found(self, created: CreatedChannels, order: str, instant: int) -> None:
        """Adds the members of created channels in one pass: a second one would split every page again. A
        receiver whom the campaign names as a member is added as such."""
        await self._connection.execute(_FOUNDERS)
        await self._connection.execute("DELETE FROM founders")
        founders = [
            (member.user_id, member.channel_role, _json(member.custom), member.hidden, member.archived)
            for member in created.members
        ]
        await self._connection.executemany(_INTO_FOUNDERS, [*founders, _RECEIVER])
        await self._connection.execute(
            f"INSERT INTO members ({_MEMBER}) SELECT s.cid, coalesce(f.user_id, s.target_id), f.channel_role,"
            " f.custom, f.hidden, f.archived, 0, 0, NULL, ? FROM staged AS s CROSS JOIN founders AS f"
            " WHERE s.created AND CASE WHEN f.user_id IS NULL"
            " THEN s.target_id NOT IN (SELECT user_id FROM founders WHERE user_id IS NOT NULL)"
            f" ELSE s.member_count IS NOT NULL END{order}",
            [instant],
        )

    async def add_receivers(self, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("target_id", [], shared)

    async def add_to_all(self, user_id: str, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("?", [user_id], shared)

    async def _add(self, who: str, bound: list[Any], shared: Shared) -> Mapping[str, int]:
        rows = await self._rows(
            f"INSERT INTO members ({_MEMBER}) SELECT cid, {who}, 'channel_member', '{{}}', 0, 0, 0,"
            " min(seq) OVER (PARTITION BY cid) - 1, NULL, ? FROM staged WHERE status = ? AND NOT created"
            " ON CONFLICT DO NOTHING RETURNING cid",
            [*bound, microseconds(shared.now), RecipientStatus.SENT],
        )
        return _tally(row[0] for row in rows)

    async def show_to_receivers(self) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members SET hidden = 0 WHERE hidden AND (cid, user_id) IN"
            " (SELECT cid, target_id FROM staged WHERE status = ? AND NOT created)",
            [RecipientStatus.SENT],
        )

    async def show_to_members(self, sender_id: str) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members SET hidden = 0 WHERE hidden AND user_id <> ?"
            " AND cid IN (SELECT cid FROM staged WHERE status = ?)",
            [sender_id, RecipientStatus.SENT],
        )

    async def count_members(self, sender_id: str) -> int:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT coalesce(sum(c.member_count - (own.user_id IS NOT NULL)), 0) FROM staged AS s"
            " CROSS JOIN channels AS c ON c.cid = s.cid"
            " LEFT JOIN members AS own ON own.cid = c.cid AND own.user_id = ? WHERE s.status = ?",
            [sender_id, RecipientStatus.SENT],
        )
        return int(rows[0][0])

    async def _rows(self, statement: str, bound: Sequence[Any]) -> list[Any]:
        cursor = await self._connection.execute(statement, bound)
        return list(await cursor.fetchall())

    async def _count(self, statement: str, bound: Sequence[Any]) -> int:
        rowcount: int = (await self._connection.execute(statement, bound)).rowcount
        return rowcount


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _order(entries: Iterable[Entry]) -> str:
    """What has to be added to insert in the order of cids; most often they are staged in it already."""
    cids = [entry.cid for entry in entries if entry.cid is not None]
    return "" if cids == sorted(cids) else " ORDER BY cid"


def _tally(cids: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cid in cids:
        counts[cid] = counts.get(cid, 0) + 1
    return counts

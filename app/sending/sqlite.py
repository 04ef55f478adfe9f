"""How a batch is written on SQLite: rows go once into a table in memory, then set-based into each table.

The transaction holds the writer lock from its start, so what it read stays true until it commits.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app.channels.models import IS_DISTINCT_ON_SQLITE
from app.database import microseconds
from app.ledger.models import RecipientStatus
from app.scratch import Filled, Scratch
from app.sending.staging import STAGE, Staged, order_of
from app.sending.writing import (
    NEW,
    ChannelsTaken,
    ChannelState,
    CreatedChannels,
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
    "cid, type, channel_id, name, team, custom, frozen, last_seq, members_key, last_message_at, member_count"
)
_STANDING = "cid, frozen, last_seq, member_count"
_MEMBER = "cid, user_id, channel_role, custom, hidden, archived, muted, read_seq, last_read_at, created_at"
_FOUNDERS = (
    "CREATE TEMP TABLE IF NOT EXISTS founders (position INTEGER PRIMARY KEY, user_id TEXT, channel_role TEXT,"
    " custom TEXT, hidden INTEGER, archived INTEGER)"
)
_INTO_FOUNDERS = "INSERT INTO founders VALUES (NULL, ?, ?, ?, ?, ?)"
_FOUNDS = (
    " WHERE s.created AND CASE WHEN f.user_id IS NULL"
    " THEN s.target_id NOT IN (SELECT user_id FROM founders WHERE user_id IS NOT NULL)"
    " ELSE s.messages > 0 END"
)
_IS_THERE = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
_RECEIVER = (None, "channel_member", "{}", 0, 0)  # the founder that stands for a channel's receivers


class SqliteWriter:
    """The `BatchWriter` of SQLite, bound to the connection of one transaction (aiosqlite's or
    an `InlineConnection`). With a `scratch` it stages there, ahead of the transaction that writes."""

    def __init__(self, connection: Any, scratch: Scratch | None = None) -> None:
        self._connection = connection
        self._scratch = scratch
        self._staged = "temp.staged"
        self._seen: dict[str, ChannelState] = {}
        self._to_create: Wanted = {}

    @classmethod
    async def of(cls, session: AsyncSession) -> "SqliteWriter":
        """The writer of this session's transaction."""
        raw = await (await session.connection()).get_raw_connection()
        return cls(raw.driver_connection)

    async def people(self, user_ids: Sequence[str], *, details: bool = True) -> dict[str, Person]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT users.id, name, role, language, {'created_at, custom' if details else 'NULL, NULL'},"
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
        pairs = {row[8]: ChannelState(*row) for row in await self._pairs(_CHANNEL, members_keys)}
        self._see({state.cid: state for state in pairs.values()})
        return pairs

    async def standing(self, cids: Sequence[str]) -> dict[str, Standing]:
        """See `BatchWriter`."""
        rows = await self._rows(
            f"SELECT {_STANDING} FROM channels WHERE cid IN (SELECT value FROM json_each(?))", [_json(cids)]
        )
        return {row[0]: Standing._make(row) for row in rows}

    async def standing_pairs(self, members_keys: Sequence[str]) -> dict[str, Standing]:
        """See `BatchWriter`."""
        rows = await self._pairs(f"members_key, {_STANDING}", members_keys)
        return {key: Standing._make(row) for key, *row in rows}

    async def _pairs(self, columns: str, members_keys: Sequence[str]) -> list[Any]:
        return await self._rows(
            f"SELECT {columns} FROM channels WHERE members_key IN (SELECT value FROM json_each(?))"
            f" AND {IS_DISTINCT_ON_SQLITE} ORDER BY last_message_at IS NOT NULL, last_message_at, cid",
            [_json(members_keys)],
        )

    def _see(self, states: dict[str, ChannelState]) -> dict[str, ChannelState]:
        self._seen.update(states)
        return states

    async def take_existing(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`. What was read is locked already: by the writer lock."""
        if not self._seen:  # read by another writer, ahead of this transaction
            await self.channels(list(wanted))
        taken = {
            cid: TakenChannel(False, bool(state.frozen), state.last_seq + 1, state.members_key)
            for cid in (wanted if self._seen else ())
            if (state := self._seen.get(cid)) is not None
        }
        if not taken:
            return taken
        await self._connection.executemany(
            "UPDATE channels SET last_seq = last_seq + ?, last_message_at = ? WHERE cid = ? AND NOT frozen",
            [(len(wanted[cid]), microseconds(shared.now), cid) for cid in taken],
        )
        return taken

    async def take_or_create(self, wanted: Wanted, shared: Shared) -> dict[str, TakenChannel]:
        """See `BatchWriter`. With the writer lock in hand it is enough that `write` creates them."""
        taken = await self.take_existing(wanted, shared)
        self._to_create = {cid: wanted[cid] for cid in wanted if cid not in taken} if taken else wanted
        return {**dict.fromkeys(self._to_create, NEW), **taken}

    async def write(self, sending: Sending, others: Sequence[Entry], shared: Shared) -> None:
        """See `BatchWriter`."""
        if sending.staged_as is None:
            self.stage(sending, shared.created)
        await self._stage(sending.staged_as)
        instant = microseconds(shared.now)
        if sending.takes and sending.numbers is not None:
            await self._raise(sending, instant)
        if shared.created is not None and (sending.into_created if sending.takes else self._to_create):
            await self._create_channels(shared.created, sending, instant)
        attachments, custom = shared.same_for_all or ("", "")
        messages = await self._count(
            "INSERT INTO messages (id, cid, seq, sender_id, type, text, attachments, custom, poll_id,"
            " campaign_no, target_id, created_at) SELECT message_id, cid, seq, ?, 'regular', text,"
            " coalesce(attachments, ?), coalesce(custom, ?), ?, ?, target_id, ?"
            f" FROM {self._staged} ORDER BY position",
            [shared.sender_id, attachments, custom, shared.poll_id, shared.campaign_no, instant],
        )
        sent, ledger = len(sending.target_ids), len(sending.target_ids) + len(others)
        written = ledger
        if shared.campaign_no is not None:
            written = await self._write_ledger(shared) + await self._write_others(others, shared)
        if (messages, written) != (sent, ledger):
            raise Disagreement(f"{ledger} entries, {sent} sent: {written} rows, {messages} messages")

    async def _write_ledger(self, shared: Shared) -> int:
        return await self._count(
            "INSERT INTO recipients (campaign_no, target_id, status, batch_no, cid, message_id, settled_at)"
            f" SELECT ?, target_id, ?, ?, cid, message_id, ? FROM {self._staged} ORDER BY position",
            [shared.campaign_no, int(RecipientStatus.SENT), shared.batch_no, microseconds(shared.now)],
        )

    async def _write_others(self, entries: Sequence[Entry], shared: Shared) -> int:
        """The ledger rows of those that get nothing. Text and plain integers where possible: the driver takes
        0.4 us to find out what to do with a None, bool or enum."""
        if not entries:
            return 0
        head = (shared.campaign_no, shared.batch_no, microseconds(shared.now))
        written = await self._connection.executemany(
            "INSERT INTO recipients (campaign_no, batch_no, settled_at, target_id, status, reason, detail,"
            " cid) VALUES (?, ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, ''))",
            [
                (
                    *head,
                    entry.target_id,
                    int(entry.status),
                    int(entry.reason or 0),
                    entry.detail or "",
                    entry.cid or "",
                )
                for entry in entries
            ],
        )
        rowcount: int = written.rowcount
        return rowcount

    def stage(self, sending: Sending, created: CreatedChannels | None) -> None:
        """See `BatchWriter`."""
        columns: dict[str, Iterable[Any]] = {**sending.staged()}
        keys = None
        if created is not None and sending.numbers is None:
            keys = created.pair_keys(sending.cids, sending.target_ids)
        columns |= self._foundings(sending, created) if keys is None else {"members_key": keys}
        rows = list(zip(*columns.values(), strict=True))
        staged = Staged(tuple(columns), rows, keys is not None, order_of(sending.cids))
        if self._scratch is not None:
            ahead = self._scratch.fill("staged", STAGE.format(""), staged.inserts())
            staged = staged._replace(ahead=ahead)
        sending.staged_as = staged

    async def _stage(self, staged: Staged) -> None:
        if staged.ahead is not None and await self._found_ahead(staged.ahead):
            return
        self._staged = "temp.staged"
        await self._connection.execute(STAGE.format("TEMP "))
        await self._connection.execute("DELETE FROM temp.staged")
        for statement, values in staged.inserts():
            await self._connection.execute(statement, values)

    async def _found_ahead(self, ahead: Filled) -> bool:
        """Whether it is as it was left; then it is read from there, and stays so until the commit."""
        self._staged = f"{ahead.schema}.staged"
        try:
            await self._connection.execute(f"SELECT 1 FROM {self._staged} LIMIT 1")
        except sqlite3.OperationalError:
            return False
        return ahead.stands

    def _foundings(self, sending: Sending, created: CreatedChannels | None) -> dict[str, Iterable[Any]]:
        """Numbers of messages, and with the first of a channel to create what that is made of."""
        ones = [1] * len(sending.cids)
        seqs, are_created = sending.numbers or (ones, ones)
        rows: list[tuple[int, int, int, str]] = []
        entries = zip(sending.cids, sending.target_ids, seqs, are_created, strict=True)
        for cid, target_id, seq, is_created in entries:
            receivers = self._to_create.get(cid, ()) if is_created and seq == 1 else ()
            if sending.takes:
                receivers = (target_id,) if is_created else ()
            member_count, members_key = 0, None
            if receivers and created is not None:
                member_count, members_key = created.founding(cid, receivers)
            rows.append((1 if is_created else 0, len(receivers), member_count, members_key or ""))
        founding = zip(*rows, strict=True) if rows else ((), (), (), ())
        names = ("created", "messages", "member_count", "members_key")
        return {"seq": seqs, **dict(zip(names, founding, strict=True))}

    async def _raise(self, sending: Sending, instant: int) -> None:
        """Raises `last_seq` of channels that exist. Another one than was read before the transaction began is
        of a slice before this one, which wrote into the same channel."""
        raised = await self._count(
            "UPDATE channels SET last_seq = s.seq, last_message_at = ?"
            f" FROM {self._staged} AS s NOT INDEXED WHERE NOT s.created AND channels.cid = s.cid"
            " AND channels.last_seq = s.seq - 1 AND NOT channels.frozen",
            [instant],
        )
        if raised != len(sending.cids) - sending.into_created:
            raise ChannelsTaken

    async def _create_channels(self, created: CreatedChannels, sending: Sending, instant: int) -> None:
        staged: Staged = sending.staged_as
        inserted = self._connection.execute(
            "INSERT INTO channels (cid, type, channel_id, team, custom, created_by_id, frozen, member_count,"
            " members_key, last_seq, last_message_at, created_at, updated_at)"
            " SELECT cid, ?, substr(cid, ?), ?, ?, ?, 0, member_count, nullif(members_key, ''), messages,"
            f" ?, ?, ? FROM {self._staged} WHERE messages > 0{staged.order}",
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
        try:
            await inserted
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode not in _IS_THERE:  # a trigger or check that refuses one: to blame alone
                raise
            raise ChannelsTaken from None
        await self._found(created, staged, instant)

    async def _found(self, created: CreatedChannels, staged: "Staged", instant: int) -> None:
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
            f" f.custom, f.hidden, f.archived, 0, 0, NULL, ? FROM {self._staged} AS s"
            f" CROSS JOIN founders AS f{'' if staged.pairs else _FOUNDS}{staged.order}",
            [instant],
        )

    async def add_receivers(self, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("target_id", [], shared)

    async def add_to_all(self, user_id: str, shared: Shared) -> Mapping[str, int]:
        """See `BatchWriter`."""
        return await self._add("?", [user_id], shared)

    async def _add(self, who: str, bound: list[Any], shared: Shared) -> Mapping[str, int]:
        # Most often nobody joins. To see that takes a third of the time of inserts that come to nothing.
        if not await self._rows(
            f"SELECT 1 FROM {self._staged} AS s WHERE NOT s.created AND NOT EXISTS"
            f" (SELECT 1 FROM members WHERE cid = s.cid AND user_id = {who}) LIMIT 1",
            bound,
        ):
            return {}
        rows = await self._rows(
            f"INSERT INTO members ({_MEMBER}) SELECT cid, {who}, 'channel_member', '{{}}', 0, 0, 0,"
            f" min(seq) OVER (PARTITION BY cid) - 1, NULL, ? FROM {self._staged} WHERE NOT created"
            " ON CONFLICT DO NOTHING RETURNING cid",
            [*bound, microseconds(shared.now)],
        )
        return _tally(row[0] for row in rows)

    async def show_to_receivers(self) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members SET hidden = 0 WHERE hidden AND (cid, user_id) IN"
            f" (SELECT cid, target_id FROM {self._staged} WHERE NOT created)",
            [],
        )

    async def show_to_members(self, sender_id: str) -> None:
        """See `BatchWriter`."""
        await self._connection.execute(
            "UPDATE members SET hidden = 0 WHERE hidden AND user_id <> ?"
            f" AND cid IN (SELECT cid FROM {self._staged})",
            [sender_id],
        )

    async def count_members(self, sender_id: str) -> int:
        """See `BatchWriter`."""
        rows = await self._rows(
            "SELECT coalesce(sum(c.member_count - (own.user_id IS NOT NULL)), 0)"
            f" FROM {self._staged} AS s"
            " CROSS JOIN channels AS c ON c.cid = s.cid"
            " LEFT JOIN members AS own ON own.cid = c.cid AND own.user_id = ?",
            [sender_id],
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


def _tally(cids: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cid in cids:
        counts[cid] = counts.get(cid, 0) + 1
    return counts

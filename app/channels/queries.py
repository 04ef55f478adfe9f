"""Every statement about channels and their members."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.database import changed, dialect_of
from app.given import given
from app.rows import columns_by_keys

MemberKey = tuple[str, str]

CHANNELS_TABLE = Channel.__table__  # type: ignore[attr-defined]
MEMBERS_TABLE = Member.__table__  # type: ignore[attr-defined]
WRITTEN = ("name", "team", "custom", "created_by_id", "frozen", "member_count", "members_key", "updated_at")


def matching(where: ColumnElement[bool] | None = None) -> Select[Channel]:
    """Channels that `where` is true for; unordered."""
    statement = select(Channel)
    return statement if where is None else statement.where(where)


def of_user(user_id: str | ColumnElement[str]) -> Select[Channel]:
    """The channels that a user is a member of; unordered."""
    return (
        select(Channel)
        .join(Member, col(Member.cid) == col(Channel.cid))
        .where(col(Member.user_id) == user_id)
    )


def members_of(cid: str | ColumnElement[str]) -> Select[Member]:
    """The members of a channel; unordered."""
    return select(Member).where(col(Member.cid) == cid)


async def by_cids(session: AsyncSession, cids: Sequence[str]) -> Mapping[str, Channel]:
    """The channels of these cids."""
    found = await session.execute(select(Channel).where(col(Channel.cid).in_(cids)))
    return {channel.cid: channel for channel in found.scalars()}


async def columns_by_cids(
    session: AsyncSession, cids: Sequence[str], columns: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """The values of these columns, the cid among them, of the channels of these cids."""
    return await columns_by_keys(session, Channel, "cid", cids, columns)


def is_member(session: AsyncSession, keys: Iterable[MemberKey]) -> ColumnElement[bool]:
    """The member is one of these (cid, user id)."""
    wanted = given(session, keys, cid=Text, user_id=Text)
    return tuple_(col(Member.cid), col(Member.user_id)).in_(select(wanted))


async def members_by_keys(session: AsyncSession, keys: Sequence[MemberKey]) -> Mapping[MemberKey, Member]:
    """The members of these (cid, user id)."""
    found = await session.execute(select(Member).where(is_member(session, keys)))
    return {(member.cid, member.user_id): member for member in found.scalars()}


async def locked(session: AsyncSession, cids: Sequence[str]) -> dict[str, Channel]:
    """The channels of these cids, their rows locked in the order of cid: before anything in them."""
    found = await session.execute(
        select(Channel)
        .where(col(Channel.cid).in_(cids))
        .order_by(col(Channel.cid))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {channel.cid: channel for channel in found.scalars()}


async def take_or_create(
    session: AsyncSession, named: Mapping[str, tuple[str, str]], at: datetime
) -> dict[str, dict[str, Any]]:
    """The rows of these channels (type and channel id by cid), locked; absent ones are created, empty.

    One sorted upsert, as batches of campaigns do it: nothing can come between looking and creating, and
    whoever meets another waits in the same order.
    """
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    inserted = dialect.insert(CHANNELS_TABLE)
    statement = inserted.on_conflict_do_update(
        index_elements=[CHANNELS_TABLE.c.cid], set_={"updated_at": inserted.excluded.updated_at}
    ).returning(CHANNELS_TABLE)
    rows = [
        {"cid": cid, "type": named[cid][0], "channel_id": named[cid][1], "custom": {}, "frozen": False}
        | {"member_count": 0, "last_seq": 0, "erased_seq": 0, "created_at": at, "updated_at": at}
        for cid in sorted(named)
    ]
    found = await (await session.connection()).execute(statement, rows)
    return {row.cid: dict(row._mapping) for row in found}


async def overwrite(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what people may say about channels, and their members' count and key, over these locked rows."""
    statement = update(CHANNELS_TABLE).where(CHANNELS_TABLE.c.cid == bindparam("key"))
    await (await session.connection()).execute(
        statement.values({name: bindparam(name) for name in WRITTEN}),
        [{"key": row["cid"], **{name: row[name] for name in WRITTEN}} for row in rows],
    )


async def member_ids(session: AsyncSession, cids: Sequence[str]) -> dict[str, set[str]]:
    """The present members of these channels."""
    found: dict[str, set[str]] = {cid: set() for cid in cids}
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id)).where(col(Member.cid).in_(cids))
    )
    for cid, user_id in rows:
        found[cid].add(user_id)
    return found


async def insert_members(
    session: AsyncSession, read_seqs: Mapping[MemberKey, int], at: datetime
) -> dict[str, int]:
    """Adds those who are no members yet, each with the `read_seq` given; says how many joined each channel.
    The channels' rows must be locked."""
    if not read_seqs:
        return {}
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    statement = dialect.insert(MEMBERS_TABLE).on_conflict_do_nothing().returning(MEMBERS_TABLE.c.cid)
    fresh = {"channel_role": "channel_member", "custom": {}, "created_at": at}
    unset = {"hidden": False, "archived": False, "muted": False}
    rows = [
        {"cid": cid, "user_id": user_id, "read_seq": read_seqs[cid, user_id], **fresh, **unset}
        for cid, user_id in sorted(read_seqs)
    ]
    joined = await (await session.connection()).execute(statement, rows)
    return _tally(joined.scalars())


async def delete_members(session: AsyncSession, keys: Sequence[MemberKey]) -> dict[str, int]:
    """Takes out those of these (cid, user id) that are members; says how many left each channel. The
    channels' rows must be locked."""
    if not keys:
        return {}
    gone = await session.execute(
        delete(MEMBERS_TABLE).where(is_member(session, keys)).returning(MEMBERS_TABLE.c.cid)
    )
    return _tally(gone.scalars())


def _tally(cids: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for cid in cids:
        counts[cid] = counts.get(cid, 0) + 1
    return counts


async def some_members(session: AsyncSession, cids: Sequence[str], limit: int) -> list[MemberKey]:
    """Up to `limit` members of these channels."""
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id))
        .where(col(Member.cid).in_(cids))
        .order_by(col(Member.cid), col(Member.user_id))
        .limit(limit)
    )
    return [(cid, user_id) for cid, user_id in rows]


async def delete_channels(session: AsyncSession, cids: Sequence[str]) -> None:
    """Deletes these locked channels and their members; their messages must be gone."""
    await changed(session, delete(Member).where(col(Member.cid).in_(cids)))
    await changed(session, delete(Channel).where(col(Channel.cid).in_(cids)))

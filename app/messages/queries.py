"""Every statement that reads messages, and how many of them a member has not read."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.channels.queries import MemberKey, is_member
from app.given import given
from app.messages.models import Message
from app.rows import columns_by_keys

Range = tuple[int, int]  # of `seq`: behind the first, up to the second


def in_channel(cid: str | ColumnElement[str]) -> Select[Message]:
    """The messages of a channel; unordered."""
    return select(Message).where(col(Message.cid) == cid)


async def by_ids(session: AsyncSession, message_ids: Sequence[str]) -> Mapping[str, Message]:
    """The messages of these ids."""
    found = await session.execute(select(Message).where(col(Message.id).in_(message_ids)))
    return {message.id: message for message in found.scalars()}


async def columns_by_ids(
    session: AsyncSession, message_ids: Sequence[str], columns: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """The values of these columns, the id among them, of the messages of these ids."""
    return await columns_by_keys(session, Message, "id", message_ids, columns)


async def unread_counts(session: AsyncSession, keys: Sequence[MemberKey]) -> Mapping[MemberKey, int]:
    """How many messages of others came after what each of these members has read."""
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id), col(Member.read_seq), col(Channel.last_seq))
        .add_columns(col(Channel.erased_seq))
        .join(Channel, col(Channel.cid) == col(Member.cid))
        .where(is_member(session, keys))
    )
    behind, gaps, read_seqs = dict[MemberKey, int](), dict[MemberKey, Range](), dict[MemberKey, int]()
    for cid, user_id, read_seq, last_seq, erased_seq in rows:
        read_seqs[cid, user_id] = read_seq
        behind[cid, user_id] = last_seq - max(read_seq, erased_seq)
        if read_seq < erased_seq:
            gaps[cid, user_id] = read_seq, erased_seq
    own = await _own_after_read(session, read_seqs)
    left = await _left_after_read(session, gaps) if gaps else {}
    return {key: count + left.get(key, 0) - own.get(key, 0) for key, count in behind.items()}


async def _left_after_read(session: AsyncSession, gaps: Mapping[MemberKey, Range]) -> dict[MemberKey, int]:
    """How many messages are left between what these members have read and the last that was erased. Only
    channels from which messages were erased are counted so.

    The places up to which a channel's members have read part it: each message is counted once, in its part,
    however many members have not read it.
    """
    ends: dict[str, set[int]] = {}
    for (cid, _), gap in gaps.items():
        ends.setdefault(cid, set()).update(gap)
    parts = [(cid, *part) for cid, places in ends.items() for part in pairwise(sorted(places))]
    counts = await _counts(session, parts)
    left: dict[tuple[str, int], int] = {}
    for cid, start, end in reversed(parts):
        left[cid, start] = counts.get((cid, start), 0) + left.get((cid, end), 0)
    return {(cid, user_id): left[cid, read_seq] for (cid, user_id), (read_seq, _) in gaps.items()}


async def _counts(session: AsyncSession, parts: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
    """How many messages each of these parts of channels has, where there are any: those behind its start up
    to its end."""
    part = given(session, parts, cid=Text, start=BigInteger, end=BigInteger)
    counted = await session.execute(
        select(part.c.cid, part.c.start, func.count())
        .join(
            Message,
            (col(Message.cid) == part.c.cid)
            & (col(Message.seq) > part.c.start)
            & (col(Message.seq) <= part.c.end),
        )
        .group_by(part.c.cid, part.c.start)
    )
    return {(cid, start): count for cid, start, count in counted}


async def _own_after_read(session: AsyncSession, read_seqs: Mapping[MemberKey, int]) -> dict[MemberKey, int]:
    """How many messages these members wrote after what they have read, where there are any.

    The messages are found first, in one walk per channel: looked for member by member, a thousand members
    walk their channel a thousand times.
    """
    starts: dict[str, int] = {}
    for (cid, _), read_seq in read_seqs.items():
        starts[cid] = min(read_seq, starts.get(cid, read_seq))
    unread = given(session, starts.items(), cid=Text, start=BigInteger)
    written = (
        select(col(Message.cid), col(Message.sender_id), col(Message.seq))
        .join(unread, (col(Message.cid) == unread.c.cid) & (col(Message.seq) > unread.c.start))
        .where(col(Message.sender_id).in_({user_id for _, user_id in read_seqs}))
        .cte("written")
        .prefix_with("MATERIALIZED")
    )
    counted = await session.execute(
        select(written.c.cid, written.c.sender_id, func.count())
        .join(Member, (col(Member.cid) == written.c.cid) & (col(Member.user_id) == written.c.sender_id))
        .where(written.c.seq > col(Member.read_seq))
        .group_by(written.c.cid, written.c.sender_id)
    )
    return {(cid, user_id): count for cid, user_id, count in counted}

"""Every statement that reads messages, and how many of them a member has not read."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.channels.queries import MemberKey, is_member
from app.messages.models import Message


def in_channel(cid: str) -> Select[Message]:
    """The messages of a channel; unordered."""
    return select(Message).where(col(Message.cid) == cid)


async def by_ids(session: AsyncSession, message_ids: Sequence[str]) -> Mapping[str, Message]:
    """The messages of these ids."""
    found = await session.execute(select(Message).where(col(Message.id).in_(message_ids)))
    return {message.id: message for message in found.scalars()}


async def unread_counts(session: AsyncSession, keys: Sequence[MemberKey]) -> Mapping[MemberKey, int]:
    """How many messages of others came after what each of these members has read."""
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id), col(Member.read_seq), col(Channel.last_seq))
        .add_columns(col(Channel.erased_seq))
        .join(Channel, col(Channel.cid) == col(Member.cid))
        .where(is_member(session, keys))
    )
    behind, with_gaps = dict[MemberKey, int](), dict[MemberKey, int]()
    for cid, user_id, read_seq, last_seq, erased_seq in rows:
        behind[cid, user_id] = last_seq - max(read_seq, erased_seq)
        if read_seq < erased_seq:
            with_gaps[cid, user_id] = read_seq
    own = await _own_after_read(session, keys)
    left = await _left_after_read(session, with_gaps) if with_gaps else {}
    return {key: count + left.get(key, 0) - own.get(key, 0) for key, count in behind.items()}


async def _left_after_read(session: AsyncSession, read_seqs: Mapping[MemberKey, int]) -> dict[MemberKey, int]:
    """How many messages are left between what these members have read and the last that was erased. Only
    channels from which messages were erased are counted so."""
    seqs: dict[str, list[int]] = {}
    rows = await session.execute(
        select(col(Message.cid), col(Message.seq))
        .join(Channel, col(Channel.cid) == col(Message.cid))
        .where(
            col(Message.cid).in_({cid for cid, _ in read_seqs}),
            col(Message.seq) > min(read_seqs.values()),
            col(Message.seq) <= col(Channel.erased_seq),
        )
        .order_by(col(Message.cid), col(Message.seq))
    )
    for cid, seq in rows:
        seqs.setdefault(cid, []).append(seq)
    return {
        (cid, user_id): len(seqs.get(cid, ())) - bisect_right(seqs.get(cid, ()), read_seq)
        for (cid, user_id), read_seq in read_seqs.items()
    }


async def _own_after_read(session: AsyncSession, keys: Sequence[MemberKey]) -> dict[MemberKey, int]:
    """How many messages these members wrote after what they have read, where there are any.

    The messages are found first, in one walk per channel: looked for member by member, a thousand members
    walk their channel a thousand times.
    """
    cids = sorted({cid for cid, _ in keys})
    first_unread = select(func.min(col(Member.read_seq))).where(col(Member.cid).in_(cids)).scalar_subquery()
    written = (
        select(col(Message.cid), col(Message.sender_id), col(Message.seq))
        .where(
            col(Message.cid).in_(cids),
            col(Message.seq) > first_unread,
            col(Message.sender_id).in_({user_id for _, user_id in keys}),
        )
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

"""Every statement that reads messages, and how many of them a member has not read."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.channels.queries import MemberKey
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
    wanted = tuple_(col(Member.cid), col(Member.user_id)).in_(keys)
    behind = await session.execute(
        select(col(Member.cid), col(Member.user_id), col(Channel.last_seq) - col(Member.read_seq))
        .join(Channel, col(Channel.cid) == col(Member.cid))
        .where(wanted)
    )
    own = await _own_after_read(session, keys)
    return {(cid, user_id): count - own.get((cid, user_id), 0) for cid, user_id, count in behind}


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

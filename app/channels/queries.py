"""Every statement that reads channels and their members."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member

MemberKey = tuple[str, str]


def matching(where: ColumnElement[bool] | None = None) -> Select[Channel]:
    """Channels that `where` is true for; unordered."""
    statement = select(Channel)
    return statement if where is None else statement.where(where)


def of_user(user_id: str) -> Select[Channel]:
    """The channels that a user is a member of; unordered."""
    return (
        select(Channel)
        .join(Member, col(Member.cid) == col(Channel.cid))
        .where(col(Member.user_id) == user_id)
    )


def members_of(cid: str) -> Select[Member]:
    """The members of a channel; unordered."""
    return select(Member).where(col(Member.cid) == cid)


async def by_cids(session: AsyncSession, cids: Sequence[str]) -> Mapping[str, Channel]:
    """The channels of these cids."""
    found = await session.execute(select(Channel).where(col(Channel.cid).in_(cids)))
    return {channel.cid: channel for channel in found.scalars()}


async def members_by_keys(session: AsyncSession, keys: Sequence[MemberKey]) -> Mapping[MemberKey, Member]:
    """The members of these (cid, user id)."""
    wanted = tuple_(col(Member.cid), col(Member.user_id)).in_(keys)
    found = await session.execute(select(Member).where(wanted))
    return {(member.cid, member.user_id): member for member in found.scalars()}

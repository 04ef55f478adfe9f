"""Changes of channels."""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from app.channels.distinct import MEMBERS_WITH_KEY, members_key
from app.channels.models import Channel, Member


async def count_joined(session: AsyncSession, joined: Mapping[str, int]) -> None:
    """Raises `member_count` by who joined each channel and renews `members_key`. The channels' rows must be
    locked already, in the order of cid."""
    if not joined:
        return
    table = SQLModel.metadata.tables[Channel.__tablename__]
    counted = (
        update(table)
        .where(table.c.cid == bindparam("of"))
        .values(member_count=table.c.member_count + bindparam("more"))
    )
    await session.execute(counted, [{"of": cid, "more": joined[cid]} for cid in sorted(joined)])
    keys = await _present_keys(session, sorted(joined))
    renewed = update(table).where(table.c.cid == bindparam("of")).values(members_key=bindparam("key"))
    await session.execute(renewed, [{"of": cid, "key": keys.get(cid)} for cid in sorted(joined)])


async def _present_keys(session: AsyncSession, cids: Sequence[str]) -> dict[str, str]:
    """The keys of the channels that are small enough to have one."""
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id))
        .join(Channel, col(Channel.cid) == col(Member.cid))
        .where(col(Member.cid).in_(cids), col(Channel.member_count) <= MEMBERS_WITH_KEY)
    )
    members: dict[str, list[str]] = {}
    for cid, user_id in rows:
        members.setdefault(cid, []).append(user_id)
    return {cid: members_key(user_ids) for cid, user_ids in members.items()}

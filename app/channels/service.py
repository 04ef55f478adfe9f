"""Changes of channels."""

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.distinct import MEMBERS_WITH_KEY, members_key
from app.channels.models import Channel, Member
from app.database import changed


async def count_joined(session: AsyncSession, joined: Mapping[str, int]) -> None:
    """Raises `member_count` by who joined each channel and renews `members_key`. The channels' rows must be
    locked already, in the order of cid."""
    for cid in sorted(joined):
        row = await session.execute(
            update(Channel)
            .where(col(Channel.cid) == cid)
            .values(member_count=col(Channel.member_count) + joined[cid])
            .returning(col(Channel.member_count))
            .execution_options(synchronize_session=False)
        )
        await _renew_key(session, cid, row.scalar_one())


async def _renew_key(session: AsyncSession, cid: str, member_count: int) -> None:
    key = None
    if member_count <= MEMBERS_WITH_KEY:
        rows = await session.execute(select(col(Member.user_id)).where(col(Member.cid) == cid))
        key = members_key(rows.scalars().all())
    await changed(
        session,
        update(Channel).where(col(Channel.cid) == cid).values(members_key=key),
    )

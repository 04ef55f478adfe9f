"""Deleting users. A tombstone stays at once; what they were members of, and perhaps what was sent to them, is
cleared away in chunks that no writer has to wait for: the first with the deletion, the last by housekeeping.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from sqlalchemy import ColumnElement, SQLColumnExpression, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels import queries as channels
from app.channels.distinct import MEMBERS_WITH_KEY
from app.channels.inputs import is_distinct
from app.channels.models import Channel, Member
from app.channels.queries import MemberKey
from app.channels.service import count_joined
from app.database import Database, after_commit, now
from app.ledger.erasing import CHUNK, Erased, erase_messages, messages_to_erase
from app.messages.models import Message
from app.users import queries as users
from app.users import service
from app.users.models import Erasure, User

MEMBERSHIPS = 250  # that one transaction clears away
KEYED_MEMBERS = 20_000  # that one transaction reads, to renew the keys of their channels
SECONDS_AT_ONCE = 1.0  # that a deletion clears away before it answers
USERS = 100  # whom one round of housekeeping clears away together

# A batch that read a user before the deletion commits within five seconds, or never: so long more may come.
SETTLED_AFTER = timedelta(seconds=10)


async def delete_users(database: Database, user_ids: Sequence[str], *, erase_messages: bool) -> list[str]:
    """Deletes those of 1 to 1,000 users who live, and gives their ids; see `users.service.bury`. They are
    members of nothing any more, unless that takes more than a second: then housekeeping goes on."""
    async with database.transaction() as session:
        deleted = await service.bury(session, user_ids, erase_messages=erase_messages)
        if await _clear_some(session, deleted):
            after_commit(session, partial(_clear_at_once, database, deleted))
    return deleted


async def _clear_at_once(database: Database, user_ids: Sequence[str]) -> None:
    until = monotonic() + SECONDS_AT_ONCE
    while await _clear_chunk(database, user_ids, SETTLED_AFTER) and monotonic() < until:
        pass


async def clear_deleted(database: Database, settled_after: timedelta = SETTLED_AFTER) -> None:
    """Clears away what is left of deleted users, a chunk a transaction."""
    async with database.read() as session:
        found = await users.erasing(session, "", USERS)
    while found:
        while await _clear_chunk(database, found, settled_after):
            await database.checkpoint_if_large()
        async with database.read() as session:
            found = await users.erasing(session, found[-1], USERS)


async def _clear_chunk(database: Database, user_ids: Sequence[str], settled_after: timedelta) -> bool:
    """Whether there is more. Of users deleted long enough ago, and of whom nothing is left, it notes that."""
    async with database.transaction() as session:
        await users.shared(session, user_ids)  # whoever comes back now waits, and so is told from a tombstone
        held = await users.locked_erasures(session, user_ids)
        if await _clear_some(session, held):
            return True
        await users.finish_erasures(session, held, await now(session) - settled_after)
    return False


async def _clear_some(session: AsyncSession, user_ids: Sequence[str]) -> bool:
    """Clears away a chunk of what these users had when they were deleted; says whether there is more.
    Messages go before the membership, by which they are found."""
    if not user_ids:
        return False
    found = await _memberships(session, user_ids)
    locked = await channels.locked(session, sorted({cid for cid, _ in found}))
    chunk = _affordable(found, locked)
    distinct = [key for key in chunk if key[0] in locked and is_distinct(locked[key[0]].channel_id)]
    if await _erase_some(session, distinct):
        return True
    left = await channels.delete_members(session, chunk)
    await count_joined(session, {cid: -count for cid, count in left.items()})
    return len(chunk) < len(found) or len(found) == MEMBERSHIPS


def _before_deletion(at: SQLColumnExpression[datetime]) -> ColumnElement[bool]:
    """Of a tombstone everything; of a user who came back what was there when deleted. Of joined rows."""
    return or_(col(User.deleted_at).is_not(None), at <= col(Erasure.deleted_at))


async def _memberships(session: AsyncSession, user_ids: Sequence[str]) -> list[MemberKey]:
    rows = await session.execute(
        select(col(Member.cid), col(Member.user_id))
        .join(Erasure, col(Erasure.user_id) == col(Member.user_id))
        .join(User, col(User.id) == col(Member.user_id))
        .where(col(Member.user_id).in_(user_ids), _before_deletion(col(Member.created_at)))
        .order_by(col(Member.cid), col(Member.user_id))
        .limit(MEMBERSHIPS)
    )
    return [(cid, user_id) for cid, user_id in rows]


def _affordable(found: Sequence[MemberKey], locked: dict[str, Channel]) -> list[MemberKey]:
    """The first memberships, one at least: few enough members are read to renew their channels' keys."""
    chunk, read = list[MemberKey](), 0
    for cid, user_id in found:
        size = locked[cid].member_count if cid in locked else 0
        read += size if size <= MEMBERS_WITH_KEY else 0
        if chunk and read > KEYED_MEMBERS:
            break
        chunk.append((cid, user_id))
    return chunk


async def _erase_some(session: AsyncSession, keys: Sequence[MemberKey]) -> bool:
    """Erases a chunk of what others wrote to these members of distinct channels, where that was asked for;
    says whether there is more."""
    if not keys:
        return False
    written_to_them = (
        exists()
        .where(
            channels.is_member(session, keys),
            col(Member.cid) == col(Message.cid),
            col(Member.user_id) != col(Message.sender_id),
            col(Erasure.user_id) == col(Member.user_id),
            col(Erasure.messages),
            col(User.id) == col(Member.user_id),
            _before_deletion(col(Message.created_at)),
        )
        .correlate(Message)
    )
    cids = sorted({cid for cid, _ in keys})
    statement = messages_to_erase().where(col(Message.cid).in_(cids), written_to_them).limit(CHUNK)
    messages = [Erased(*row) for row in await session.execute(statement)]
    await erase_messages(session, messages)
    return len(messages) == CHUNK

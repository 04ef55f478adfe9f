"""Deleting users. A tombstone stays at once; what they were members of, and perhaps what was sent to them, is
cleared away in chunks that no writer has to wait for: the first with the deletion, the last by housekeeping.

Messages sent to them are found twice: in the ledgers of all campaigns, wherever the users are members by now;
and in the channels of which they are members, whatever became of the campaigns.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, Text, and_, exists, func, or_, select
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels import queries as channels
from app.channels.distinct import DISTINCT_PREFIX, MEMBERS_WITH_KEY, distinct_id
from app.channels.inputs import is_distinct
from app.channels.models import Channel, Member
from app.channels.queries import MemberKey
from app.channels.service import count_joined
from app.database import Database, after_commit, dialect_of, now
from app.given import given
from app.ledger.erasing import CHUNK, Erased, erase_messages, messages_to_erase
from app.ledger.models import Plan, Recipient
from app.messages.models import Message
from app.users import queries as users
from app.users import service
from app.users.models import Erasure, User

MEMBERSHIPS = 250  # that one transaction clears away
KEYED_MEMBERS = 20_000  # that one transaction reads, to renew the keys of their channels
LEDGER_ROWS = 10_000  # that one read looks up
SECONDS_AT_ONCE = 1.0  # that a deletion clears away before it answers
USERS = 100  # whom one round of housekeeping clears away together

# A batch that read a user before the deletion commits within five seconds, a test message within the 30 s of
# any transaction, or never: so long more may come.
SETTLED_AFTER = timedelta(seconds=35)

# With statistics from before a campaign PostgreSQL would rather read whole ledgers than look up their rows.
_LOOK_UP = sql(
    "SELECT set_config('join_collapse_limit', '1', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),"
    " set_config('enable_material', 'off', true)"
)

LedgerKey = tuple[int, str]


async def delete_users(database: Database, user_ids: Sequence[str], *, erase_messages: bool) -> list[str]:
    """Deletes those of 1 to 1,000 users who live, and gives their ids; see `users.service.bury`. They are
    members of nothing any more, unless that takes more than a second: then housekeeping goes on."""
    async with database.transaction() as session:
        deleted = await service.bury(session, user_ids, erase_messages=erase_messages)
        more = await _clear_some(session, deleted)
        if more or (deleted and erase_messages):
            after_commit(session, partial(_clear_at_once, database, deleted))
    return deleted


async def _clear_at_once(database: Database, user_ids: Sequence[str]) -> None:
    until = monotonic() + SECONDS_AT_ONCE
    async with aclosing(_clear(database, user_ids, SETTLED_AFTER)) as steps:
        while monotonic() < until and await anext(steps, False):
            pass


async def clear_deleted(database: Database, settled_after: timedelta = SETTLED_AFTER) -> None:
    """Clears away what is left of deleted users, a chunk a transaction."""
    async with database.read() as session:
        found = await users.erasing(session, "", USERS)
    while found:
        async with aclosing(_clear(database, found, settled_after)) as steps:
            async for _ in steps:
                await database.checkpoint_if_large()
        async with database.read() as session:
            found = await users.erasing(session, found[-1], USERS)


async def _clear(
    database: Database, user_ids: Sequence[str], settled_after: timedelta
) -> AsyncGenerator[bool]:
    """Clears away all that there is, and stops after each step. Of users who were deleted long enough before
    the first step, so that nothing can have come behind it, it notes in the end that nothing is left."""
    async with database.read() as session:
        settled_before = await now(session) - settled_after
    held, more = await _clear_chunk(database, user_ids)
    while more:
        yield True
        held, more = await _clear_chunk(database, user_ids)
    async with aclosing(_erase_by_ledger(database, held)) as steps:
        async for _ in steps:
            yield True
    async with database.transaction() as session:
        held = await users.locked_erasures(session, held)
        await users.finish_erasures(session, held, settled_before)


async def _clear_chunk(database: Database, user_ids: Sequence[str]) -> tuple[list[str], bool]:
    """Those of these users that nobody else clears away now, and whether there is more of them."""
    async with database.transaction() as session:
        await users.shared(session, user_ids)  # whoever comes back now waits, and so is told from a tombstone
        held = await users.locked_erasures(session, user_ids)
        return held, await _clear_some(session, held)


async def _clear_some(session: AsyncSession, user_ids: Sequence[str]) -> bool:
    """Clears away a chunk of what these users had when they were deleted; says whether there is more.
    Messages go before the membership, by which they are found."""
    if not user_ids:
        return False
    found = await _memberships(session, user_ids)
    locked = await channels.locked(session, sorted({cid for cid, _ in found}))
    chunk = _affordable(found, locked)
    distinct = [key for key in chunk if key[0] in locked and is_distinct(locked[key[0]].channel_id)]
    if await _erase_some(session, distinct, locked):
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


async def _erase_some(session: AsyncSession, keys: Sequence[MemberKey], locked: dict[str, Channel]) -> bool:
    """Erases a chunk of what was sent to these members of distinct channels, where that was asked for; says
    whether there is more."""
    asked = set(await users.erasing_messages(session, sorted({user_id for _, user_id in keys})))
    keys = [key for key in keys if key[1] in asked]
    if not keys:
        return False
    cids = sorted({cid for cid, _ in keys})
    sent_to_them = _sent_to(session, keys, await _pairs(session, keys, locked))
    statement = messages_to_erase().where(col(Message.cid).in_(cids), sent_to_them).limit(CHUNK)
    messages = [Erased(*row) for row in await session.execute(statement)]
    await erase_messages(session, messages)
    return len(messages) == CHUNK


def _sent_to(
    session: AsyncSession, keys: Sequence[MemberKey], pairs: Sequence[tuple[str, str, str]]
) -> ColumnElement[bool]:
    """The message names one of these members as its receiver, or one of these pairs wrote it to the other."""
    named = exists().where(
        channels.is_member(session, keys),
        col(Member.cid) == col(Message.cid),
        col(Member.user_id) == col(Message.target_id),
        *_erasable(col(Member.user_id)),
    )
    pair = given(session, pairs, cid=Text, user_id=Text, sender_id=Text)
    written = exists().where(
        pair.c.cid == col(Message.cid),
        pair.c.sender_id == col(Message.sender_id),
        *_erasable(pair.c.user_id),
    )
    return or_(named.correlate(Message), and_(_to_the_channel(), written.correlate(Message)))


def _erasable(user_id: SQLColumnExpression[str]) -> tuple[ColumnElement[bool], ...]:
    """The message is one of those that were asked to be erased with this user."""
    return (
        col(Erasure.user_id) == user_id,
        col(Erasure.messages).is_(True),
        col(User.id) == user_id,
        _before_deletion(col(Message.created_at)),
    )


def _to_the_channel() -> ColumnElement[bool]:
    """The message names no user whom it is for."""
    return or_(col(Message.target_id).is_(None), col(Message.target_id) == col(Message.cid))


async def _pairs(
    session: AsyncSession, keys: Sequence[MemberKey], locked: dict[str, Channel]
) -> list[tuple[str, str, str]]:
    """Of these members of distinct channels those who founded theirs with one other user, who wrote to the
    channel: cid, user id and that other's. What the one writes there is for the other."""
    rows = await session.execute(
        select(col(Message.cid), col(Message.sender_id))
        .where(col(Message.cid).in_({cid for cid, _ in keys}), _to_the_channel())
        .distinct()
    )
    writers: dict[str, list[str]] = {}
    for cid, sender_id in rows:
        writers.setdefault(cid, []).append(sender_id)
    return [
        (cid, user_id, sender_id)
        for cid, user_id in keys
        for sender_id in writers.get(cid, ())
        if sender_id != user_id and locked[cid].channel_id == distinct_id((user_id, sender_id))
    ]


async def _erase_by_ledger(database: Database, user_ids: Sequence[str]) -> AsyncGenerator[None]:
    """Erases what the ledgers of all campaigns say was sent to these users in distinct channels, where that
    was asked for, members or not; stops after each page of campaigns, and each chunk of messages."""
    if not user_ids:
        return
    after: int | None = 0
    async with database.read() as session:
        wanted = await users.erasing_messages(session, user_ids)
    while wanted and after is not None:
        async with database.read() as session:
            campaign_nos = await _campaigns(session, after, max(1, LEDGER_ROWS // len(wanted)))
            keys = [(campaign_no, user_id) for campaign_no in campaign_nos for user_id in wanted]
            found = await _sent(session, keys)
        for start in range(0, len(found), CHUNK):
            await _erase_chunk(database, found[start : start + CHUNK])
            yield
        yield
        after = campaign_nos[-1] if campaign_nos else None


async def _campaigns(session: AsyncSession, after: int, limit: int) -> list[int]:
    """The campaigns behind `after` that have a ledger, up to `limit`; deleted ones too."""
    found = await session.execute(
        select(col(Plan.campaign_no))
        .where(col(Plan.campaign_no) > after)
        .order_by(col(Plan.campaign_no))
        .limit(limit)
    )
    return list(found.scalars())


async def _sent(session: AsyncSession, keys: Sequence[LedgerKey]) -> list[Erased]:
    """The messages in distinct channels that these ledger rows tell of, as far as they are to be erased."""
    if not keys:
        return []
    if dialect_of(session) == "postgresql":
        await session.execute(_LOOK_UP)
    rows = given(session, keys, campaign_no=BigInteger, target_id=Text)
    key = (col(Recipient.campaign_no), col(Recipient.target_id))
    found = await session.execute(
        messages_to_erase()
        .select_from(rows)
        .join(Recipient, and_(key[0] == rows.c.campaign_no, key[1] == rows.c.target_id))
        .join(Message, col(Message.id) == col(Recipient.message_id))
        .join(Channel, col(Channel.cid) == col(Message.cid))
        .join(Erasure, col(Erasure.user_id) == key[1])
        .join(User, col(User.id) == key[1])
        .where(
            func.substr(col(Channel.channel_id), 1, len(DISTINCT_PREFIX)) == DISTINCT_PREFIX,
            col(Message.campaign_no) == key[0],
            col(Message.target_id) == key[1],
            col(Message.target_id) != col(Message.cid),  # that is a campaign for channels
            *_erasable(key[1]),
        )
    )
    return [Erased(*row) for row in found]


async def _erase_chunk(database: Database, found: Sequence[Erased]) -> None:
    """Erases these messages, but for those that are gone or whose receiver has come back since."""
    keys = [(each.campaign_no, each.target_id) for each in found]
    known = [(campaign_no, user_id) for campaign_no, user_id in keys if campaign_no and user_id]
    async with database.transaction() as session:
        await users.shared(session, {user_id for _, user_id in known})
        locked = await channels.locked(session, sorted({each.cid for each in found}))
        await erase_messages(session, [each for each in await _sent(session, known) if each.cid in locked])

"""Changes of channels and their members."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import BigInteger, Text, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels import queries
from app.channels.distinct import MEMBERS_WITH_KEY, members_key
from app.channels.inputs import checked_members, flag
from app.channels.models import Channel, Member
from app.database import changed, now
from app.errors import InvalidInput, NotFound
from app.given import given
from app.users import queries as users
from app.validation import Problems

FLAGS = ("hidden", "archived", "muted")


async def count_joined(session: AsyncSession, joined: Mapping[str, int]) -> None:
    """Raises `member_count` by who joined each channel (less than 0: who left) and renews `members_key`. The
    channels' rows must be locked already, in the order of cid."""
    if not joined:
        return
    more = given(session, joined.items(), cid=Text, count=BigInteger)
    count = col(Channel.member_count) + more.c["count"]
    counted = update(Channel).where(col(Channel.cid) == more.c.cid).values(member_count=count)
    await changed(session, counted)
    keys = await _present_keys(session, sorted(joined))
    present = given(session, [(cid, keys.get(cid)) for cid in joined], cid=Text, key=Text)
    renewed = update(Channel).where(col(Channel.cid) == present.c.cid).values(members_key=present.c.key)
    await changed(session, renewed)


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


async def locked(session: AsyncSession, cid: str) -> Channel:
    """The channel, its row locked. Raises `NotFound`."""
    channel = (await queries.locked(session, [cid])).get(cid)
    if channel is None:
        raise NotFound(f"there is no channel {cid}", path=("cid",))
    return channel


async def add_members(session: AsyncSession, cid: str, user_ids: Sequence[str]) -> Channel:
    """Makes 1 to 1,000 users members of a channel; those who are already stay as they are.

    Whoever joins has read what was written before: only later messages are unread.
    """
    wanted = checked_members(user_ids)
    living = await users.shared(session, wanted)
    problems = Problems()
    problems_of_unknown(problems, ("user_ids",), user_ids, living)
    with problems.at():
        channel = await locked(session, cid)
    problems.check()
    keys = {(cid, user_id): channel.last_seq for user_id in wanted}
    joined = await queries.insert_members(session, keys, await now(session))
    return await _recounted(session, channel, joined)


async def remove_members(session: AsyncSession, cid: str, user_ids: Sequence[str]) -> Channel:
    """Takes 1 to 1,000 users out of a channel; those who are no members are no error."""
    leaving = checked_members(user_ids)
    channel = await locked(session, cid)
    left = await queries.delete_members(session, [(cid, user_id) for user_id in leaving])
    return await _recounted(session, channel, {cid: -count for cid, count in left.items()})


async def _recounted(session: AsyncSession, channel: Channel, joined: Mapping[str, int]) -> Channel:
    await count_joined(session, joined)
    await session.refresh(channel)
    return channel


async def update_member(
    session: AsyncSession, cid: str, user_id: str, changes: Mapping[str, bool | None]
) -> Channel:
    """Changes `hidden`, `archived` or `muted` of a member, whichever is given; None is false."""
    values = {name: flag(changes[name]) for name in FLAGS if name in changes}
    channel = await locked(session, cid)
    member = await member_of(session, channel, user_id)
    for name, value in values.items():
        setattr(member, name, value)
    await session.flush()
    return channel


async def member_of(session: AsyncSession, channel: Channel, user_id: str) -> Member:
    """A member of the channel. Raises `NotFound`."""
    key = (channel.cid, user_id)
    member = (await queries.members_by_keys(session, [key])).get(key)
    if member is None:
        raise NotFound(f"{user_id} is no member of {channel.cid}", path=("user_id",))
    return member


def problems_of_unknown(
    problems: Problems, path: Sequence[str | int], user_ids: Iterable[str], living: Mapping[str, bool]
) -> None:
    """Adds a problem for every one of these ids that no living user has, under `path` and its position."""
    for position, user_id in enumerate(user_ids):
        if not living.get(user_id):
            problems.add(unknown_user(user_id), *path, position)


def unknown_user(user_id: str) -> InvalidInput:
    """What is said of an id that no user has, or none any more."""
    return InvalidInput(f"there is no user {user_id}")

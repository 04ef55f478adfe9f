"""Whom a campaign names: its segments, as they are until it starts and as they were then from there on."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import orjson
from sqlalchemy import Select, func, select, union
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign, CampaignTarget
from app.campaigns.queries import definitions
from app.database import dialect_of
from app.segments.kinds import SegmentKind
from app.segments.models import Segment
from app.segments.queries import contains, members_select, range_end

LEAST_WIDTH = 20_000  # ids that one read of a filter looks at, some ten milliseconds
# How long a chunk looks for more targets of a filter that matches few: with one read a chunk, a campaign to
# ten of half a million users waited for a dozen turns.
SECONDS_TO_SEARCH = 0.1
IDS_A_TARGET = 2


@dataclass(frozen=True, slots=True)
class Naming:
    """How an audience names one target: which of its `segments` are `matching` now, in the order given, or
    by a userId."""

    segments: tuple[Segment, ...]
    matching: tuple[Segment, ...]
    by_id: bool

    @property
    def named(self) -> bool:
        """Whether it names the target at all."""
        return self.by_id or bool(self.matching)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Targets of a range of ids, and the last id of it; None if there are no more ids."""

    target_ids: Sequence[str]
    end: str | None


async def next_stretch(
    session: AsyncSession, campaign: Campaign, *, after: str | None, limit: int
) -> Stretch:
    """The next targets behind `after`, as `next_targets` gives them, of bounded ranges of ids: a filter that
    matches few would otherwise go through all users at once. Up to `limit` of them, or as many as 0.1 s are
    enough for."""
    until, found = monotonic() + SECONDS_TO_SEARCH, list[str]()
    while True:
        stretch = await _next_range(session, campaign, after, limit - len(found))
        found += stretch.target_ids
        if stretch.end is None or len(found) == limit or monotonic() > until:
            return Stretch(found, stretch.end)
        after = stretch.end


async def _next_range(session: AsyncSession, campaign: Campaign, after: str | None, limit: int) -> Stretch:
    found = await definitions(session, campaign.campaign_no)
    last, kinds = None, {each["kind"] for _, each in found}
    if SegmentKind.FILTER in kinds:
        named = [each for _, each in found]
        width = max(LEAST_WIDTH, IDS_A_TARGET * limit)
        last = await range_end(session, named, after, width, campaign.sender_id)
    target_ids = await next_targets(session, campaign, after=after, last=last, limit=limit)
    return Stretch(target_ids, target_ids[-1] if len(target_ids) == limit else last)


async def next_targets(
    session: AsyncSession,
    campaign: Campaign,
    *,
    after: str | None = None,
    last: str | None = None,
    limit: int,
) -> Sequence[str]:
    """The next targets behind `after`, up to `last`, ascending, each once however many segments name it."""
    arms = await _arms(session, campaign, after, last, limit)
    statement: Select[str] = arms[0]
    if len(arms) > 1:
        merged = union(*(select(arm.subquery().c.target_id) for arm in arms)).subquery()
        statement = select(merged.c.target_id).order_by(merged.c.target_id).limit(limit)
    connection = await session.connection()
    if dialect_of(session) == "sqlite":  # as one text: every row of its own waits for other threads
        all_of_them = select(func.json_group_array(statement.subquery().c.target_id))
        target_ids: list[str] = orjson.loads((await connection.execute(all_of_them)).scalar_one())
        return target_ids
    result = await connection.execute(statement)
    # As the driver has them: made into rows of SQLAlchemy's they would take four times as long.
    return [target_id for (target_id,) in result.cursor.fetchall()] if result.cursor else []


async def _arms(
    session: AsyncSession, campaign: Campaign, after: str | None, last: str | None, limit: int
) -> list[Select[str]]:
    """One ascending select with its own limit for each segment, or for the list of userIds."""
    named = [
        members_select(
            dialect_of(session), each, sender_id=campaign.sender_id, after=after, last=last, limit=limit
        )
        for _, each in await definitions(session, campaign.campaign_no)
    ]
    if named:
        return named
    target_id = col(CampaignTarget.target_id)
    ids = select(target_id).where(col(CampaignTarget.campaign_no) == campaign.campaign_no)
    if after is not None:
        ids = ids.where(target_id > after)
    return [ids.order_by(target_id).limit(limit)]


async def naming(session: AsyncSession, campaign: Campaign, target_id: str) -> Naming:
    """How the audience names this target."""
    found = await definitions(session, campaign.campaign_no)
    if not found:
        named = await session.get(CampaignTarget, (campaign.campaign_no, target_id))
        return Naming((), (), by_id=named is not None)
    matching = [
        segment for segment, each in found if await contains(session, each, target_id, campaign.sender_id)
    ]
    return Naming(tuple(segment for segment, _ in found), tuple(matching), by_id=False)

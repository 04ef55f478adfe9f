"""Planning: freezing the audience of a started campaign into batches, a chunk at a time.

One walk over the union of all segments by target id, one keyset cursor; overlaps vanish by themselves.
Targets are looked up in a read of their own, so that a slow filter holds no lock; the chunk is then
stored only if the cursor still stands where it was read, which makes one planner of many.
"""

from collections.abc import Sequence
from enum import StrEnum

import structlog
from sqlalchemy import Select, insert, select, union, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import lifecycle
from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.campaigns.states import RUNNING, StatusReason
from app.database import Database, changed, dialect_of
from app.errors import QuotaExceeded
from app.ledger.models import Batch, BatchTargets, Plan
from app.segments.queries import members_select
from app.sending.running import CampaignNotRunning, ensure_running
from app.usage import service as usage

log = structlog.get_logger(__name__)

FIRST_CHUNK = 2_000  # so that the first message of a large audience goes out within half a second
CHUNK = 20_000
BATCH = 1_000  # 15 to 30 ms of sending on SQLite
SMALLEST_BATCH = 100  # the pace may be lifted at any time: many small batches would then be slow
SECONDS_A_THROTTLED_BATCH = 2  # so that the speed over ten seconds can be told from batches


class Planning(StrEnum):
    """What came of planning a chunk."""

    STORED = "stored"
    FINISHED = "finished"
    OVERTAKEN = "overtaken"  # another planner, a stop or a deletion came first
    OVER_QUOTA = "over quota"


async def plan_chunk(database: Database, campaign_no: int, *, capacity: int | None) -> Planning:
    """Stores the next chunk of the campaign's audience as batches.

    An audience that outgrows the month's `capacity` pauses the campaign with QUOTA_EXCEEDED.
    """
    async with database.read() as session:
        plan = await session.get(Plan, campaign_no)
        campaign = await session.get(Campaign, campaign_no)
        if plan is None or plan.planned or campaign is None or campaign.deleted_at is not None:
            return Planning.OVERTAKEN
        limit = CHUNK if plan.cursor is not None else FIRST_CHUNK
        target_ids = await _next_targets(session, campaign, plan.cursor, limit)
    try:
        async with database.transaction() as session:
            return await _store(session, campaign, plan, target_ids, len(target_ids) < limit, capacity)
    except CampaignNotRunning:
        return Planning.OVERTAKEN
    except QuotaExceeded as error:
        async with database.transaction() as session:
            await lifecycle.pause_by_server(session, campaign_no, StatusReason.QUOTA_EXCEEDED, error.message)
        return Planning.OVER_QUOTA


async def _next_targets(
    session: AsyncSession, campaign: Campaign, after: str | None, limit: int
) -> Sequence[str]:
    arms = await _arms(session, campaign, after, limit)
    if not arms:
        return []
    if len(arms) == 1:
        statement: Select[str] = arms[0]
    else:
        merged = union(*(select(arm.subquery().c.target_id) for arm in arms)).subquery()
        statement = select(merged.c.target_id).order_by(merged.c.target_id).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def _arms(
    session: AsyncSession, campaign: Campaign, after: str | None, limit: int
) -> list[Select[str]]:
    """One ascending select with its own limit for each segment, or for the list of userIds."""
    definitions = await session.execute(
        select(col(CampaignSegment.definition))
        .where(col(CampaignSegment.campaign_no) == campaign.campaign_no)
        .order_by(col(CampaignSegment.position))
    )
    arms = [
        members_select(
            dialect_of(session), definition or {}, sender_id=campaign.sender_id, after=after, limit=limit
        )
        for definition in definitions.scalars()
    ]
    if arms:
        return arms
    target_id = col(CampaignTarget.target_id)
    named = select(target_id).where(col(CampaignTarget.campaign_no) == campaign.campaign_no)
    if after is not None:
        named = named.where(target_id > after)
    return [named.order_by(target_id).limit(limit)]


async def _store(
    session: AsyncSession,
    campaign: Campaign,
    plan: Plan,
    target_ids: Sequence[str],
    exhausted: bool,
    capacity: int | None,
) -> Planning:
    size = _batch_size(campaign)
    parts = [target_ids[start : start + size] for start in range(0, len(target_ids), size)]
    targets = plan.targets + len(target_ids)
    reserved = max(plan.reserved, targets)
    moved = await changed(
        session,
        update(Plan)
        .where(
            col(Plan.campaign_no) == plan.campaign_no,
            col(Plan.planned).is_(False),
            col(Plan.last_batch_no) == plan.last_batch_no,
            col(Plan.cursor).is_not_distinct_from(plan.cursor),
        )
        .values(
            cursor=target_ids[-1] if target_ids else plan.cursor,
            planned=exhausted,
            targets=targets,
            reserved=reserved,
            last_batch_no=plan.last_batch_no + len(parts),
        ),
    )
    if moved != 1:
        return Planning.OVERTAKEN
    await _insert_batches(session, campaign.campaign_no, plan.last_batch_no, parts)
    if reserved > plan.reserved:
        await usage.reserve(session, plan.period, reserved - plan.reserved, capacity)
    await ensure_running(session, campaign.campaign_no, RUNNING)
    log.debug("planned", campaign=campaign.campaign_id, targets=targets, finished=exhausted)
    return Planning.FINISHED if exhausted else Planning.STORED


def _batch_size(campaign: Campaign) -> int:
    if campaign.max_messages_per_second is None:
        return BATCH
    return max(SMALLEST_BATCH, min(BATCH, campaign.max_messages_per_second * SECONDS_A_THROTTLED_BATCH))


async def _insert_batches(
    session: AsyncSession, campaign_no: int, last_batch_no: int, parts: Sequence[Sequence[str]]
) -> None:
    if not parts:
        return
    await session.execute(
        insert(Batch),
        [
            Batch(
                campaign_no=campaign_no,
                batch_no=number,
                first_target=part[0],
                last_target=part[-1],
                targets=len(part),
                pending=len(part),
            ).model_dump()
            for number, part in enumerate(parts, last_batch_no + 1)
        ],
    )
    await session.execute(
        insert(BatchTargets),
        [
            {"campaign_no": campaign_no, "batch_no": number, "target_ids": list(part)}
            for number, part in enumerate(parts, last_batch_no + 1)
        ],
    )

"""Planning: freezing the audience of a started campaign into batches, a chunk at a time.

One walk over the union of all segments by target id, one keyset cursor; overlaps vanish by themselves.
Targets are looked up in a read of their own, so that a slow filter holds no lock; the chunk is then
stored only if the cursor still stands where it was read, which makes one planner of many.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

import structlog
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import lifecycle
from app.campaigns.models import Campaign
from app.campaigns.states import RUNNING, StatusReason
from app.database import Database, changed
from app.errors import QuotaExceeded
from app.ledger import queries as ledger
from app.ledger.models import Batch, BatchTargets, Plan
from app.sending.audience import Stretch, next_stretch
from app.sending.running import CampaignNotRunning, ensure_running
from app.usage import service as usage

log = structlog.get_logger(__name__)

FIRST_CHUNK = 2_000  # so that the first message of a large audience goes out within half a second
CHUNK = 21_000
FIRST_BATCH = 500  # the first message comes with the commit of its batch: 0.1 s sooner than with 2,000
BATCH = 3_000  # 50 ms of sending on SQLite, 90 on PostgreSQL; what every batch costs is felt with a thousand
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
        if plan is None or plan.planned or plan.retry_reasons is not None:
            return Planning.OVERTAKEN
        if campaign is None or campaign.deleted_at is not None:
            return Planning.OVERTAKEN
        limit = CHUNK if plan.cursor is not None else FIRST_CHUNK
        stretch = await next_stretch(session, campaign, after=plan.cursor, limit=limit)
        target_ids = stretch.target_ids
        reserved = await _to_reserve(session, plan, plan.targets + len(target_ids), capacity)
    try:
        async with database.transaction() as session:
            return await _store(session, campaign, plan, stretch, reserved, capacity)
    except CampaignNotRunning:
        return Planning.OVERTAKEN
    except QuotaExceeded as error:
        async with database.transaction() as session:
            await lifecycle.pause_by_server(session, campaign_no, StatusReason.QUOTA_EXCEEDED, error.message)
        return Planning.OVER_QUOTA


async def _to_reserve(session: AsyncSession, plan: Plan, targets: int, capacity: int | None) -> int:
    """What the campaign has to have reserved for so many targets. Those that turned out to need no message
    make room for others; without a capacity they need not be counted, the end gives back what is too much."""
    if targets > plan.reserved and capacity is not None:
        settled = (await ledger.sums(session, [plan.campaign_no]))[plan.campaign_no]
        targets -= settled.skipped + settled.failed
    return max(plan.reserved, targets)


async def _store(
    session: AsyncSession,
    campaign: Campaign,
    plan: Plan,
    stretch: Stretch,
    reserved: int,
    capacity: int | None,
) -> Planning:
    target_ids, exhausted = stretch.target_ids, stretch.end is None
    opens = (
        plan.cursor is None and not exhausted
    )  # a large audience: of a small one all comes with one commit
    parts = in_batches(campaign, target_ids, first=FIRST_BATCH if opens else BATCH)
    targets = plan.targets + len(target_ids)
    moved = await changed(
        session,
        update(Plan)
        .where(
            col(Plan.campaign_no) == plan.campaign_no,
            col(Plan.planned).is_(False),
            col(Plan.retry_reasons).is_(None),
            col(Plan.reserved) == plan.reserved,
            col(Plan.period) == plan.period,
            col(Plan.last_batch_no) == plan.last_batch_no,
            col(Plan.cursor).is_not_distinct_from(plan.cursor),
        )
        .values(
            cursor=stretch.end or (target_ids[-1] if target_ids else plan.cursor),
            planned=exhausted,
            targets=targets,
            reserved=reserved,
            last_batch_no=plan.last_batch_no + len(parts),
        ),
    )
    if moved != 1:
        return Planning.OVERTAKEN
    await insert_batches(session, campaign.campaign_no, plan.last_batch_no, parts)
    if reserved > plan.reserved:
        more = reserved - plan.reserved
        await usage.reserve(session, plan.period, more, capacity, usage.GOING_ON)
    await ensure_running(session, campaign.campaign_no, RUNNING)
    log.debug("planned", campaign=campaign.campaign_id, targets=targets, finished=exhausted)
    return Planning.FINISHED if exhausted else Planning.STORED


def in_batches(campaign: Campaign, target_ids: Sequence[str], *, first: int = BATCH) -> list[Sequence[str]]:
    """Ascending ids cut into ranges of a batch each: smaller ones where a pace is set, and the `first` of
    them as small as that."""
    size = BATCH
    if campaign.max_messages_per_second is not None:
        throttled = campaign.max_messages_per_second * SECONDS_A_THROTTLED_BATCH
        size = max(SMALLEST_BATCH, min(BATCH, throttled))
    bounds = [0, *range(min(first, size), len(target_ids), size), len(target_ids)]
    return [target_ids[start:end] for start, end in pairwise(bounds) if start < end]


async def insert_batches(
    session: AsyncSession, campaign_no: int, last_batch_no: int, parts: Sequence[Sequence[str]]
) -> None:
    """Stores open batches of these ids, numbered from `last_batch_no` on."""
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

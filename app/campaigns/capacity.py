"""The message capacity of campaigns: counting what is still to be sent, reserving it, giving the unsent back.

Counting takes the longer the larger an audience is, so it is done in short reads before the transaction that
reserves. Who joins in between is found by planning, which reserves more or pauses the campaign.

`Plan.reserved` is what was taken for a campaign so far, in whatever months: all that it has sent, and what
`Plan.period` still holds for it. A campaign counts in the month of its start, or of its last resume or retry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.models import Campaign, CampaignTarget
from app.campaigns.states import ENDED, Action, Status, move
from app.database import Database, now
from app.ledger import queries as ledger
from app.ledger.models import Plan, Recipient, RecipientStatus
from app.ledger.recipients import UNSENT, unsent
from app.segments import service as segments
from app.usage import service as usage

LOOKED_AT = 20_000  # ledger rows of one read


@dataclass(frozen=True, slots=True)
class Reserved:
    """Message capacity taken for a start."""

    period: str
    messages: int


async def needed_to_start(database: Database, campaign_id: str, capacity: int | None) -> int:
    """How many messages the audience needs; 0 without a `capacity`: planning adds up what it finds.

    Raises NOT_FOUND, and CONFLICT for a campaign that cannot be started, before anything is counted.
    """
    if capacity is None:
        return 0
    return await _audience(database, await _allowed(database, campaign_id, Action.START))


async def needed_when_due(database: Database, campaign_no: int, capacity: int | None) -> int:
    """The same for a campaign that may start by its schedule; 0 if it does not."""
    if capacity is None:
        return 0
    async with database.read() as session:
        at = await now(session)
        campaign = (await queries.by_nos(session, [campaign_no])).get(campaign_no)
    return await _audience(database, campaign) if campaign is not None and is_due(campaign, at) else 0


async def needed_to_resume(database: Database, campaign_id: str, capacity: int | None) -> int | None:
    """How many messages a paused campaign has still to send; None without a `capacity`: as many as it holds.

    Raises NOT_FOUND, and CONFLICT for a campaign that is not paused, before anything is counted.
    """
    if capacity is None:
        return None
    campaign = await _allowed(database, campaign_id, Action.RESUME)
    async with database.read() as session:
        plan = await session.get_one(Plan, campaign.campaign_no)
        sums = (await ledger.sums(session, [campaign.campaign_no]))[campaign.campaign_no]
    return sums.pending + await _not_planned(database, campaign, plan)


def is_due(campaign: Campaign, at: datetime) -> bool:
    """Whether a scheduled campaign starts now."""
    return (
        campaign.status == Status.SCHEDULED
        and past(campaign.scheduled_for, at)
        and not past(campaign.stop_at, at)
    )


def past(instant: datetime | None, at: datetime) -> bool:
    """Whether an instant has come."""
    return instant is not None and instant <= at


async def _allowed(database: Database, campaign_id: str, action: Action) -> Campaign:
    async with database.read() as session:
        campaign = await queries.existing(session, campaign_id)
    move(action, Status(campaign.status))
    return campaign


async def _not_planned(database: Database, campaign: Campaign, plan: Plan) -> int:
    if plan.planned:
        return 0
    if plan.retry_reasons is not None:
        return await _not_moved(database, plan)
    return await _audience(database, campaign, after=plan.cursor)


async def _audience(database: Database, campaign: Campaign, after: str | None = None) -> int:
    async with database.read() as session:
        definitions = await queries.definitions(session, campaign.campaign_no)
    if definitions:
        wanted = [each for _, each in definitions]
        return await segments.count_members(database, wanted, sender_id=campaign.sender_id, after=after)
    named = select(func.count()).where(col(CampaignTarget.campaign_no) == campaign.campaign_no)
    if after is not None:
        named = named.where(col(CampaignTarget.target_id) > after)
    async with database.read() as session:
        return (await session.execute(named)).scalar_one()


async def _not_moved(database: Database, plan: Plan) -> int:
    """How many recipients a retry has still to collect."""
    return sum([await _unsent(database, plan, status) for status in UNSENT])


async def _unsent(database: Database, plan: Plan, status: RecipientStatus) -> int:
    total, after, looked_at = 0, plan.cursor, LOOKED_AT
    while looked_at == LOOKED_AT:
        rows = select(col(Recipient.target_id), col(Recipient.reason)).where(
            col(Recipient.campaign_no) == plan.campaign_no, *unsent(database.dialect, status, None)
        )
        if after is not None:
            rows = rows.where(col(Recipient.target_id) > after)
        async with database.read() as session:
            found = (await session.execute(rows.order_by(col(Recipient.target_id)).limit(LOOKED_AT))).all()
        looked_at = len(found)
        total += sum(row.reason in (plan.retry_reasons or ()) for row in found)
        after = found[-1].target_id if found else after
    return total


async def reserve(session: AsyncSession, at: datetime, needed: int, capacity: int | None) -> Reserved:
    """Takes what a start at `at` needs of its month, before the campaign's row is locked.

    Raises QUOTA_EXCEEDED.
    """
    period = usage.period_of(at)
    await usage.reserve(session, period, needed, capacity)
    return Reserved(period, needed)


async def reserve_again(session: AsyncSession, plan: Plan, needed: int | None, capacity: int | None) -> None:
    """Gives back what a campaign holds and takes what it `needed` (None: the same) of the current month.

    `plan` must be locked, the campaign not yet. Raises QUOTA_EXCEEDED.
    """
    sent = await ledger.messages_sent(session, plan.campaign_no)
    held = _held(plan, sent)
    taken = held if needed is None else needed
    await usage.release(session, plan.period, held)
    plan.period = usage.period_of(await now(session))
    await usage.reserve(session, plan.period, taken, capacity, usage.REMAINDER)
    plan.reserved = sent + taken


def _held(plan: Plan, sent: int) -> int:
    return plan.reserved - sent if plan.reserved else 0  # 0: it was all given back at the end


# Ended campaigns that still hold reserved capacity.
UNRELEASED = (
    select(col(Plan.campaign_no))
    .join(Campaign, col(Campaign.campaign_no) == col(Plan.campaign_no))
    .where(col(Plan.reserved) > 0, col(Campaign.status).in_(sorted(ENDED)))
)


async def unreleased(session: AsyncSession) -> Sequence[int]:
    """Ended campaigns that still hold reserved capacity, a hundred of them."""
    return (await session.execute(UNRELEASED.limit(100))).scalars().all()


async def give_back(database: Database, campaign_no: int) -> None:
    """Gives back what a campaign that has just ended does not send any more; see `release_unsent`."""
    async with database.transaction() as session:
        await release_unsent(session, campaign_no)


async def release_unsent(session: AsyncSession, campaign_no: int) -> None:
    """Gives back, once, what an ended campaign reserved and did not send. Locks its plan, then the month: so
    it has to follow the end, in a transaction of its own. Housekeeping does it where nobody else did.

    A retry may have begun since it was found: it holds the plan until the campaign runs again.
    """
    plan = await session.execute(
        select(Plan)
        .where(col(Plan.campaign_no) == campaign_no, col(Plan.reserved) > 0)
        .with_for_update(skip_locked=True)
    )
    held = plan.scalar_one_or_none()
    if held is None or await _runs(session, campaign_no):
        return
    sent = await ledger.messages_sent(session, campaign_no)
    await usage.release(session, held.period, _held(held, sent))
    held.reserved = 0


async def _runs(session: AsyncSession, campaign_no: int) -> bool:
    status = await session.execute(
        select(col(Campaign.status)).where(col(Campaign.campaign_no) == campaign_no)
    )
    return status.scalar_one() not in ENDED

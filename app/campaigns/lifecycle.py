"""How a campaign begins, ends and is paused: the steps that people and the server share.

Every function here is called with the campaign's row locked, or locks it first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, insert, select, union, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.models import Campaign, CampaignSegment
from app.campaigns.states import ACTIVE, ENDED, RUNNING, Status, StatusReason
from app.database import changed, dialect_of, now
from app.errors import AppError, Invalid, InvalidInput, QuotaExceeded
from app.events import service as events
from app.ledger import queries as ledger
from app.ledger.models import OutcomeReason, Plan
from app.segments.models import Segment
from app.segments.queries import definition, members_select
from app.usage import service as usage
from app.users.models import User
from app.validation import Problems


@dataclass(frozen=True, slots=True)
class Reserved:
    """Message capacity taken for a start."""

    period: str
    messages: int


def check_stop_at(stop_at: datetime | None, start: datetime) -> None:
    """Raises INVALID_INPUT for an end that does not lie after the start."""
    if stop_at is not None and stop_at <= start:
        raise InvalidInput("stopAt must lie after the start.", path=["stop_at"])


async def check_startable(session: AsyncSession, campaign: Campaign) -> None:
    """The rules of a start: an audience, a sender, a template for channels to create. Shares the
    segments' rows until the commit, so that none is deleted meanwhile."""
    named = await session.execute(
        select(Segment)
        .join(CampaignSegment, col(CampaignSegment.segment_no) == col(Segment.segment_no))
        .where(col(CampaignSegment.campaign_no) == campaign.campaign_no)
        .order_by(col(Segment.segment_no))
        .with_for_update(read=True, key_share=True, of=Segment)
    )
    segments, problems = list(named.scalars()), Problems()
    for segment in segments:
        if segment.deleted_at is not None:
            sentence = f"Segment {segment.segment_id} was deleted; name another one."
            problems.add(InvalidInput(sentence, path=["segment_ids"]))
    if not segments and not (await queries.target_counts(session, [campaign.campaign_no])):
        sentence = "The campaign has no audience: give it segmentIds or userIds."
        problems.add(InvalidInput(sentence, path=["segment_ids"]))
    if campaign.create_channels and campaign.channel_template is None:
        sentence = "createChannels needs a channelTemplate that says which channels to create."
        problems.add(InvalidInput(sentence, path=["channel_template"]))
    with problems.at():
        await check_sender(session, campaign)
    problems.check()


async def check_sender(session: AsyncSession, campaign: Campaign) -> None:
    """Raises INVALID_INPUT unless the sender exists and is active."""
    sender = await session.get(User, campaign.sender_id)
    if sender is None or sender.deleted_at is not None or sender.deactivated_at is not None:
        raise InvalidInput(
            f"The sender {campaign.sender_id} does not exist or is deactivated.", path=["sender_id"]
        )


async def reserve_capacity(
    session: AsyncSession, campaign_id: str, at: datetime, capacity: int | None
) -> Reserved:
    """Takes what the audience needs of the month, before the campaign's row is locked. Raises QUOTA_EXCEEDED.

    Without a capacity nothing is counted here: planning adds up what it finds.
    """
    period = usage.period_of(at)
    if capacity is None:
        return Reserved(period, 0)
    campaign = await queries.by_id(session, campaign_id)
    needed = 0 if campaign is None else await _audience_size(session, campaign)
    await usage.reserve(session, period, needed, capacity)
    return Reserved(period, needed)


async def _audience_size(session: AsyncSession, campaign: Campaign) -> int:
    segments = (await queries.segments_of(session, [campaign.campaign_no]))[campaign.campaign_no]
    if not segments:
        return (await queries.target_counts(session, [campaign.campaign_no])).get(campaign.campaign_no, 0)
    arms: list[Select[Any]] = [
        select(
            members_select(dialect_of(session), definition(segment), sender_id=campaign.sender_id)
            .order_by(None)
            .subquery()
            .c.target_id
        )
        for segment in segments
    ]
    audience = union(*arms).subquery() if len(arms) > 1 else arms[0].subquery()
    return (await session.execute(select(func.count()).select_from(audience))).scalar_one()


async def check_capacity_again(session: AsyncSession, campaign_id: str, capacity: int | None) -> None:
    """Before a resume: a campaign that was paused for want of capacity needs some of it to go on."""
    campaign = await queries.by_id(session, campaign_id)
    if capacity is None or campaign is None or campaign.status_reason != StatusReason.QUOTA_EXCEEDED:
        return
    at = await now(session)
    left = capacity - await usage.used(session, at)
    if left <= 0:
        resets_at = usage.period_bounds(at)[1]
        raise QuotaExceeded(
            f"Nothing is left of this month's {capacity:,} messages until {resets_at:%Y-%m-%d}.",
            path=["campaign_id"],
            details={"needed": 1, "left": 0, "resetsAt": resets_at.isoformat()},
        )


async def begin(session: AsyncSession, campaign: Campaign, reserved: Reserved) -> None:
    """Starts it: the segments' definitions are copied, and planning has its row."""
    for segment in (await queries.segments_of(session, [campaign.campaign_no]))[campaign.campaign_no]:
        await changed(
            session,
            update(CampaignSegment)
            .where(
                col(CampaignSegment.campaign_no) == campaign.campaign_no,
                col(CampaignSegment.segment_no) == segment.segment_no,
            )
            .values(definition=definition(segment)),
        )
    await session.execute(
        insert(Plan).values(
            campaign_no=campaign.campaign_no,
            planned=False,
            last_batch_no=0,
            targets=0,
            period=reserved.period,
            reserved=reserved.messages,
        )
    )
    campaign.started_at = await now(session)
    await enter(session, campaign, Status.IN_PROGRESS, "campaign.started")


async def enter(
    session: AsyncSession,
    campaign: Campaign,
    status: Status,
    event: str,
    *,
    reason: StatusReason | None = None,
    message: str | None = None,
) -> None:
    """Changes the status of a locked campaign and writes the event."""
    campaign.status = status
    campaign.status_reason = reason
    campaign.status_message = message
    campaign.status_changed_at = campaign.updated_at = await now(session)
    await session.flush()
    await record(session, event, campaign)


async def end(
    session: AsyncSession,
    campaign: Campaign,
    status: Status,
    *,
    reason: StatusReason | None = None,
    message: str | None = None,
) -> None:
    """Stops or completes a locked campaign; its sums are final from here on."""
    sums = (await ledger.sums(session, [campaign.campaign_no])).get(campaign.campaign_no, ledger.Sums())
    campaign.final_stats = ledger.as_json(sums)
    campaign.completed_at = await now(session)
    event = "campaign.completed" if status == Status.COMPLETED else "campaign.stopped"
    await enter(
        session, campaign, status, event, reason=reason, message=message or _nothing_sent(campaign, sums)
    )


def _nothing_sent(campaign: Campaign, sums: ledger.Sums) -> str | None:
    """Why a campaign with targets reached nobody."""
    if sums.sent or not sums.targets or not sums.reasons:
        return None
    said = [
        f"{'all ' if reason.count == sums.targets else ''}{reason.count:,} "
        f"{'failed' if reason.reason in _FAILURES else 'skipped'}: {OutcomeReason(reason.reason).name}"
        for reason in sums.reasons
    ]
    if any(reason.reason == OutcomeReason.NO_CHANNEL for reason in sums.reasons):
        said.append(
            "createChannels is false" if not campaign.create_channels else "there is no channelTemplate"
        )
    return "; ".join(said)


_FAILURES = {OutcomeReason.CHANNEL_ID_INVALID, OutcomeReason.RENDER_ERROR, OutcomeReason.INTERNAL_ERROR}


async def complete(session: AsyncSession, campaign_no: int) -> Campaign | None:
    """Completes the campaign if it is planned and no batch is open; None if it is not so, or no more.

    A transaction of its own after the last batch's: asked inside batches, two last ones would each see
    the other open; asked in the guarded update itself, a waiting one would see an old snapshot.
    """
    campaign = await queries.locked_by_no(session, campaign_no)
    if campaign is None or campaign.status != Status.IN_PROGRESS:
        return None
    planned = await session.execute(select(col(Plan.planned)).where(col(Plan.campaign_no) == campaign_no))
    if not planned.scalar_one_or_none():
        return None
    if await ledger.has_open(session, campaign_no):
        return None
    await end(session, campaign, Status.COMPLETED)
    return campaign


async def pause_by_server(
    session: AsyncSession, campaign_no: int, reason: StatusReason, message: str
) -> Campaign | None:
    """Pauses a running campaign for a reason of the server's; None if it does not run any more."""
    campaign = await queries.locked_by_no(session, campaign_no)
    if campaign is None or campaign.status not in RUNNING or campaign.status_reason == reason:
        return None
    await enter(session, campaign, Status.PAUSED, "campaign.paused", reason=reason, message=message)
    return campaign


async def settle_due(session: AsyncSession, campaign_no: int, capacity: int | None) -> Campaign | None:
    """Starts or stops a campaign whose time has come; None if nothing is due (any more).

    A schedule missed while everything was down starts late, unless its stopAt has passed too. What
    cannot start is STOPPED with NOT_STARTABLE and the reason.
    """
    at = await now(session)
    seen = (await queries.by_nos(session, [campaign_no])).get(campaign_no)
    if seen is None:
        return None
    refusal: AppError | None = None
    reserved = Reserved(usage.period_of(at), 0)
    if seen.status == Status.SCHEDULED and not _past(seen.stop_at, at):
        try:
            async with session.begin_nested():
                reserved = await reserve_capacity(session, seen.campaign_id, at, capacity)
        except QuotaExceeded as error:
            refusal = error
    campaign = await queries.locked_by_no(session, campaign_no)
    if campaign is None or campaign.status not in ACTIVE:
        return None
    if _past(campaign.stop_at, at):
        await end(session, campaign, Status.STOPPED, reason=StatusReason.STOP_AT_REACHED)
        return campaign
    if campaign.status != Status.SCHEDULED or not _past(campaign.scheduled_for, at):
        await usage.release(session, reserved.period, reserved.messages)
        return None
    try:
        if refusal is not None:
            raise refusal
        await check_startable(session, campaign)
    except (AppError, Invalid) as error:
        await usage.release(session, reserved.period, reserved.messages)
        await end(
            session,
            campaign,
            Status.STOPPED,
            reason=StatusReason.NOT_STARTABLE,
            message=str(error),
        )
    else:
        await begin(session, campaign, reserved)
    return campaign


def _past(instant: datetime | None, at: datetime) -> bool:
    return instant is not None and instant <= at


async def unreleased(session: AsyncSession) -> Sequence[int]:
    """Ended campaigns that still hold reserved capacity."""
    rows = await session.execute(
        select(col(Plan.campaign_no))
        .join(Campaign, col(Campaign.campaign_no) == col(Plan.campaign_no))
        .where(col(Plan.reserved) > 0, col(Campaign.status).in_(sorted(ENDED)))
        .limit(100)
    )
    return rows.scalars().all()


async def release_unsent(session: AsyncSession, campaign_no: int) -> None:
    """Gives back what an ended campaign reserved and did not send. Locks its plan, then the month."""
    plan = await session.execute(
        select(Plan)
        .where(col(Plan.campaign_no) == campaign_no, col(Plan.reserved) > 0)
        .with_for_update(skip_locked=True)
    )
    held = plan.scalar_one_or_none()
    if held is None:
        return
    sums = (await ledger.sums(session, [campaign_no]))[campaign_no]
    await usage.release(session, held.period, held.reserved - sums.messages_sent)
    held.reserved = 0


async def record(session: AsyncSession, event: str, campaign: Campaign) -> None:
    """Writes an event with the whole campaign and its stats as they are in this transaction."""
    sums = (await ledger.sums(session, [campaign.campaign_no])).get(campaign.campaign_no, ledger.Sums())
    fields = campaign.model_dump(mode="json", exclude={"campaign_no", "final_stats", "deleted_at"})
    fields["status"] = campaign.status.lower()
    await events.record(session, event, campaign.campaign_no, {**fields, "stats": ledger.as_json(sums)})

"""How a campaign begins, ends and is paused: the steps that people and the server share.

Every function here is called with the campaign's row locked, or locks it first.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import queries
from app.campaigns.capacity import Reserved, is_due, past
from app.campaigns.models import Campaign, CampaignSegment
from app.campaigns.states import ACTIVE, RUNNING, Status, StatusReason
from app.database import changed, now
from app.errors import AppError, Invalid, InvalidInput, QuotaExceeded
from app.events import service as events
from app.ledger import queries as ledger
from app.ledger.models import OutcomeReason, Plan
from app.segments.kinds import SegmentType
from app.segments.models import Segment
from app.segments.queries import definition
from app.usage import service as usage
from app.users.models import User
from app.validation import Problems

FAULT_PAUSE = timedelta(seconds=1)
LONGEST_FAULT_PAUSE = timedelta(minutes=5)
LONGEST_PAUSE_WITHOUT_ROOM = timedelta(minutes=1)  # somebody makes some, and nobody has to tell us


def check_stop_at(stop_at: datetime | None, start: datetime) -> None:
    """Raises INVALID_INPUT for an end that does not lie after the start."""
    if stop_at is not None and stop_at <= start:
        raise InvalidInput("stopAt must lie after the start.", path=["stop_at"])


async def check_startable(session: AsyncSession, campaign: Campaign) -> None:
    """The rules of a start: an audience, a sender, and for users a template of the channels to create. Shares
    the segments' rows until the commit, so that none is deleted meanwhile."""
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
    creates = campaign.create_channels and campaign.audience == SegmentType.USER
    if creates and campaign.channel_template is None:
        sentence = "createChannels needs a channelTemplate that says which channels to create."
        problems.add(InvalidInput(sentence, path=["channel_template"]))
    with problems.at():
        await check_sender_active(session, campaign)
    problems.check()


async def check_sender_active(session: AsyncSession, campaign: Campaign) -> None:
    """Raises INVALID_INPUT unless the sender exists and is active."""
    sender = await session.get(User, campaign.sender_id)
    if sender is None or sender.deleted_at is not None or sender.deactivated_at is not None:
        raise InvalidInput(
            f"The sender {campaign.sender_id} does not exist or is deactivated.", path=["sender_id"]
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


async def begin_again(
    session: AsyncSession, campaign: Campaign, plan: Plan, reasons: Collection[OutcomeReason]
) -> None:
    """Runs a completed campaign again for its recipients of these reasons; both rows are locked. It started
    when it first did; it has not completed until it does so again. A stopAt that has passed is cleared."""
    plan.planned, plan.cursor, plan.retry_reasons = False, None, sorted(reasons)
    campaign.completed_at = campaign.final_stats = None
    if past(campaign.stop_at, await now(session)):
        campaign.stop_at = None
    await enter(session, campaign, Status.IN_PROGRESS, "campaign.started")


async def enter(
    session: AsyncSession,
    campaign: Campaign,
    status: Status,
    event: str,
    *,
    reason: StatusReason | None = None,
    message: str | None = None,
    sums: ledger.Sums | None = None,
) -> None:
    """Changes the status of a locked campaign and writes the event, with these `sums` if they were read in
    this transaction."""
    campaign.status = status
    campaign.status_reason = reason
    campaign.status_message = message
    campaign.status_changed_at = campaign.updated_at = await now(session)
    campaign.resume_at = None
    await session.flush()
    await record(session, event, campaign, sums)


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
    message = message or _nothing_sent(campaign, sums)
    await enter(session, campaign, status, event, reason=reason, message=message, sums=sums)


def _nothing_sent(campaign: Campaign, sums: ledger.Sums) -> str | None:
    """Why a campaign with targets reached nobody."""
    if sums.sent or not sums.targets or not sums.reasons:
        return None
    said = [_left_out(each, sums.targets) for each in sums.reasons]
    if any(reason.reason == OutcomeReason.NO_CHANNEL for reason in sums.reasons):
        said.append(
            "createChannels is false" if not campaign.create_channels else "there is no channelTemplate"
        )
    return "; ".join(said)


def _left_out(each: ledger.ReasonSum, targets: int) -> str:
    reason = OutcomeReason(each.reason)
    whole = "all " if each.count == targets else ""
    return f"{whole}{each.count:,} {reason.status.name.lower()}: {reason.name}"


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


async def pause_for_fault(
    session: AsyncSession, campaign_no: int, reason: StatusReason, message: str
) -> Campaign | None:
    """Pauses a campaign under which something keeps failing; None if it is not being sent any more.

    The server resumes it by itself: after two seconds, and twice as long for each further fault without
    anything settled in between, five minutes at most, one for want of room.
    """
    campaign = await queries.locked_by_no(session, campaign_no)
    if campaign is None or campaign.status != Status.IN_PROGRESS:
        return None
    settled_at = await ledger.last_settled_at(session, campaign_no)
    went_on = settled_at is not None and settled_at > campaign.status_changed_at
    faults = 1 if went_on else campaign.faults + 1
    await enter(session, campaign, Status.PAUSED, "campaign.paused", reason=reason, message=message)
    longest = LONGEST_PAUSE_WITHOUT_ROOM if reason == StatusReason.STORAGE_FULL else LONGEST_FAULT_PAUSE
    pause = min(longest, FAULT_PAUSE * 2 ** min(faults, 20))
    campaign.faults, campaign.resume_at = faults, campaign.status_changed_at + pause
    await session.flush()
    return campaign


async def settle_due(
    session: AsyncSession, campaign_no: int, capacity: int | None, needed: int = 0
) -> Campaign | None:
    """Starts, stops or resumes a campaign whose time has come; None if nothing is due (any more).

    A schedule missed while everything was down starts late, unless its stopAt has passed too. What
    cannot start is STOPPED with NOT_STARTABLE and the reason. `needed` is what its audience was counted to.
    """
    at = await now(session)
    seen = (await queries.by_nos(session, [campaign_no])).get(campaign_no)
    if seen is None:
        return None
    reserved: Reserved | QuotaExceeded | None = None
    if is_due(seen, at):
        try:
            reserved = await room.reserve(session, at, needed, capacity)
        except QuotaExceeded as error:
            reserved = error
    settled = await _settle(session, campaign_no, at, reserved)
    if isinstance(reserved, Reserved) and (settled is None or settled.status != Status.IN_PROGRESS):
        await usage.release(session, reserved.period, reserved.messages)
    return settled


async def _settle(
    session: AsyncSession, campaign_no: int, at: datetime, reserved: Reserved | QuotaExceeded | None
) -> Campaign | None:
    campaign = await queries.locked_by_no(session, campaign_no)
    if campaign is None or campaign.status not in ACTIVE:
        return None
    if past(campaign.stop_at, at):
        await end(session, campaign, Status.STOPPED, reason=StatusReason.STOP_AT_REACHED)
        return campaign
    if past(campaign.resume_at, at):
        await enter(session, campaign, Status.IN_PROGRESS, "campaign.resumed")
        return campaign
    if reserved is None or not is_due(campaign, at):
        return None
    try:
        if isinstance(reserved, QuotaExceeded):
            raise reserved
        await check_startable(session, campaign)
    except (AppError, Invalid) as error:
        await end(session, campaign, Status.STOPPED, reason=StatusReason.NOT_STARTABLE, message=str(error))
    else:
        await begin(session, campaign, reserved)
    return campaign


_OURS = {"campaign_no", "final_stats", "deleted_at", "faults", "resume_at"}  # nothing that an event tells


async def record(
    session: AsyncSession, event: str, campaign: Campaign, sums: ledger.Sums | None = None
) -> None:
    """Writes an event with the whole campaign, its segments and its stats as they are in this transaction."""
    if sums is None:
        sums = (await ledger.sums(session, [campaign.campaign_no])).get(campaign.campaign_no, ledger.Sums())
    segments = (await queries.segments_of(session, [campaign.campaign_no]))[campaign.campaign_no]
    dumped = campaign.model_dump(mode="json")
    fields = {name: dumped[name] for name in Campaign.model_fields if name not in _OURS}
    fields["status"] = campaign.status.lower()
    fields["segment_ids"] = [segment.segment_id for segment in segments]
    stats = ledger.as_json(sums)
    for reason in stats["reasons"]:
        reason["reason"] = OutcomeReason(reason["reason"]).name
    await events.record(session, event, campaign.campaign_no, {**fields, "stats": stats})

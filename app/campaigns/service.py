"""Changes of campaigns by people: creating, editing, starting, pausing, stopping, deleting.

Every change of status locks the campaign's row first and then asks the transition table. What the server
does by itself is in `lifecycle.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import definition, lifecycle, queries
from app.campaigns.capacity import Reserved
from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.campaigns.states import ENDED, Action, Status, move
from app.database import now
from app.errors import AlreadyExists, AppError, Conflict, Invalid, InvalidInput, NotFound, QuotaExceeded
from app.ids import new_number, new_uuid
from app.ledger import queries as ledger
from app.ledger.models import OutcomeReason, Plan
from app.segments.kinds import SegmentType
from app.segments.models import Segment
from app.usage import service as usage
from app.users.models import User
from app.validation import Problems


async def create(session: AsyncSession, given: Mapping[str, Any]) -> Campaign:
    """A new draft. Raises what `definition.checked` does, ALREADY_EXISTS for a campaignId that is taken, and
    INVALID_INPUT for a sender or segment that does not exist."""
    fields = definition.checked(given)
    segment_ids, user_ids = fields.pop("segment_ids", None), fields.pop("user_ids", None)
    campaign_id = fields.pop("campaign_id", None) or new_uuid()
    if await queries.by_id(session, campaign_id) is not None:
        raise _taken(campaign_id)
    at = await now(session)
    campaign = Campaign(
        campaign_no=new_number(),
        campaign_id=campaign_id,
        status_changed_at=at,
        created_at=at,
        updated_at=at,
        **fields,
    )
    problems = Problems()
    with problems.at():
        await _check_sender_exists(session, campaign)
    with problems.at():
        await _name_audience(session, campaign, segment_ids, user_ids)
    problems.check()
    session.add(campaign)
    try:
        await session.flush()
    except IntegrityError as error:  # somebody else took the id just now
        raise _taken(campaign_id) from error
    return campaign


def _taken(campaign_id: str) -> AlreadyExists:
    return AlreadyExists(f"A campaign {campaign_id} exists already.", path=["campaign_id"])


async def update(session: AsyncSession, campaign_id: str, given: Mapping[str, Any]) -> Campaign:
    """Changes the given fields; content only before the start. While SCHEDULED the rules of a start hold."""
    fields = definition.checked(given)
    campaign = await _locked(session, campaign_id)
    _check_changeable(campaign, fields)
    at = await now(session)
    if fields.get("stop_at") is not None:
        lifecycle.check_stop_at(fields["stop_at"], campaign.started_at or campaign.scheduled_for or at)
    segment_ids, user_ids = fields.pop("segment_ids", ...), fields.pop("user_ids", ...)
    for name, value in fields.items():
        setattr(campaign, name, value)
    campaign.updated_at = at
    problems = Problems()
    if "sender_id" in fields:
        with problems.at():
            await _check_sender_exists(session, campaign)
    with problems.at():
        await _rename_audience(session, campaign, segment_ids, user_ids)
    problems.check()
    await session.flush()
    if campaign.status == Status.SCHEDULED:
        await lifecycle.check_startable(session, campaign)
    await lifecycle.record(session, "campaign.updated", campaign)
    return campaign


def _check_changeable(campaign: Campaign, fields: Mapping[str, Any]) -> None:
    status = Status(campaign.status)
    allowed = definition.ALWAYS_CHANGEABLE if status in ENDED else definition.CHANGEABLE
    for name in fields:
        if name not in allowed:
            try:
                move(Action.EDIT, status)
            except AppError as error:
                error.path = (name,)
                raise


async def start(
    session: AsyncSession,
    campaign_id: str,
    *,
    scheduled_for: datetime | None,
    stop_at: datetime | None,
    capacity: int | None,
    needed: int = 0,
) -> Campaign:
    """IN_PROGRESS now, or SCHEDULED for later. Two calls at once start it once; the second gets a CONFLICT.

    `needed` is what `capacity.needed_to_start` counted. Raises INVALID_INPUT where a rule of starting is
    broken, QUOTA_EXCEEDED where the month cannot hold it.
    """
    at = await now(session)
    later = scheduled_for if scheduled_for is not None and scheduled_for > at else None
    reserved: Reserved | QuotaExceeded | None = None
    try:  # the month's row before the campaign's; a campaign that cannot start says so first
        if later is not None:
            await usage.check_room(session, usage.period_of(later), needed, capacity)
        else:
            reserved = await room.reserve(session, at, needed, capacity)
    except QuotaExceeded as error:
        reserved = error
    campaign = await _locked(session, campaign_id)
    move(Action.START, Status(campaign.status))
    problems = Problems()
    with problems.at():
        lifecycle.check_stop_at(stop_at, later or at)
    with problems.at(), _of_the_campaign():
        await lifecycle.check_startable(session, campaign)
    problems.check()
    if isinstance(reserved, QuotaExceeded):
        raise reserved
    campaign.stop_at, campaign.scheduled_for = stop_at, later
    if reserved is None:
        await lifecycle.enter(session, campaign, Status.SCHEDULED, "campaign.scheduled")
    else:
        await lifecycle.begin(session, campaign, reserved)
    return campaign


async def unschedule(session: AsyncSession, campaign_id: str) -> Campaign:
    """Back to DRAFT."""
    campaign = await _locked(session, campaign_id)
    move(Action.UNSCHEDULE, Status(campaign.status))
    campaign.scheduled_for = None
    campaign.stop_at = None
    await lifecycle.enter(session, campaign, Status.DRAFT, "campaign.updated")
    return campaign


async def pause(session: AsyncSession, campaign_id: str) -> Campaign:
    """No message is committed after this; what is in flight commits before. A pause that the server made for
    a fault becomes one of people: it does not end by itself any more."""
    campaign = await _locked(session, campaign_id)
    if move(Action.PAUSE, Status(campaign.status)) is not None or campaign.resume_at is not None:
        await lifecycle.enter(session, campaign, Status.PAUSED, "campaign.paused")
    return campaign


async def resume(
    session: AsyncSession, campaign_id: str, *, capacity: int | None, needed: int | None = None
) -> Campaign:
    """Goes on where it paused. What it has still to send counts in the current month from now on: `needed` is
    what `capacity.needed_to_resume` counted. Raises QUOTA_EXCEEDED if that does not fit."""
    campaign_no = await _number(session, campaign_id)
    plan = await queries.locked_plan(session, campaign_no)
    refusal = await _reserve_again(session, plan, needed, capacity)
    campaign = await _locked(session, campaign_id)
    move(Action.RESUME, Status(campaign.status))
    if refusal is not None:
        raise refusal
    with _of_the_campaign():
        await lifecycle.check_sender_active(session, campaign)
    await lifecycle.enter(session, campaign, Status.IN_PROGRESS, "campaign.resumed")
    return campaign


async def retry(
    session: AsyncSession, campaign_id: str, *, reasons: Sequence[str] | None, capacity: int | None
) -> Campaign:
    """Sends again to recipients of a completed campaign that were not reached for these reasons (None: those
    of FAILED). They become PENDING in the background, chunk by chunk; who was sent to is never touched.

    Raises INVALID_INPUT for reasons that are none to retry, CONFLICT if the campaign has not completed or no
    recipient has them, QUOTA_EXCEEDED if the current month does not hold them.
    """
    wanted = definition.retryable(reasons)
    campaign_no = await _number(session, campaign_id)
    plan = await queries.locked_plan(session, campaign_no)
    sums = (await ledger.sums(session, [campaign_no])).get(campaign_no, ledger.Sums())
    needed = sum(reason.count for reason in sums.reasons if reason.reason in wanted)
    refusal = await _reserve_again(session, plan, needed, capacity)
    campaign = await _locked(session, campaign_id)
    move(Action.RETRY, Status(campaign.status))
    if plan is None or needed == 0:
        named = ", ".join(OutcomeReason(reason).name for reason in sorted(wanted))
        raise Conflict(
            f"No recipient was left out for {named}: there is nothing to retry.",
            path=["campaign_id" if reasons is None else "reasons"],
        )
    if refusal is not None:
        raise refusal
    with _of_the_campaign():
        await lifecycle.check_sender_active(session, campaign)
    await lifecycle.begin_again(session, campaign, plan, wanted)
    return campaign


async def _reserve_again(
    session: AsyncSession, plan: Plan | None, needed: int | None, capacity: int | None
) -> QuotaExceeded | None:
    """Reserves before the campaign's row is locked; a refusal is told after what else is wrong."""
    if plan is None:  # never started: the transition table says so
        return None
    try:
        await room.reserve_again(session, plan, needed, capacity)
    except QuotaExceeded as error:
        return error
    return None


async def stop(session: AsyncSession, campaign_id: str) -> Campaign:
    """The end: what is not settled stays PENDING, what is not planned never was a target."""
    campaign = await _locked(session, campaign_id)
    if move(Action.STOP, Status(campaign.status)) is not None:
        await lifecycle.end(session, campaign, Status.STOPPED)
    return campaign


async def remove(session: AsyncSession, campaign_id: str) -> Campaign:
    """The campaign is gone at once; its ledger is cleared away in the background, its messages stay."""
    campaign = await _locked(session, campaign_id)
    move(Action.DELETE, Status(campaign.status))
    campaign.deleted_at = await now(session)
    await session.flush()
    return campaign


@contextmanager
def _of_the_campaign() -> Iterator[None]:
    """What is wrong with a stored campaign stands nowhere in the input but under its id."""
    try:
        yield
    except (AppError, Invalid) as failure:
        for error in failure.errors if isinstance(failure, Invalid) else (failure,):
            error.path = ("campaign_id",)
        raise


async def _locked(session: AsyncSession, campaign_id: str) -> Campaign:
    campaign = await queries.locked(session, campaign_id)
    if campaign is None:
        raise _unknown(campaign_id)
    return campaign


async def _number(session: AsyncSession, campaign_id: str) -> int:
    """The campaign's number, for what has to be locked before its row."""
    campaign = await queries.by_id(session, campaign_id)
    if campaign is None:
        raise _unknown(campaign_id)
    return campaign.campaign_no


def _unknown(campaign_id: str) -> NotFound:
    return NotFound(f"There is no campaign {campaign_id}.", path=["campaign_id"])


async def _check_sender_exists(session: AsyncSession, campaign: Campaign) -> None:
    sender = await session.get(User, campaign.sender_id)
    if sender is None or sender.deleted_at is not None:
        raise InvalidInput(
            f"There is no user {campaign.sender_id} to send for; create it with upsertUsers.",
            path=["sender_id"],
        )


async def _rename_audience(
    session: AsyncSession, campaign: Campaign, segment_ids: Any, user_ids: Any
) -> None:
    """Replaces the parts of the audience that were given (`...` was not); both together stay exclusive."""
    if segment_ids is ... and user_ids is ...:
        return
    number = campaign.campaign_no
    if segment_ids is ...:
        named = await queries.segments_of(session, [number])
        segment_ids = [segment.segment_id for segment in named[number]]
        if user_ids and segment_ids:
            raise InvalidInput(
                "an audience is either segmentIds or userIds: clear segmentIds too", path=["user_ids"]
            )
    if user_ids is ...:
        rows = await session.execute(
            select(col(CampaignTarget.target_id)).where(col(CampaignTarget.campaign_no) == number)
        )
        user_ids = list(rows.scalars())
        if segment_ids and user_ids:
            raise InvalidInput(
                "an audience is either segmentIds or userIds: clear userIds too", path=["segment_ids"]
            )
    for table in (CampaignSegment, CampaignTarget):
        await session.execute(
            delete(table).where(col(table.campaign_no) == number).execution_options(synchronize_session=False)
        )
    await _name_audience(session, campaign, segment_ids, user_ids)


async def _name_audience(
    session: AsyncSession,
    campaign: Campaign,
    segment_ids: Sequence[str] | None,
    user_ids: Sequence[str] | None,
) -> None:
    campaign.audience = SegmentType.USER
    if segment_ids:
        named = await _share_segments(session, segment_ids)
        campaign.audience = named[0].type
        await session.execute(
            insert(CampaignSegment),
            [
                {"campaign_no": campaign.campaign_no, "segment_no": segment.segment_no, "position": position}
                for position, segment in enumerate(named)
            ],
        )
    if user_ids:
        await session.execute(
            insert(CampaignTarget),
            [{"campaign_no": campaign.campaign_no, "target_id": user_id} for user_id in user_ids],
        )


async def _share_segments(session: AsyncSession, segment_ids: Sequence[str]) -> list[Segment]:
    """The segments in the order given, their rows shared until the commit so that none is deleted meanwhile.
    They have to be all of users or all of channels."""
    rows = await session.execute(
        select(Segment)
        .where(col(Segment.segment_id).in_(segment_ids), col(Segment.deleted_at).is_(None))
        .order_by(col(Segment.segment_no))
        .with_for_update(read=True, key_share=True)
    )
    found, problems = {segment.segment_id: segment for segment in rows.scalars()}, Problems()
    named: list[Segment] = []
    for position, segment_id in enumerate(segment_ids):
        with problems.at("segment_ids", position):
            if segment_id not in found:
                raise InvalidInput(f"There is no segment {segment_id}.")
            named.append(found[segment_id])
            _check_same_type(named[0], named[-1])
    problems.check()
    return named


def _check_same_type(first: Segment, other: Segment) -> None:
    if other.type != first.type:
        raise InvalidInput(
            f"Segment {other.segment_id} holds {_TARGETS[other.type]}, {first.segment_id} before it"
            f" {_TARGETS[first.type]}: name segments of one type, and send to the others by a campaign of"
            " their own."
        )


_TARGETS: dict[str, str] = {SegmentType.USER: "users", SegmentType.CHANNEL: "channels"}

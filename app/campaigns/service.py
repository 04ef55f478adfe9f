"""Changes of campaigns by people: creating, editing, starting, pausing, stopping, deleting.

Every change of status locks the campaign's row first and then asks the transition table. What the server
does by itself is in `lifecycle.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import audience, definition, lifecycle, queries
from app.campaigns import capacity as room
from app.campaigns.capacity import Reserved
from app.campaigns.definition import Examined
from app.campaigns.models import Campaign
from app.campaigns.states import ENDED, Action, Status, move
from app.database import now
from app.errors import AlreadyExists, AppError, Conflict, Invalid, InvalidInput, QuotaExceeded
from app.ids import new_number, new_uuid
from app.ledger import queries as ledger
from app.ledger.models import OutcomeReason, Plan
from app.segments.models import Segment
from app.usage import service as usage
from app.users.models import User
from app.validation import Problems


async def create(session: AsyncSession, given: Mapping[str, Any] | Examined) -> Campaign:
    """A new draft of what is `given`, or was examined already. Raises at once what is wrong with any of it,
    ALREADY_EXISTS for a campaignId that is taken, and INVALID_INPUT for a sender or segment that does not
    exist."""
    examined = given if isinstance(given, Examined) else definition.examined(given)
    fields, problems = dict(examined.fields), examined.problems
    campaign_id = fields.pop("campaign_id", None) or new_uuid()
    if await queries.by_id(session, campaign_id) is not None:
        problems.add(_taken(campaign_id))
    segments = await _check_named(session, fields, problems)
    problems.check()
    at, user_ids = await now(session), fields.pop("user_ids", None)
    fields.pop("segment_ids", None)
    campaign = Campaign(
        campaign_no=new_number(),
        campaign_id=campaign_id,
        status_changed_at=at,
        created_at=at,
        updated_at=at,
        **fields,
    )
    await audience.name_segments(session, campaign, segments or ())
    await audience.name_users(session, campaign, user_ids or ())
    session.add(campaign)
    try:
        await session.flush()
    except IntegrityError as error:  # somebody else took the id just now
        raise _taken(campaign_id) from error
    return campaign


def _taken(campaign_id: str) -> AlreadyExists:
    return AlreadyExists(f"A campaign {campaign_id} exists already.", path=["campaign_id"])


async def update(session: AsyncSession, campaign_id: str, given: Mapping[str, Any] | Examined) -> Campaign:
    """Changes the fields `given`, or examined already; content only before the start. While SCHEDULED the
    rules of a start hold. Raises all at once what any of the changes breaks."""
    examined = given if isinstance(given, Examined) else definition.examined(given)
    problems = examined.problems
    with problems.at():
        campaign = await _edited(session, campaign_id, examined)
    problems.check()
    await lifecycle.record(session, "campaign.updated", campaign)
    return campaign


async def _edited(session: AsyncSession, campaign_id: str, examined: Examined) -> Campaign:
    """The campaign with those changes that are fine; what is wrong joins the problems."""
    fields, problems = dict(examined.fields), examined.problems
    campaign = await queries.locked(session, campaign_id)
    if campaign is not None:
        for name in _forbidden(campaign, examined.names, problems):
            fields.pop(name, None)
    segments = await _check_named(session, fields, problems)
    if campaign is None:
        raise queries.unknown(campaign_id)
    at = await now(session)
    if fields.get("stop_at") is not None:
        with problems.at():
            lifecycle.check_stop_at(fields["stop_at"], campaign.started_at or campaign.scheduled_for or at)
    for name in fields.keys() - definition.AUDIENCE:
        setattr(campaign, name, fields[name])
    campaign.updated_at = at
    with problems.at():
        await audience.rename(session, campaign, fields, segments)
    await session.flush()
    if campaign.status == Status.SCHEDULED:
        await _check_still_startable(session, campaign, problems)
    return campaign


def _forbidden(campaign: Campaign, names: Sequence[str], problems: Problems) -> list[str]:
    """Which of these fields may not change at the campaign's status: a CONFLICT each."""
    status, forbidden = Status(campaign.status), list[str]()
    allowed = definition.ALWAYS_CHANGEABLE if status in ENDED else definition.CHANGEABLE
    for name in names:
        if name not in allowed:
            try:
                move(Action.EDIT, status)
            except Conflict as error:
                error.path = (name,)
                problems.add(error)
                forbidden.append(name)
    return forbidden


async def _check_still_startable(session: AsyncSession, campaign: Campaign, problems: Problems) -> None:
    """Adds what a start lacks, but for fields that are known to be wrong already."""
    startable, wrong = Problems(), {error.path[:1] for error in problems.errors}
    with startable.at():
        await lifecycle.check_startable(session, campaign)
    for error in startable.errors:
        if error.path[:1] not in wrong:
            problems.add(error)


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
    campaign_no = (await queries.existing(session, campaign_id)).campaign_no
    plan = await queries.locked_plan(session, campaign_no)
    refusal = await _reserve_again(session, plan, needed, capacity)
    campaign = await _locked(session, campaign_id, campaign_no)
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
    problems, wanted = Problems(), frozenset[OutcomeReason]()
    with problems.at():
        wanted = definition.retryable(reasons)
    with problems.at():
        campaign_no = (await queries.existing(session, campaign_id)).campaign_no
    problems.check()
    plan = await queries.locked_plan(session, campaign_no)
    sums = (await ledger.sums(session, [campaign_no])).get(campaign_no, ledger.Sums())
    needed = sum(reason.count for reason in sums.reasons if reason.reason in wanted)
    refusal = await _reserve_again(session, plan, needed, capacity)
    campaign = await _locked(session, campaign_id, campaign_no)
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
    campaign.deleted_at = campaign.updated_at = await now(session)
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


async def _locked(session: AsyncSession, campaign_id: str, campaign_no: int | None = None) -> Campaign:
    """The campaign, locked. With the number under which its plan was locked, no other that has its id now."""
    campaign = await queries.locked(session, campaign_id)
    if campaign is None or campaign_no not in (None, campaign.campaign_no):
        raise queries.unknown(campaign_id)
    return campaign


async def _check_named(
    session: AsyncSession, fields: Mapping[str, Any], problems: Problems
) -> list[Segment] | None:
    """Adds a problem for a sender, and for each segment, that cannot be named. Gives the segments, shared
    until the commit; None if they cannot be an audience."""
    if (sender_id := fields.get("sender_id")) is not None:
        sender = await session.get(User, sender_id)
        if sender is None or sender.deleted_at is not None:
            sentence = f"There is no user {sender_id} to send for; create it with upsertUsers."
            problems.add(InvalidInput(sentence), "sender_id")
    segments: list[Segment] | None = None
    with problems.at("segment_ids"):
        segments = await audience.shared(session, fields.get("segment_ids") or ())
    return segments

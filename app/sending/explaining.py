"""What happened, or would happen, to one target of a campaign, in sentences that a support agent can read
out."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import queries
from app.campaigns.models import Campaign
from app.campaigns.states import ENDED, Status
from app.channels.models import Channel, Member
from app.ledger import recipients
from app.ledger.models import Plan, RecipientStatus
from app.ledger.recipients import LedgerRow
from app.messages.models import Message
from app.segments.kinds import SegmentType
from app.segments.models import Segment
from app.sending import audience, wording
from app.sending.audience import Naming
from app.sending.previewing import blueprint_of, checked_target_id, settle_in_turns
from app.sending.reaching import SenderMissing
from app.sending.writers import writer_of
from app.sending.writing import Entry
from app.users.models import User
from app.validation import Problems


class Stage(Enum):
    """How far a target has come."""

    OUTSIDE = auto()  # no target, or no target any more when the audience was planned
    AHEAD = auto()  # named, and not planned yet
    CUT_OFF = auto()  # named, and stopped before it was planned
    WAITING = auto()  # planned, and its turn may still come
    STOPPED = auto()  # planned, and stopped before its turn
    SETTLED = auto()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one target. `status` and `reason` are None until it is planned."""

    target_id: str
    in_audience: bool
    segments: tuple[Segment, ...]
    status: int | None
    reason: int | None
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One target of one campaign, and what was read of both in one snapshot."""

    campaign: Campaign
    target_id: str
    naming: Naming
    plan: Plan | None
    recipient: LedgerRow | None

    @property
    def noun(self) -> str:
        """`the user bob`."""
        kind = "channel" if self.campaign.audience == SegmentType.CHANNEL else "user"
        return f"the {kind} {self.target_id}"

    @property
    def stage(self) -> Stage:
        """How far the target has come."""
        ended = self.campaign.status in ENDED
        if self.recipient is not None:
            if self.recipient.status != RecipientStatus.PENDING:
                return Stage.SETTLED
            return Stage.STOPPED if ended else Stage.WAITING
        if not self.naming.named or self._planned_past():
            return Stage.OUTSIDE
        return Stage.CUT_OFF if ended else Stage.AHEAD

    def _planned_past(self) -> bool:
        """Whether planning has gone past the target: it never comes back. (A retry plans nobody new.)"""
        if self.plan is None:
            return False
        if self.plan.planned or self.plan.retry_reasons is not None:
            return True
        return self.plan.cursor is not None and self.target_id <= self.plan.cursor


async def explain(session: AsyncSession, campaign_no: int, target_id: str) -> Explanation | None:
    """Everything about one target of a campaign, at any status; None if the campaign is deleted.

    Raises INVALID_INPUT for what can be no target. `session` must be one snapshot.
    """
    problems = Problems()
    with problems.at("targetId"):
        checked_target_id(target_id)
    problems.check()
    campaign = (await queries.by_nos(session, [campaign_no])).get(campaign_no)
    if campaign is None:
        return None
    key = (campaign_no, target_id)
    case = Case(
        campaign=campaign,
        target_id=target_id,
        naming=await audience.naming(session, campaign, target_id),
        plan=await session.get(Plan, campaign_no),
        recipient=(await recipients.by_key(session, [key])).get(key),
    )
    return Explanation(
        target_id=target_id,
        in_audience=case.stage is not Stage.OUTSIDE,
        segments=case.naming.matching,
        status=case.recipient.status if case.recipient else None,
        reason=case.recipient.reason if case.recipient else None,
        steps=(*_who_names_it(case), *await _gone(session, case), *await _what_happens(session, case)),
    )


def _who_names_it(case: Case) -> Iterator[str]:
    matching = [segment.segment_id for segment in case.naming.matching]
    gone = len(matching) == 1 and case.naming.matching[0].deleted_at is not None
    if case.naming.by_id:
        yield f"The campaign's userIds name {case.noun}."
    elif len(matching) > 1:
        yield (
            f"The segments {wording.listed(matching)} name {case.noun}. It counts once, for {matching[0]}: "
            "duplicates go."
        )
    elif matching:
        yield f"The segment {matching[0]}{', deleted since, named' if gone else ' names'} {case.noun}."
    elif case.naming.segments:
        every = [segment.segment_id for segment in case.naming.segments]
        yield f"No segment of the campaign ({wording.listed(every)}) names {case.noun}{_now(case)}."
    else:
        yield f"The campaign has no segments, and its userIds do not name {case.noun}."
    if case.recipient is not None and not case.naming.named:
        yield "It was named when the audience was planned, and the audience is frozen by that."


async def _gone(session: AsyncSession, case: Case) -> list[str]:
    """That a target exists no more, which is why nothing names it."""
    if case.campaign.audience == SegmentType.CHANNEL or case.recipient is not None:
        return []
    user = await session.get(User, case.target_id)
    if user is None or user.deleted_at is None:
        return []
    return [f"The user {case.target_id} was deleted at {wording.instant(user.deleted_at)}."]


def _now(case: Case) -> str:
    return " now" if case.plan is not None else ""


async def _what_happens(session: AsyncSession, case: Case) -> list[str]:
    match case.stage:
        case Stage.OUTSIDE:
            return _outside(case)
        case Stage.CUT_OFF:
            return [_cut_off(case)]
        case Stage.STOPPED:
            return [_planned(case), f"{_stopped(case)} before its turn: it stays PENDING."]
        case Stage.AHEAD:
            return [_ahead(case), *await _if_now(session, case)]
        case Stage.WAITING:
            return [_planned(case), _waiting(case), *await _if_now(session, case)]
        case Stage.SETTLED:
            return [_planned(case), *await _settled(session, case), *_to_retry(case)]


def _to_retry(case: Case) -> Iterator[str]:
    """What a retry that has not come to its end means for a recipient that it has not come to."""
    reasons = case.plan.retry_reasons if case.plan is not None and not case.plan.planned else None
    if case.recipient is None or reasons is None or case.recipient.reason not in reasons:
        return
    if case.campaign.status in ENDED:
        yield f"A retry was to send to it again. {_stopped(case)} before that."
    else:
        yield f"A retry is to send to it again, and has not come to it yet.{_paused(case)}"


def _outside(case: Case) -> list[str]:
    if not case.naming.named:
        return ["So it is no target of the campaign."]
    return [
        "It did not when the audience was planned, and the audience is frozen by that: so it is no target of "
        "the campaign."
    ]


def _planned(case: Case) -> str:
    at = f" at {wording.instant(case.campaign.started_at)}" if case.campaign.started_at else ""
    return f"The campaign started{at} and planned {case.noun} as a target."


def _cut_off(case: Case) -> str:
    if case.campaign.started_at is None:
        return f"{_stopped(case)} before it started: nothing was sent."
    return f"{_stopped(case)} before its turn: its audience was not planned as far as {case.noun}."


def _stopped(case: Case) -> str:
    return f"The campaign was stopped at {wording.instant(case.campaign.status_changed_at)}{_because(case)}"


def _because(case: Case) -> str:
    said = [said for said in (case.campaign.status_reason, case.campaign.status_message) if said]
    return f" ({': '.join(said)})" if said else ""


def _ahead(case: Case) -> str:
    if case.plan is not None:
        return f"The audience is still being planned, and not as far as {case.noun} yet.{_paused(case)}"
    if case.campaign.status == Status.SCHEDULED and case.campaign.scheduled_for is not None:
        return f"The campaign starts at {wording.instant(case.campaign.scheduled_for)}."
    return "The campaign has not been started."


def _waiting(case: Case) -> str:
    return f"It is PENDING: it waits for its turn.{_paused(case)}"


def _paused(case: Case) -> str:
    if case.campaign.status != Status.PAUSED:
        return ""
    since = wording.instant(case.campaign.status_changed_at)
    return f" The campaign is paused since {since}{_because(case)}."


async def _if_now(session: AsyncSession, case: Case) -> list[str]:
    """What would happen if its turn came now, found out by the code that sends."""
    writer, entry = await writer_of(session), Entry(case.target_id)
    try:
        blueprint = await blueprint_of(case.campaign)
        await settle_in_turns(writer, blueprint, [entry], collect_missing=True)
    except SenderMissing:
        return [f"Nothing can be sent now. {wording.sender_missing(case.campaign)}"]
    if entry.reason is not None or entry.cid is None:
        return [f"If it were its turn now, it would be {wording.why(entry, case.campaign)}."]
    exists = entry.cid in await writer.channels([entry.cid])
    where = "which exists" if exists else "which would be created"
    steps = [f"If it were its turn now, it would be SENT to the channel {entry.cid}, {where}."]
    if entry.missing:
        steps.append(f"Nothing is known for {wording.listed(list(entry.missing))}: that would stay empty.")
    return steps


async def _settled(session: AsyncSession, case: Case) -> list[str]:
    recipient = case.recipient
    assert recipient is not None
    at = "" if recipient.settled_at is None else f" at {wording.instant(recipient.settled_at)}"
    if recipient.status != RecipientStatus.SENT:
        return [f"It was settled{at} as {wording.why(recipient, case.campaign)}."]
    message = await session.get(Message, recipient.message_id) if recipient.message_id else None
    name = f" as the message {recipient.message_id}" if recipient.message_id else ""
    steps = [f"It was SENT{at}{name}, to the channel {recipient.cid}, {await _channel(session, recipient)}."]
    if message is None:
        steps.append("The message was deleted since.")
    return [*steps, await _read(session, case, recipient)]


async def _channel(session: AsyncSession, recipient: LedgerRow) -> str:
    """What became of the channel. One that was created for a message has the message's very instant."""
    channel = await session.get(Channel, recipient.cid)
    if channel is None or recipient.settled_at is None:
        return "which was deleted since"
    if channel.created_at > recipient.settled_at:
        return "which was deleted since and created again"
    if channel.created_at == recipient.settled_at:
        return "which the campaign created"
    return "which existed already"


async def _read(session: AsyncSession, case: Case, recipient: LedgerRow) -> str:
    for_channels = case.campaign.audience == SegmentType.CHANNEL
    if recipient.read_at is not None:
        who = "The first member to read it" if for_channels else "The receiver"
        return f"{who} had read it by {wording.instant(recipient.read_at)}."
    if for_channels:
        return "Nobody has read it there yet."
    member = await session.get(Member, (recipient.cid, recipient.target_id))
    if member is None:
        return "The receiver has not read it, and is no member of the channel any more."
    if recipient.settled_at is not None and member.created_at > recipient.settled_at:
        return "The receiver left the channel and joined it again later: whether it was read is not known."
    return "The receiver has not read it."

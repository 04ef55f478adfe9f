"""What a reader of a channel tells the campaigns that wrote into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, bindparam, case, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.channels.models import Channel, Member
from app.channels.service import locked, member_of
from app.database import dialect_of, now
from app.ledger.models import BatchRead, Recipient
from app.messages.models import Message
from app.segments.kinds import SegmentType

LEDGER = Recipient.__table__  # type: ignore[attr-defined]
FEW = 1_000  # unread messages that are looked at one by one: 2 ms


@dataclass(frozen=True, slots=True)
class Reading:
    """A channel that somebody has read, and the campaigns that have another reader by that."""

    channel: Channel
    campaign_nos: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """A ledger row whose message has another reader; `first`, if nobody had read it before."""

    campaign_no: int
    target_id: str
    batch_no: int
    first: bool


async def mark_read(session: AsyncSession, cid: str, user_id: str) -> Reading:
    """The member has read everything in the channel up to now. Raises `NotFound`.

    Whoever writes into the channel holds its row as well: each message is read or unread, and a member
    counts as its reader once.
    """
    channel = await locked(session, cid)
    member = await member_of(session, channel, user_id)
    at = await now(session)
    counted = await _newly_read(session, channel, member)
    await _note_first(session, [row for row in counted if row.first], at)
    await _count(session, counted)
    member.read_seq, member.last_read_at = channel.last_seq, at
    await session.flush()
    return Reading(channel, tuple(sorted({row.campaign_no for row in counted})))


async def _newly_read(session: AsyncSession, channel: Channel, member: Member) -> list[Counted]:
    """The ledger rows for which this member counts as a reader now: the member's own where users are the
    targets; where channels are, the channel's, unless the member is the sender. In the order of their keys,
    locked; those of a campaign that is being cleared away are passed over."""
    few = channel.last_seq - member.read_seq <= FEW
    rows = await session.execute(
        select(
            col(Recipient.campaign_no),
            col(Recipient.target_id),
            col(Recipient.batch_no),
            col(Recipient.read_at),
        )
        .join(Campaign, col(Campaign.campaign_no) == col(Recipient.campaign_no))
        .join(Message, col(Message.id) == col(Recipient.message_id))
        .where(
            col(Message.seq) > member.read_seq,
            col(Message.sender_id) != member.user_id,
            _among_messages(channel, member) if few else _among_campaigns(channel, member),
            or_(col(Campaign.audience) == SegmentType.CHANNEL, col(Recipient.read_at).is_(None)),
        )
        .order_by(col(Recipient.campaign_no), col(Recipient.target_id))
        .with_for_update(of=Recipient, skip_locked=True)
    )
    return [
        Counted(campaign_no, target_id, batch_no, read_at is None)
        for campaign_no, target_id, batch_no, read_at in rows
    ]


def _among_messages(channel: Channel, member: Member) -> ColumnElement[bool]:
    """Looks at each unread message of the channel for whom it is."""
    return and_(
        col(Message.cid) == channel.cid,
        col(Message.campaign_no) == col(Recipient.campaign_no),
        col(Message.target_id) == col(Recipient.target_id),
        or_(
            and_(col(Message.target_id) == member.user_id, col(Campaign.audience) == SegmentType.USER),
            and_(col(Message.target_id) == channel.cid, col(Campaign.audience) == SegmentType.CHANNEL),
        ),
    )


def _among_campaigns(channel: Channel, member: Member) -> ColumnElement[bool]:
    """Asks each campaign for the one row it may have for this reader: a channel that many receivers share has
    far more messages."""
    target = case((col(Campaign.audience) == SegmentType.CHANNEL, channel.cid), else_=member.user_id)
    keys = select(col(Campaign.campaign_no), target).where(col(Campaign.started_at).is_not(None))
    return and_(
        tuple_(col(Recipient.campaign_no), col(Recipient.target_id)).in_(keys),
        col(Recipient.cid) == channel.cid,
    )


async def _note_first(session: AsyncSession, counted: Sequence[Counted], at: datetime) -> None:
    if counted:
        key = (LEDGER.c.campaign_no == bindparam("of"), LEDGER.c.target_id == bindparam("target"))
        await session.execute(
            update(LEDGER).where(*key).values(read_at=at),
            [{"of": row.campaign_no, "target": row.target_id} for row in counted],
        )


async def _count(session: AsyncSession, counted: Sequence[Counted]) -> None:
    """Raises the sums of the batches that wrote these rows, in the order of their keys."""
    if not counted:
        return
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    one = dialect.insert(BatchRead)
    statement = one.on_conflict_do_update(
        index_elements=["campaign_no", "batch_no"],
        set_={"users_read": col(BatchRead.users_read) + one.excluded.users_read},
    )
    batches = sorted((row.campaign_no, row.batch_no) for row in counted)
    await (await session.connection()).execute(
        statement,
        [{"campaign_no": number, "batch_no": batch_no, "users_read": 1} for number, batch_no in batches],
    )

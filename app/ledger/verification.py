"""Proving that a campaign's books balance: counted row by row in one snapshot, whatever the stats say."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import dialect_of
from app.ledger import queries
from app.ledger.erasing import MESSAGE_DELETED
from app.ledger.models import Batch, BatchTargets, Plan, Recipient, RecipientStatus
from app.messages.models import Message

# Counting all of a large campaign takes as long as it takes; and right after a campaign, statistics that say
# that its tables are empty lead to a loop over millions of look-ups.
_TAKE_YOUR_TIME = text(
    "SELECT set_config('transaction_timeout', '0', true), set_config('enable_nestloop', 'off', true)"
)


@dataclass(frozen=True, slots=True)
class Books:
    """What was counted, and a sentence for everything that does not agree. `erased` targets are SENT, and
    their messages were deleted since."""

    targets: int
    sent: int
    skipped: int
    failed: int
    pending: int
    messages: int
    planned: bool
    erased: int = 0
    problems: tuple[str, ...] = field(default=())

    @property
    def balanced(self) -> bool:
        """Whether every target has exactly one message or one recorded reason why not, or waits its turn."""
        return not self.problems


async def audit(session: AsyncSession, campaign_no: int) -> Books:
    """Counts ledger rows, messages and waiting ids of a campaign; `session` must be one snapshot."""
    if dialect_of(session) == "postgresql":
        await session.execute(_TAKE_YOUR_TIME)
    statuses = await _ledger_by_status(session, campaign_no)
    pending, held_twice = await _waiting(session, campaign_no)
    messages = await _count(session, select(col(Message.id)).where(col(Message.campaign_no) == campaign_no))
    erased = await _count(session, select(col(Recipient.target_id)).where(*_erased(campaign_no)))
    unmatched = await _sent_without_message(session, campaign_no)
    plan = await session.get(Plan, campaign_no)
    targets = plan.targets if plan else 0
    sums = (await queries.sums(session, [campaign_no])).get(campaign_no, queries.Sums())
    counted = (
        statuses.get(RecipientStatus.SENT, 0),
        statuses.get(RecipientStatus.SKIPPED, 0),
        statuses.get(RecipientStatus.FAILED, 0),
        pending,
    )
    problems = [
        sentence
        for wrong, sentence in (
            (
                sum(counted) != targets,
                f"{targets:,} targets were planned, {sum(counted):,} are accounted for",
            ),
            (
                messages + erased != counted[0],
                f"{counted[0]:,} targets are SENT, {messages:,} messages exist, {erased:,} were deleted",
            ),
            (unmatched > erased, f"{unmatched - erased:,} SENT targets have no message of their own"),
            (held_twice > 0, f"{held_twice:,} targets are settled and still waiting"),
            (
                (sums.sent, sums.skipped, sums.failed, sums.pending) != counted,
                f"the stats say {sums.sent:,} sent, {sums.skipped:,} skipped, {sums.failed:,} failed,"
                f" {sums.pending:,} pending",
            ),
        )
        if wrong
    ]
    return Books(targets, *counted, messages, bool(plan and plan.planned), erased, tuple(problems))


def _erased(campaign_no: int) -> tuple[ColumnElement[bool], ...]:
    """SENT ledger rows that say themselves that their message was deleted since."""
    return (
        col(Recipient.campaign_no) == campaign_no,
        col(Recipient.status) == RecipientStatus.SENT,
        col(Recipient.message_id).is_(None),
        col(Recipient.detail) == MESSAGE_DELETED,
    )


async def _ledger_by_status(session: AsyncSession, campaign_no: int) -> dict[int, int]:
    rows = await session.execute(
        select(col(Recipient.status), func.count())
        .where(col(Recipient.campaign_no) == campaign_no)
        .group_by(col(Recipient.status))
    )
    return {row[0]: row[1] for row in rows}


async def _waiting(session: AsyncSession, campaign_no: int) -> tuple[int, int]:
    """How many ids open batches hold, and how many of those have a ledger row nevertheless. A batch at a
    time, so that memory stays flat."""
    batches = await session.execute(
        select(col(Batch.batch_no)).where(col(Batch.campaign_no) == campaign_no, col(Batch.pending) > 0)
    )
    held = settled = 0
    for batch_no in batches.scalars().all():
        found = await session.execute(
            select(col(BatchTargets.target_ids)).where(
                col(BatchTargets.campaign_no) == campaign_no, col(BatchTargets.batch_no) == batch_no
            )
        )
        target_ids = found.scalar_one()
        held += len(target_ids)
        settled += await _count(
            session,
            select(col(Recipient.target_id)).where(
                col(Recipient.campaign_no) == campaign_no, col(Recipient.target_id).in_(target_ids)
            ),
        )
    return held, settled


async def _sent_without_message(session: AsyncSession, campaign_no: int) -> int:
    """SENT ledger rows whose message is absent, is another campaign's, or is shared with another row."""
    sent = (col(Recipient.campaign_no) == campaign_no, col(Recipient.status) == RecipientStatus.SENT)
    own = and_(
        col(Message.id) == col(Recipient.message_id),
        col(Message.campaign_no) == campaign_no,
        col(Message.cid) == col(Recipient.cid),
    )
    rows = await session.execute(select(func.count()).select_from(Recipient).where(*sent))
    matched = await session.execute(
        select(func.count(func.distinct(Recipient.message_id)))
        .select_from(Recipient)
        .join(Message, own)
        .where(*sent)
    )
    return rows.scalar_one() - matched.scalar_one()


async def _count(session: AsyncSession, statement: Select[Any]) -> int:
    return (await session.execute(select(func.count()).select_from(statement.subquery()))).scalar_one()

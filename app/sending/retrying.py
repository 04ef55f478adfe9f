"""Retrying: recipients that were not reached go from the ledger back into batches, a chunk a transaction.

One walk over the unsent rows by target id, guarded as planning is: the plan's cursor, the ledger, the counts
of the old batches and the new batches commit together, so that the books balance at every commit. What a stop
leaves unmoved keeps its outcome.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Integer, bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.campaigns.states import RUNNING
from app.database import Database, changed, dialect_of
from app.given import given
from app.ledger.models import Batch, BatchReason, Plan, Recipient, RecipientStatus
from app.ledger.queries import SAMPLES
from app.ledger.recipients import UNSENT, unsent
from app.sending.planning import Planning, in_batches, insert_batches
from app.sending.running import CampaignNotRunning, ensure_running
from app.sending.writing import Disagreement

log = structlog.get_logger(__name__)

CHUNK = 2_000  # unsent rows of each status that a transaction looks at: 30 ms on SQLite

_COLUMNS = (col(Recipient.target_id), col(Recipient.status), col(Recipient.reason), col(Recipient.batch_no))

_DISCOUNT = (
    update(Batch)
    .where(
        col(Batch.campaign_no) == bindparam("this_campaign"),
        col(Batch.batch_no) == bindparam("this_batch"),
        col(Batch.skipped) >= bindparam("fewer_skipped"),
        col(Batch.failed) >= bindparam("fewer_failed"),
    )
    .values(
        targets=col(Batch.targets) - bindparam("fewer_skipped") - bindparam("fewer_failed"),
        skipped=col(Batch.skipped) - bindparam("fewer_skipped"),
        failed=col(Batch.failed) - bindparam("fewer_failed"),
    )
)
_DISCOUNT_REASON = (
    update(BatchReason)
    .where(
        col(BatchReason.campaign_no) == bindparam("this_campaign"),
        col(BatchReason.reason) == bindparam("this_reason"),
        col(BatchReason.batch_no) == bindparam("this_batch"),
        col(BatchReason.count) >= bindparam("fewer"),
    )
    .values(count=col(BatchReason.count) - bindparam("fewer"))
)


async def retry_chunk(database: Database, campaign_no: int) -> Planning:
    """Moves the next chunk of the recipients that a retry sends to again into new batches."""
    async with database.read() as session:
        plan = await session.get(Plan, campaign_no)
        campaign = await session.get(Campaign, campaign_no)
        if plan is None or plan.planned or plan.retry_reasons is None or campaign is None:
            return Planning.OVERTAKEN
        until = await _end_of_chunk(session, campaign_no, plan.cursor)
    try:
        async with database.transaction() as session:
            return await _move(session, campaign, plan, until)
    except CampaignNotRunning:
        return Planning.OVERTAKEN


async def _end_of_chunk(session: AsyncSession, campaign_no: int, after: str | None) -> str | None:
    """The last id of the next chunk; None if it reaches to the end of the ledger."""
    ends = []
    for status in UNSENT:
        rows = select(col(Recipient.target_id)).where(*_unsent(session, campaign_no, status, after, None))
        found = await session.execute(rows.order_by(col(Recipient.target_id)).offset(CHUNK - 1).limit(1))
        ends.append(found.scalar_one_or_none())
    return min((end for end in ends if end is not None), default=None)


def _unsent(
    session: AsyncSession,
    campaign_no: int,
    status: RecipientStatus,
    after: str | None,
    until: str | None,
    reasons: Sequence[int] | None = None,
) -> list[ColumnElement[bool]]:
    conditions = [
        col(Recipient.campaign_no) == campaign_no,
        *unsent(dialect_of(session), status, reasons),
    ]
    if after is not None:
        conditions.append(col(Recipient.target_id) > after)
    if until is not None:
        conditions.append(col(Recipient.target_id) <= until)
    return conditions


async def _move(session: AsyncSession, campaign: Campaign, seen: Plan, until: str | None) -> Planning:
    plan = await _locked_as_seen(session, seen)
    if plan is None:
        return Planning.OVERTAKEN
    moved = await _take(session, plan, until)
    await _discount(session, plan.campaign_no, moved)
    await _discount_reasons(session, plan, moved, until)
    parts = in_batches(campaign, sorted(row.target_id for row in moved))
    await insert_batches(session, plan.campaign_no, plan.last_batch_no, parts)
    plan.last_batch_no += len(parts)
    plan.cursor = until
    if until is None:
        plan.planned, plan.retry_reasons = True, None
    await session.flush()
    await ensure_running(session, plan.campaign_no, RUNNING)
    log.debug("to be retried", campaign=campaign.campaign_id, targets=len(moved), finished=plan.planned)
    return Planning.FINISHED if plan.planned else Planning.STORED


async def _locked_as_seen(session: AsyncSession, seen: Plan) -> Plan | None:
    """The plan, if no other walker, no halved batch and no end came between."""
    found = await session.execute(
        select(Plan)
        .where(
            col(Plan.campaign_no) == seen.campaign_no,
            col(Plan.planned).is_(False),
            col(Plan.retry_reasons).is_not(None),
            col(Plan.last_batch_no) == seen.last_batch_no,
            col(Plan.cursor).is_not_distinct_from(seen.cursor),
        )
        .with_for_update()
    )
    return found.scalar_one_or_none()


async def _take(session: AsyncSession, plan: Plan, until: str | None) -> list[Any]:
    """Takes the chunk's recipients out of the ledger."""
    taken: list[Any] = []
    for status in UNSENT:
        rows = await session.execute(
            delete(Recipient)
            .where(*_unsent(session, plan.campaign_no, status, plan.cursor, until, plan.retry_reasons or ()))
            .returning(*_COLUMNS)
            .execution_options(synchronize_session=False)
        )
        taken += rows.all()
    return taken


async def _discount(session: AsyncSession, campaign_no: int, moved: Sequence[Any]) -> None:
    """Takes what was moved off the counts of the batches that settled it."""
    counts: dict[int, Counter[int]] = {}
    for row in moved:
        counts.setdefault(row.batch_no, Counter())[row.status] += 1
    await _apply(
        session,
        _DISCOUNT,
        [
            {
                "this_campaign": campaign_no,
                "this_batch": batch_no,
                "fewer_skipped": count[RecipientStatus.SKIPPED],
                "fewer_failed": count[RecipientStatus.FAILED],
            }
            for batch_no, count in sorted(counts.items())
        ],
    )


async def _discount_reasons(
    session: AsyncSession, plan: Plan, moved: Sequence[Any], until: str | None
) -> None:
    """Takes what was moved off the batches' reasons; what is left of one names other recipients."""
    counts = Counter((row.reason, row.batch_no) for row in moved)
    if not counts:
        return
    await _apply(
        session,
        _DISCOUNT_REASON,
        [
            {"this_campaign": plan.campaign_no, "this_reason": reason, "this_batch": batch_no, "fewer": count}
            for (reason, batch_no), count in sorted(counts.items())
        ],
    )
    keys = given(session, sorted(counts), reason=Integer, batch_no=Integer)
    touched = [
        col(BatchReason.campaign_no) == plan.campaign_no,
        tuple_(col(BatchReason.reason), col(BatchReason.batch_no)).in_(
            select(keys.c.reason, keys.c.batch_no)
        ),
    ]
    await changed(session, delete(BatchReason).where(*touched, col(BatchReason.count) == 0))
    if until is not None:
        left = await session.execute(select(BatchReason).where(*touched))
        for row in left.scalars().all():
            await _sample_again(session, row, until)


async def _sample_again(session: AsyncSession, left: BatchReason, after: str) -> None:
    """Of a batch that reaches beyond the chunk everything up to `after` was moved: samples are later ids."""
    batch = await session.get_one(Batch, (left.campaign_no, left.batch_no))
    samples: list[str] = []
    for status in UNSENT:
        rows = await session.execute(
            select(col(Recipient.target_id))
            .where(
                *_unsent(session, left.campaign_no, status, after, batch.last_target, [left.reason]),
                col(Recipient.batch_no) == left.batch_no,
            )
            .order_by(col(Recipient.target_id))
            .limit(SAMPLES)
        )
        samples += rows.scalars()
    left.samples = samples


async def _apply(session: AsyncSession, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    connection = await session.connection()
    result = await connection.execute(statement.execution_options(preserve_rowcount=True), rows)
    if result.rowcount != len(rows):
        raise Disagreement(f"{result.rowcount} of {len(rows)} batches hold what is to be retried")

"""Finding the one recipient that breaks a batch: halve until it stands alone, and let it fail alone."""

import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.states import Status
from app.database import changed, now
from app.ids import new_uuid
from app.ledger.models import Batch, BatchTargets, OutcomeReason, Plan
from app.sending.closing import Made, close_batch
from app.sending.opening import BatchTaken, lock_batch
from app.sending.running import ensure_running
from app.sending.writers import writer_of
from app.sending.writing import Entry, Sending, Shared

log = structlog.get_logger(__name__)

MAX_TRIES = 2
MAX_TRIES_ALONE = 5  # crashes have other reasons too: the last one standing gets some more
# A half has one try before it is halved again: ten tries find one of a thousand.
TRIES_OF_A_HALF = MAX_TRIES - 1


def is_broken(attempts: int, pending: int) -> bool:
    """Whether a batch has failed as often as it may."""
    return attempts > (MAX_TRIES if pending > 1 else MAX_TRIES_ALONE)


async def isolate(session: AsyncSession, campaign_no: int, batch_no: int) -> None:
    """Halves a batch that failed `MAX_TRIES` times; a batch of one, after `MAX_TRIES_ALONE`, is settled as
    FAILED INTERNAL_ERROR.

    Raises `BatchTaken` or `CampaignNotRunning`. Locks the plan, then the batch; what that has come to by then
    decides. Two workers may have judged the same batch: when the first has halved it, the half that kept its
    number is not broken, and a healthy recipient who stood alone in there failed for his neighbour.
    """
    plan = await session.execute(select(Plan).where(col(Plan.campaign_no) == campaign_no).with_for_update())
    target_ids = await lock_batch(session, campaign_no, batch_no)
    attempts = await session.execute(
        select(col(Batch.attempts)).where(
            col(Batch.campaign_no) == campaign_no, col(Batch.batch_no) == batch_no
        )
    )
    if not is_broken(attempts.scalar_one(), len(target_ids)):
        raise BatchTaken
    if len(target_ids) > 1:
        await _halve(session, plan.scalar_one(), batch_no, target_ids)
    else:
        await _fail(session, campaign_no, batch_no, target_ids)
    await ensure_running(session, campaign_no, {Status.IN_PROGRESS})


async def _halve(session: AsyncSession, plan: Plan, batch_no: int, target_ids: list[str]) -> None:
    middle = len(target_ids) // 2
    kept, moved = target_ids[:middle], target_ids[middle:]
    plan.last_batch_no += 1
    log.warning("batch halved", campaign_no=plan.campaign_no, batch=batch_no, targets=len(target_ids))
    batch = (col(Batch.campaign_no) == plan.campaign_no, col(Batch.batch_no) == batch_no)
    await changed(
        session,
        update(Batch)
        .where(*batch)
        .values(
            targets=col(Batch.targets) - len(moved),
            pending=len(kept),
            last_target=kept[-1],
            attempts=TRIES_OF_A_HALF,
        ),
    )
    await changed(
        session,
        update(BatchTargets)
        .where(col(BatchTargets.campaign_no) == plan.campaign_no, col(BatchTargets.batch_no) == batch_no)
        .values(target_ids=kept),
    )
    half = Batch(
        campaign_no=plan.campaign_no,
        batch_no=plan.last_batch_no,
        first_target=moved[0],
        last_target=moved[-1],
        targets=len(moved),
        pending=len(moved),
        attempts=TRIES_OF_A_HALF,
    )
    await session.execute(insert(Batch).values(**half.model_dump()))
    await session.execute(
        insert(BatchTargets).values(
            campaign_no=plan.campaign_no, batch_no=plan.last_batch_no, target_ids=moved
        )
    )


async def _fail(session: AsyncSession, campaign_no: int, batch_no: int, target_ids: list[str]) -> None:
    incident = new_uuid()
    log.error("recipient failed alone", incident=incident, campaign_no=campaign_no, target=target_ids[0])
    entry = Entry(target_ids[0])
    entry.fail(OutcomeReason.INTERNAL_ERROR, f"incident {incident}")
    shared = Shared(campaign_no, batch_no, sender_id="", poll_id=None, now=await now(session), created=None)
    await (await writer_of(session)).write(Sending.of([], shared), [entry], shared)
    await close_batch(session, shared, [entry], [], Made())

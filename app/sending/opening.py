"""The beginning of a slice: the batch is locked, its campaign looked at, and waiting bounded."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.database import ask, dialect_of
from app.ledger.models import Batch, BatchTargets
from app.sending.running import CampaignNotRunning

LONGEST_TRANSACTION = "5s"

# Built once: building the statements of every batch anew took a twentieth of the sender's time.
_THESE_TARGETS = (
    col(BatchTargets.campaign_no) == bindparam("this_campaign"),
    col(BatchTargets.batch_no) == bindparam("this_batch"),
)
_HELD = select(col(BatchTargets.target_ids)).where(*_THESE_TARGETS)
_RUNNING = (
    select(col(Campaign.updated_at))
    .where(
        col(Campaign.campaign_no) == bindparam("this_campaign"),
        col(Campaign.status) == Status.IN_PROGRESS,
        col(Campaign.deleted_at).is_(None),
    )
    .scalar_subquery()
)
_OPEN = (
    select(col(Batch.pending), _RUNNING.label("updated_at"))
    .where(
        col(Batch.campaign_no) == bindparam("this_campaign"),
        col(Batch.batch_no) == bindparam("this_batch"),
        col(Batch.pending) > 0,
    )
    .with_for_update(skip_locked=True)
)
# Longer waits for a lock give the batch back, so that no pause or mutation queues behind it; a process that
# is stopped, not dead, loses its batch after five seconds instead of keeping it for ever.
# (The connection has a timeout already, whose timer runs: only by way of 0 does it take another one.)
_OPEN_BOUNDED: Select[Any] = _OPEN.add_columns(
    func.clock_timestamp().label("at"),
    func.set_config("lock_timeout", "100ms", True),
    func.set_config("transaction_timeout", "0", True),
    func.set_config("transaction_timeout", bindparam("longest"), True),
)


class BatchTaken(Exception):
    """Another worker holds this batch, or has settled it."""


class Opened(NamedTuple):
    """A batch whose row is locked: how many targets it still holds, the instant by the database's clock, and
    when its campaign, which runs, was last edited."""

    pending: int
    at: datetime
    edited_at: datetime


async def open_batch(session: AsyncSession, campaign_no: int, batch_no: int) -> Opened:
    """Locks an open batch, in one round trip. The row lock is the lease: it dies with its worker.

    Raises `BatchTaken` or `CampaignNotRunning`.
    """
    bounded = dialect_of(session) == "postgresql"
    batch: dict[str, Any] = {"this_campaign": campaign_no, "this_batch": batch_no}
    if bounded:
        found = await ask(session, _OPEN_BOUNDED, **batch, longest=LONGEST_TRANSACTION)
    else:
        found = await ask(session, _OPEN, **batch)
    row = found.one_or_none()
    if row is None:
        raise BatchTaken
    if row.updated_at is None:
        raise CampaignNotRunning
    return Opened(row.pending, row.at.astimezone(UTC) if bounded else datetime.now(UTC), row.updated_at)


async def held_targets(session: AsyncSession, campaign_no: int, batch_no: int) -> list[str]:
    """The ids that the batch still holds."""
    found = await ask(session, _HELD, this_campaign=campaign_no, this_batch=batch_no)
    target_ids: list[str] = found.scalar_one()
    return target_ids


async def lock_batch(session: AsyncSession, campaign_no: int, batch_no: int) -> list[str]:
    """Locks an open batch of a campaign that runs; the ids that it still holds.

    Raises `BatchTaken` or `CampaignNotRunning`.
    """
    await open_batch(session, campaign_no, batch_no)
    return await held_targets(session, campaign_no, batch_no)

"""Clearing away deleted campaigns, in chunks that no writer has to wait for. Their messages stay."""

from typing import Any

from sqlalchemy import delete, select
from sqlmodel import col

from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.database import Database, changed
from app.ledger.models import Batch, BatchRead, BatchReason, BatchTargets, Plan, Rate, Recipient

CHUNK = 5_000

# The rows of a campaign that can be many, and the column that tells them apart.
_MANY: tuple[tuple[Any, str], ...] = (
    (Recipient, "target_id"),
    (CampaignTarget, "target_id"),
    (BatchTargets, "batch_no"),
    (BatchReason, "batch_no"),
    (BatchRead, "batch_no"),
    (Batch, "batch_no"),
)


async def clear(database: Database, campaign_no: int) -> None:
    """Deletes what belongs to a deleted campaign, 5,000 rows a transaction, and its own row last.

    Capacity that it still holds is given back first, by housekeeping: until then nothing happens.
    """
    async with database.read() as session:
        plan = await session.get(Plan, campaign_no)
    if plan is not None and plan.reserved:
        return
    for table, key in _MANY:
        while await _clear_chunk(database, table, key, campaign_no):
            await database.checkpoint_if_large()
    async with database.transaction() as session:
        await changed(session, delete(Plan).where(col(Plan.campaign_no) == campaign_no))
        await changed(session, delete(Rate).where(col(Rate.scope).in_([campaign_no, -campaign_no])))
        await changed(session, delete(CampaignSegment).where(col(CampaignSegment.campaign_no) == campaign_no))
        await changed(session, delete(Campaign).where(col(Campaign.campaign_no) == campaign_no))


async def _clear_chunk(database: Database, table: Any, key: str, campaign_no: int) -> bool:
    """Whether there may be more."""
    column = getattr(table, key)
    first = select(column).where(table.campaign_no == campaign_no).order_by(column).limit(CHUNK)
    async with database.transaction() as session:
        keys = (await session.execute(first)).scalars().all()
        if not keys:
            return False
        await changed(session, delete(table).where(table.campaign_no == campaign_no, column <= keys[-1]))
    return len(keys) == CHUNK

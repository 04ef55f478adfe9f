"""The last statement of everything that the engine commits: does the campaign still run?"""

from collections.abc import Collection

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.campaigns.states import STANDING, Status
from app.database import ask, now

_STATE = (
    select(col(Campaign.status), col(Campaign.stop_at), col(Campaign.status_reason))
    .where(col(Campaign.campaign_no) == bindparam("this_campaign"), col(Campaign.deleted_at).is_(None))
    .with_for_update(read=True)
)


class CampaignNotRunning(Exception):
    """The campaign was paused, stopped, deleted, or its stopAt has come: nothing of this may commit."""


async def ensure_running(session: AsyncSession, campaign_no: int, statuses: Collection[Status]) -> None:
    """Raises `CampaignNotRunning` unless the status is one of these and stopAt lies ahead.

    Shares the campaign's row until the commit: a pause or stop waits for it, and afterwards nothing more
    commits. Called last, because held from the start it would keep a pause waiting for seconds.
    """
    found = await ask(session, _STATE, this_campaign=campaign_no)
    row = found.one_or_none()
    if row is None or row.status not in statuses or row.status_reason in STANDING:
        raise CampaignNotRunning
    if row.stop_at is not None and row.stop_at <= await now(session):
        raise CampaignNotRunning

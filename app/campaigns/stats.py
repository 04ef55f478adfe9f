"""How far campaigns have come: their rows and the sums of their batches, read in one snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import queries
from app.campaigns.models import Campaign
from app.campaigns.states import ENDED, Status
from app.database import now
from app.ledger import queries as ledger
from app.ledger.queries import SPEED_WINDOW, Sums

MOST_BEFORE_PLANNED = 0.999  # progress is 1 only when everything is planned and settled
SHORTEST_WINDOW = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of one campaign at one instant. Two are equal if they say the same at different times."""

    as_of: datetime = field(compare=False)
    started_at: datetime | None
    completed_at: datetime | None
    sums: Sums
    estimate: int | None
    messages_per_second: float

    @property
    def settled(self) -> int:
        """Targets with an outcome."""
        return self.sums.sent + self.sums.skipped + self.sums.failed

    @property
    def progress(self) -> float:
        """0 to 1, and 1 exactly when all is planned and settled. Without plan or estimate it stays 0, so that
        it does not fall once there is one."""
        if self.sums.planned:
            return self.settled / self.sums.targets if self.sums.targets else 1.0
        if not self.estimate:
            return 0.0
        return min(MOST_BEFORE_PLANNED, self.settled / max(self.sums.targets, self.estimate))

    @property
    def estimated_completion_at(self) -> datetime | None:
        """When it will be done if it goes on as in the last seconds; None where nobody can tell."""
        if not self.messages_per_second or not (self.sums.planned or self.estimate):
            return None
        whole = self.sums.targets if self.sums.planned else max(self.sums.targets, self.estimate or 0)
        return self.as_of + timedelta(seconds=(whole - self.settled) / self.messages_per_second)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A campaign and its stats, which belong together."""

    campaign: Campaign
    stats: Stats

    def same_as(self, other: "Snapshot | None") -> bool:
        """Whether both say the same."""
        return (
            other is not None
            and self.stats == other.stats
            and _state(self.campaign) == _state(other.campaign)
        )


def _state(campaign: Campaign) -> tuple[object, ...]:
    return campaign.status, campaign.status_reason, campaign.status_changed_at, campaign.updated_at


async def of(session: AsyncSession, campaigns: Sequence[Campaign]) -> dict[int, Stats]:
    """The stats of these campaigns, by number: at most nine statements, however many there are.

    The rows have to come from the same session. Ended campaigns carry their sums with them.
    """
    open_nos = [campaign.campaign_no for campaign in campaigns if not _final(campaign)]
    ended = [campaign.campaign_no for campaign in campaigns if _final(campaign)]
    started = [campaign.campaign_no for campaign in campaigns if campaign.started_at is not None]
    at = await now(session)
    running = {
        campaign.campaign_no: max(campaign.status_changed_at, at - SPEED_WINDOW)
        for campaign in campaigns
        if campaign.status == Status.IN_PROGRESS
    }
    summed = await ledger.sums(session, open_nos) if open_nos else {}
    read = await ledger.users_read(session, ended) if ended else {}
    speeds = await ledger.sent_since(session, running) if running else {}
    sums = {
        campaign.campaign_no: ledger.from_json(campaign.final_stats, read.get(campaign.campaign_no, 0))
        if campaign.final_stats is not None and _final(campaign)
        else summed.get(campaign.campaign_no, Sums())
        for campaign in campaigns
    }
    unplanned = [number for number in started if not sums[number].planned]
    estimates = await queries.estimates(session, unplanned) if unplanned else {}
    return {
        campaign.campaign_no: Stats(
            as_of=at,
            started_at=campaign.started_at,
            completed_at=campaign.completed_at,
            sums=sums[campaign.campaign_no],
            estimate=estimates.get(campaign.campaign_no),
            messages_per_second=_speed(campaign, speeds.get(campaign.campaign_no, 0), at),
        )
        for campaign in campaigns
    }


def _final(campaign: Campaign) -> bool:
    return campaign.status in ENDED and campaign.final_stats is not None


def _speed(campaign: Campaign, sent: int, at: datetime) -> float:
    """The speed over the window, or over the time since it last started, resumed or was retried."""
    window = min(SPEED_WINDOW, max(SHORTEST_WINDOW, at - campaign.status_changed_at))
    speed = sent / window.total_seconds()
    # Batches tell what they sent, not when within their time: a slow campaign's may reach back further.
    return min(speed, campaign.max_messages_per_second or speed)


async def snapshots(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, Snapshot]:
    """Campaigns that are not deleted, each with its stats."""
    campaigns = await queries.by_nos(session, campaign_nos)
    stats = await of(session, list(campaigns.values()))
    return {number: Snapshot(campaign, stats[number]) for number, campaign in campaigns.items()}


async def by_id(session: AsyncSession, campaign_id: str) -> Snapshot | None:
    """The campaign that lives under this id, with its stats."""
    campaign = await queries.by_id(session, campaign_id)
    if campaign is None:
        return None
    return Snapshot(campaign, (await of(session, [campaign]))[campaign.campaign_no])

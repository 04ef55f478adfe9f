"""Every statement about campaigns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, exists, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.campaigns.states import ACTIVE, STANDING, Status
from app.database import ask
from app.errors import NotFound
from app.ledger.models import Plan
from app.segments.models import Segment
from app.segments.queries import definition

NAMING = frozenset({Status.DRAFT, *ACTIVE})  # a segment named by one of these cannot be deleted


async def by_id(session: AsyncSession, campaign_id: str) -> Campaign | None:
    """The campaign that lives under this id."""
    found = await session.execute(
        select(Campaign).where(col(Campaign.campaign_id) == campaign_id, col(Campaign.deleted_at).is_(None))
    )
    return found.scalar_one_or_none()


async def existing(session: AsyncSession, campaign_id: str) -> Campaign:
    """The same. Raises NOT_FOUND."""
    campaign = await by_id(session, campaign_id)
    if campaign is None:
        raise unknown(campaign_id)
    return campaign


def unknown(campaign_id: str) -> NotFound:
    """That no campaign lives under this id."""
    return NotFound(f"There is no campaign {campaign_id}.", path=["campaign_id"])


async def locked(session: AsyncSession, campaign_id: str) -> Campaign | None:
    """The campaign, its row locked until the transaction ends. Every change of status begins here and asks
    other tables in later statements, so that they see what was committed while it waited."""
    found = await session.execute(
        select(Campaign)
        .where(col(Campaign.campaign_id) == campaign_id, col(Campaign.deleted_at).is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return found.scalar_one_or_none()


async def locked_by_no(session: AsyncSession, campaign_no: int) -> Campaign | None:
    """The same by number."""
    found = await session.execute(
        select(Campaign)
        .where(col(Campaign.campaign_no) == campaign_no, col(Campaign.deleted_at).is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return found.scalar_one_or_none()


async def locked_plan(session: AsyncSession, campaign_no: int) -> Plan | None:
    """The campaign's plan, its row locked until the transaction ends; before usage and the campaign."""
    found = await session.execute(
        select(Plan)
        .where(col(Plan.campaign_no) == campaign_no)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return found.scalar_one_or_none()


async def by_nos(session: AsyncSession, campaign_nos: Iterable[int]) -> dict[int, Campaign]:
    """Campaigns that are not deleted, by number."""
    found = await session.execute(
        select(Campaign).where(
            col(Campaign.campaign_no).in_(list(campaign_nos)), col(Campaign.deleted_at).is_(None)
        )
    )
    return {campaign.campaign_no: campaign for campaign in found.scalars()}


async def by_ids(session: AsyncSession, campaign_ids: Iterable[str]) -> dict[str, Campaign]:
    """Campaigns that are not deleted, by id."""
    found = await session.execute(
        select(Campaign).where(
            col(Campaign.campaign_id).in_(list(campaign_ids)), col(Campaign.deleted_at).is_(None)
        )
    )
    return {campaign.campaign_id: campaign for campaign in found.scalars()}


async def segments_of(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, list[Segment]]:
    """The segments that each campaign names, in the order given; deleted ones too."""
    rows = await session.execute(
        select(col(CampaignSegment.campaign_no), Segment)
        .join(Segment, col(Segment.segment_no) == col(CampaignSegment.segment_no))
        .where(col(CampaignSegment.campaign_no).in_(campaign_nos))
        .order_by(col(CampaignSegment.campaign_no), col(CampaignSegment.position))
    )
    found: dict[int, list[Segment]] = {number: [] for number in campaign_nos}
    for number, segment in rows:
        found[number].append(segment)
    return found


async def definitions(session: AsyncSession, campaign_no: int) -> list[tuple[Segment, Mapping[str, Any]]]:
    """The campaign's segments in the order given, each as it was at the start, or is until then."""
    rows = await session.execute(
        select(Segment, col(CampaignSegment.definition))
        .join(CampaignSegment, col(CampaignSegment.segment_no) == col(Segment.segment_no))
        .where(col(CampaignSegment.campaign_no) == campaign_no)
        .order_by(col(CampaignSegment.position))
    )
    return [(segment, copied or definition(segment)) for segment, copied in rows]


async def target_counts(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, int]:
    """How many users each campaign names by userIds."""
    rows = await session.execute(
        select(col(CampaignTarget.campaign_no), func.count())
        .where(col(CampaignTarget.campaign_no).in_(campaign_nos))
        .group_by(col(CampaignTarget.campaign_no))
    )
    return {row[0]: row[1] for row in rows}


async def naming_segment(session: AsyncSession, segment_no: int) -> list[str]:
    """Ids of campaigns, not yet over, that name the segment; a hundred at most."""
    rows = await session.execute(
        select(col(Campaign.campaign_id))
        .join(CampaignSegment, col(CampaignSegment.campaign_no) == col(Campaign.campaign_no))
        .where(
            col(CampaignSegment.segment_no) == segment_no,
            col(Campaign.deleted_at).is_(None),
            col(Campaign.status).in_(sorted(NAMING)),
        )
        .order_by(col(Campaign.campaign_id))
        .limit(100)
    )
    return list(rows.scalars())


async def due(session: AsyncSession, at: datetime) -> list[int]:
    """Campaigns whose start or end has come, or the end of a pause that the server made."""
    rows = await session.execute(
        select(col(Campaign.campaign_no)).where(
            col(Campaign.status).in_(sorted(ACTIVE)),
            col(Campaign.deleted_at).is_(None),
            or_(
                (col(Campaign.status) == Status.SCHEDULED) & (col(Campaign.scheduled_for) <= at),
                col(Campaign.stop_at) <= at,
                col(Campaign.resume_at) <= at,
            ),
        )
    )
    return list(rows.scalars())


async def to_start(session: AsyncSession, campaign_nos: Sequence[int]) -> list[int]:
    """Those that are scheduled."""
    rows = await session.execute(
        select(col(Campaign.campaign_no)).where(
            col(Campaign.campaign_no).in_(campaign_nos), col(Campaign.status) == Status.SCHEDULED
        )
    )
    return list(rows.scalars())


# The next start, end and resuming. Built once: housekeeping asks it every two seconds.
INSTANTS = select(
    func.min(case((col(Campaign.status) == Status.SCHEDULED, col(Campaign.scheduled_for)))),
    func.min(col(Campaign.stop_at)),
    func.min(col(Campaign.resume_at)),
).where(col(Campaign.status).in_(sorted(ACTIVE)), col(Campaign.deleted_at).is_(None))


def earliest(instants: Iterable[datetime | None]) -> datetime | None:
    """The first of those that there are."""
    return min((instant for instant in instants if instant is not None), default=None)


async def active(session: AsyncSession) -> list[int]:
    """Campaigns that are scheduled, running or paused."""
    rows = await session.execute(
        select(col(Campaign.campaign_no)).where(
            col(Campaign.status).in_(sorted(ACTIVE)), col(Campaign.deleted_at).is_(None)
        )
    )
    return list(rows.scalars())


async def updated_since(session: AsyncSession, at: datetime) -> dict[int, datetime]:
    """When campaigns were changed or deleted, if that was after `at`."""
    changed_at = col(Campaign.updated_at)
    rows = await session.execute(select(col(Campaign.campaign_no), changed_at).where(changed_at > at))
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True, slots=True)
class Working:
    """A campaign that has something to plan, send or finish."""

    campaign_no: int
    campaign_id: str
    status: Status
    planned: bool
    retrying: bool  # not planned because a retry walks its ledger
    max_messages_per_second: int | None


# Built once: every turn of every worker asks it.
_WORKING = (
    select(
        col(Campaign.campaign_no),
        col(Campaign.campaign_id),
        col(Campaign.status),
        col(Plan.planned),
        col(Plan.retry_reasons).is_not(None),
        col(Campaign.max_messages_per_second),
    )
    .join(Plan, col(Plan.campaign_no) == col(Campaign.campaign_no))
    .where(
        col(Campaign.deleted_at).is_(None),
        or_(
            col(Campaign.status) == Status.IN_PROGRESS,
            (col(Campaign.status) == Status.PAUSED)
            & col(Plan.planned).is_(False)
            & or_(
                col(Campaign.status_reason).is_(None),
                col(Campaign.status_reason).not_in(sorted(STANDING)),
            ),
        ),
    )
    .order_by(col(Campaign.started_at), col(Campaign.campaign_no))
)


async def working(session: AsyncSession) -> list[Working]:
    """What there is to do, oldest start first. A pause stops sending, not planning."""
    return [
        Working(number, campaign_id, Status(status), planned, retrying, limit)
        for number, campaign_id, status, planned, retrying, limit in await ask(session, _WORKING)
    ]


async def deleted(session: AsyncSession) -> list[int]:
    """Deleted campaigns whose rows are still to be cleared away; a hundred at a time."""
    rows = await session.execute(
        select(col(Campaign.campaign_no)).where(col(Campaign.deleted_at).is_not(None)).limit(100)
    )
    return list(rows.scalars())


def living() -> Select[Any]:
    """Campaigns that are not deleted; unordered."""
    return select(Campaign).where(col(Campaign.deleted_at).is_(None))


def names_segment(matches: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a campaign names a segment, deleted or not, for which this condition on `Segment` holds."""
    return exists(
        select(col(CampaignSegment.campaign_no))
        .join(Segment, col(Segment.segment_no) == col(CampaignSegment.segment_no))
        .where(col(CampaignSegment.campaign_no) == col(Campaign.campaign_no), matches)
        .correlate(Campaign)
    )


def targets(campaign_no: int | ColumnElement[int]) -> Select[Any]:
    """The ids that a campaign names by userIds; unordered."""
    return select(col(CampaignTarget.target_id)).where(col(CampaignTarget.campaign_no) == campaign_no)


async def estimates(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, int | None]:
    """How many targets each campaign has at most: its segments' sizes added up, None while one is not
    counted, or the ids that it names. A retry adds none to those it had."""
    rows = await session.execute(
        select(
            col(CampaignSegment.campaign_no),
            func.count(),
            func.count(col(Segment.size)),
            func.sum(col(Segment.size)),
            func.max(case((col(Plan.retry_reasons).is_not(None), col(Plan.targets)))),
        )
        .join(Segment, col(Segment.segment_no) == col(CampaignSegment.segment_no))
        .outerjoin(Plan, col(Plan.campaign_no) == col(CampaignSegment.campaign_no))
        .where(col(CampaignSegment.campaign_no).in_(campaign_nos))
        .group_by(col(CampaignSegment.campaign_no))
    )
    named = await target_counts(session, campaign_nos)
    found: dict[int, int | None] = {number: named.get(number, 0) for number in campaign_nos}
    for number, segments, counted, size, had in rows:
        found[number] = had if had is not None else int(size or 0) if counted == segments else None
    return found


def naming(segment_no: int | ColumnElement[int]) -> Select[Any]:
    """The campaigns that name the segment, whatever their status; unordered."""
    return (
        select(Campaign)
        .join(CampaignSegment, col(CampaignSegment.campaign_no) == col(Campaign.campaign_no))
        .where(col(CampaignSegment.segment_no) == segment_no, col(Campaign.deleted_at).is_(None))
    )


async def named_targets(
    session: AsyncSession, keys: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], CampaignTarget]:
    """Those of these (campaign_no, target id) that a campaign's userIds name."""
    wanted = tuple_(col(CampaignTarget.campaign_no), col(CampaignTarget.target_id)).in_(keys)
    found = await session.execute(select(CampaignTarget).where(wanted))
    return {(target.campaign_no, target.target_id): target for target in found.scalars()}

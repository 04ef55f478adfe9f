"""Whom a campaign names: segments of one type, or users by their ids. Its row is new or locked."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.errors import InvalidInput
from app.segments.kinds import SegmentType
from app.segments.models import Segment
from app.validation import Problems


async def shared(session: AsyncSession, segment_ids: Sequence[str]) -> list[Segment]:
    """The segments in the order given, their rows shared until the commit so that none is deleted meanwhile.

    They have to exist, and be all of users or all of channels: each problem is raised at its position.
    """
    if not segment_ids:
        return []
    rows = await session.execute(
        select(Segment)
        .where(col(Segment.segment_id).in_(segment_ids), col(Segment.deleted_at).is_(None))
        .order_by(col(Segment.segment_no))
        .with_for_update(read=True, key_share=True)
    )
    found, problems = {segment.segment_id: segment for segment in rows.scalars()}, Problems()
    named: list[Segment] = []
    for position, segment_id in enumerate(segment_ids):
        with problems.at(position):
            if segment_id not in found:
                raise InvalidInput(f"There is no segment {segment_id}.")
            named.append(found[segment_id])
            _check_same_type(named[0], named[-1])
    problems.check()
    return named


def _check_same_type(first: Segment, other: Segment) -> None:
    if other.type != first.type:
        raise InvalidInput(
            f"Segment {other.segment_id} holds {_TARGETS[other.type]}, {first.segment_id} before it"
            f" {_TARGETS[first.type]}: name segments of one type, and send to the others by a campaign of"
            " their own."
        )


_TARGETS: dict[str, str] = {SegmentType.USER: "users", SegmentType.CHANNEL: "channels"}


async def rename(
    session: AsyncSession, campaign: Campaign, given: Mapping[str, Any], segments: Sequence[Segment] | None
) -> None:
    """Replaces `segment_ids` and `user_ids`, whichever is given; they stay exclusive, or INVALID_INPUT is
    raised. Where the `segments` given could not be named (None), those of before stay."""
    await _check_exclusive(session, campaign, given)
    if "segment_ids" in given and segments is not None:
        await _forget(session, CampaignSegment, campaign)
        await name_segments(session, campaign, segments)
    if "user_ids" in given:
        await _forget(session, CampaignTarget, campaign)
        await name_users(session, campaign, given["user_ids"] or ())


async def _check_exclusive(session: AsyncSession, campaign: Campaign, given: Mapping[str, Any]) -> None:
    number, problems = campaign.campaign_no, Problems()
    sentence = "an audience is either segmentIds or userIds: clear {} too"
    by_users = given.get("user_ids") and "segment_ids" not in given
    if by_users and (await queries.segments_of(session, [number]))[number]:
        problems.add(InvalidInput(sentence.format("segmentIds")), "user_ids")
    by_segments = given.get("segment_ids") and "user_ids" not in given
    if by_segments and await queries.target_counts(session, [number]):
        problems.add(InvalidInput(sentence.format("userIds")), "segment_ids")
    problems.check()


async def _forget(
    session: AsyncSession, table: type[CampaignSegment | CampaignTarget], campaign: Campaign
) -> None:
    old = delete(table).where(col(table.campaign_no) == campaign.campaign_no)
    await session.execute(old.execution_options(synchronize_session=False))


async def name_segments(session: AsyncSession, campaign: Campaign, segments: Sequence[Segment]) -> None:
    """Makes these the segments of a campaign that has none; the audience is of their type."""
    campaign.audience = segments[0].type if segments else SegmentType.USER
    if segments:
        await session.execute(
            insert(CampaignSegment),
            [
                {"campaign_no": campaign.campaign_no, "segment_no": segment.segment_no, "position": position}
                for position, segment in enumerate(segments)
            ],
        )


async def name_users(session: AsyncSession, campaign: Campaign, user_ids: Sequence[str]) -> None:
    """Makes these the users whom a campaign that has none names."""
    if user_ids:
        await session.execute(
            insert(CampaignTarget),
            [{"campaign_no": campaign.campaign_no, "target_id": user_id} for user_id in user_ids],
        )

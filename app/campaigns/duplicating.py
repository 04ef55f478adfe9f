"""A new draft with the content of a campaign that exists."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import queries
from app.errors import AppError, Conflict, Invalid

CONTENT = (
    "name",
    "description",
    "sender_id",
    "sender_mode",
    "sender_visibility",
    "message_template",
    "channel_template",
    "create_channels",
    "show_channels",
    "skip_push",
    "skip_webhook",
    "max_messages_per_second",
)
# Where in the input of a duplication an error of the new campaign stands; any other is of the original.
_PLACES = {"campaign_id": ("new_campaign_id",), "name": ("name",)}


async def content(session: AsyncSession, campaign_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What `service.create` is to be given: all that the campaign says, whatever became of it, but for `name`
    and `new_campaign_id` where they are given.

    Raises NOT_FOUND, and CONFLICT if a segment was deleted since: another may live under its id by now.
    """
    campaign = await queries.existing(session, campaign_id)
    number = campaign.campaign_no
    segments = (await queries.segments_of(session, [number]))[number]
    for segment in segments:
        if segment.deleted_at is not None:
            sentence = f"Segment {segment.segment_id} of its audience was deleted: create a campaign anew."
            raise Conflict(sentence, path=["campaign_id"])
    copied = {name: getattr(campaign, name) for name in CONTENT}
    copied["segment_ids"] = [segment.segment_id for segment in segments]
    copied["user_ids"] = list((await session.execute(queries.targets(number))).scalars())
    if "name" in given:
        copied["name"] = given["name"]
    if given.get("new_campaign_id") is not None:
        copied["campaign_id"] = given["new_campaign_id"]
    return copied


@contextmanager
def of_the_original() -> Iterator[None]:
    """What is wrong with the copy stands under the original's id, but for what the input says itself."""
    try:
        yield
    except (AppError, Invalid) as failure:
        for error in failure.errors if isinstance(failure, Invalid) else (failure,):
            error.path = _PLACES.get(error.path[0] if error.path else "", ("campaign_id",))
        raise

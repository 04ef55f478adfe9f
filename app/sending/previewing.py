"""The message as receivers would get it: rendered by the very code that sends, and nothing written."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from app import validation
from app.campaigns import definition
from app.campaigns.models import Campaign
from app.errors import InvalidInput
from app.messages.rendering import MessageTemplate
from app.segments.kinds import SegmentType
from app.sending import audience, wording
from app.sending.blueprint import Blueprint
from app.sending.outcomes import settle_without_writing
from app.sending.reaching import SenderMissing
from app.sending.writers import writer_of
from app.sending.writing import BatchWriter, Entry
from app.validation import Problems

MAX_RECEIVERS = 20
MAX_CID = 320
# One message may take 45 ms to render, and the id of its channel as long: the API's event loop has its turn
# between the two, and after so much of them together.
SECONDS_AT_ONCE = 0.01


@dataclass(frozen=True, slots=True)
class Preview:
    """A message as one receiver would get it, or why not. A channel may have no receiver."""

    receiver_id: str | None
    cid: str | None
    text: str | None
    attachments: list[dict[str, Any]]
    custom: dict[str, Any]
    missing: tuple[str, ...]
    error: str | None


async def settle_in_turns(
    writer: BatchWriter, blueprint: Blueprint, entries: Sequence[Entry], *, collect_missing: bool = False
) -> None:
    """What `settle_without_writing` does, however long it takes, without keeping the event loop waiting."""
    done = 0
    while done < len(entries):
        done += await settle_without_writing(
            writer,
            blueprint,
            entries[done:],
            collect_missing=collect_missing,
            seconds=SECONDS_AT_ONCE,
        )


async def blueprint_of(campaign: Campaign) -> Blueprint:
    """The campaign made ready, without keeping the event loop waiting: compiling may take 300 ms."""
    return await asyncio.to_thread(Blueprint.of, campaign)


async def preview(
    session: AsyncSession, campaign: Campaign, receiver_ids: Sequence[str] | None, count: int
) -> list[Preview]:
    """The campaign's message for these receivers (for channels: in these), or for the first `count` targets.

    Raises INVALID_INPUT for what is no id or without a sender, LIMIT_EXCEEDED for over 20. `session` must be
    one snapshot.
    """
    target_ids = await _receivers(session, campaign, receiver_ids, count)
    blueprint = await blueprint_of(campaign)
    writer = await writer_of(session)
    entries = [Entry(target_id) for target_id in target_ids]
    try:
        await settle_in_turns(writer, blueprint, entries, collect_missing=True)
    except SenderMissing:
        raise InvalidInput(wording.sender_missing(campaign)) from None
    if not blueprint.for_channels:
        return [_shown(entry, campaign, entry.target_id) for entry in entries]
    found = await writer.receivers(target_ids, campaign.sender_id)
    shown = [_shown(entry, campaign, found.get(entry.target_id)) for entry in entries]
    # Also of a channel that does not exist: it is what was asked for.
    return [replace(each, cid=cid) for each, cid in zip(shown, target_ids, strict=True)]


async def _receivers(
    session: AsyncSession, campaign: Campaign, receiver_ids: Sequence[str] | None, count: int
) -> Sequence[str]:
    problems = Problems()
    if receiver_ids is None:
        with problems.at("count"):
            _few_enough(count)
        problems.check()
        return await audience.next_targets(session, campaign, limit=count)
    with problems.at("receiverIds"):
        _few_enough(len(receiver_ids))
        receiver_ids = validation.distinct(receiver_ids, checked_target_id)
    problems.check()
    return receiver_ids


def _few_enough(count: int) -> None:
    if count < 0:
        raise InvalidInput("has to be 0 or more")
    if count > MAX_RECEIVERS:
        validation.beyond(
            f"a preview has at most {MAX_RECEIVERS} receivers", limit=MAX_RECEIVERS, given=count
        )


def checked_target_id(target_id: str) -> str:
    """The id of a user or channel. Raises INVALID_INPUT for what can be none."""
    return validation.identifier(target_id, most=MAX_CID)


def _shown(entry: Entry, campaign: Campaign, receiver_id: str | None) -> Preview:
    if entry.reason is not None:
        error = wording.why(entry, campaign)
        return Preview(receiver_id, entry.cid, None, [], {}, entry.missing, error)
    attachments, custom = orjson.loads(entry.attachments), orjson.loads(entry.custom)
    return Preview(receiver_id, entry.cid, entry.text, attachments, custom, entry.missing, None)


async def preview_message(
    session: AsyncSession, sender_id: str, template: dict[str, Any], receiver_ids: Sequence[str]
) -> list[Preview]:
    """A message that no campaign has yet, for 1 to 20 users, in the channel that each has with the sender;
    a user without one gets it all the same, and `channel` is missing.

    Raises every problem of the input at once. `session` must be one snapshot.
    """
    blueprint, user_ids = await asyncio.to_thread(_checked, sender_id, template, receiver_ids)
    campaign = blueprint.campaign
    writer, entries = await writer_of(session), [Entry(user_id) for user_id in user_ids]
    try:
        await settle_in_turns(writer, blueprint, entries, collect_missing=True)
    except SenderMissing:
        raise InvalidInput(wording.sender_missing(campaign), path=["sender_id"]) from None
    return [_shown(entry, campaign, entry.target_id) for entry in entries]


def _checked(
    sender_id: str, template: dict[str, Any], receiver_ids: Sequence[str]
) -> tuple[Blueprint, list[str]]:
    problems, fields, user_ids = Problems(), dict[str, Any](), list[str]()
    with problems.at():
        fields = definition.checked({"sender_id": sender_id, "message_template": template})
    with problems.at("receiver_ids"):
        _few_enough(len(receiver_ids))
        validation.between(receiver_ids, most=MAX_RECEIVERS)
        user_ids = validation.distinct(receiver_ids, validation.identifier)
    problems.check()
    message = MessageTemplate.compile(fields["message_template"])
    campaign = _unsaved(fields["sender_id"], fields["message_template"])
    return Blueprint(campaign, message, None, only_looked_at=True), user_ids


def _unsaved(sender_id: str, template: dict[str, Any]) -> Campaign:
    never = datetime.fromtimestamp(0, UTC)
    return Campaign(
        campaign_no=0,
        campaign_id="",
        audience=SegmentType.USER,
        sender_id=sender_id,
        message_template=template,
        status_changed_at=never,
        created_at=never,
        updated_at=never,
    )

"""Test messages: a campaign's message sent for real to a few users, outside its stats."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from app import validation
from app.campaigns import queries
from app.campaigns.models import Campaign
from app.database import now
from app.errors import InvalidInput
from app.ledger.models import RecipientStatus
from app.messages.rendering import MessageTemplate
from app.segments.kinds import SegmentType
from app.sending import wording
from app.sending.batches import deliver
from app.sending.blueprint import Blueprint
from app.sending.previewing import settle_in_turns
from app.sending.reaching import SenderMissing
from app.sending.writers import as_of_now, writer_of
from app.sending.writing import Entry, Shared
from app.usage import service as usage
from app.validation import Problems

MAX_USERS = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """A test that is ready to be sent."""

    blueprint: Blueprint
    user_ids: Sequence[str]


async def prepare(session: AsyncSession, campaign_id: str, user_ids: Sequence[str]) -> Trial:
    """The campaign's message, made ready for 1 to 10 users. Compiling may take 300 ms: no lock is held yet.

    A campaign for channels is tested in the channel that each user has with the sender. Raises NOT_FOUND and
    every problem of the user ids at once.
    """
    problems, checked = Problems(), list[str]()
    with problems.at("user_ids"):
        validation.between(user_ids, most=MAX_USERS)
        checked = validation.distinct(user_ids, validation.identifier)
    with problems.at():
        campaign = await queries.existing(session, campaign_id)
    problems.check()
    return Trial(await asyncio.to_thread(_blueprint, _for_users(campaign)), checked)


def _blueprint(campaign: Campaign) -> Blueprint:
    template = MessageTemplate.compile(campaign.message_template, extra_custom={"test": True})
    return replace(Blueprint.of(campaign), message=template)


async def send(session: AsyncSession, trial: Trial, *, capacity: int | None) -> list[Entry]:
    """Sends it now, whatever the campaign's status; returns what became of each user, with a sentence in
    `detail` for who got nothing. What is sent counts in the month's usage.

    Raises QUOTA_EXCEEDED, or INVALID_INPUT without a sender, and then nothing is sent. Locks channels, then
    usage.
    """
    entries = [Entry(user_id) for user_id in trial.user_ids]
    await _deliver(session, trial.blueprint, entries)
    sent = sum(entry.status == RecipientStatus.SENT for entry in entries)
    if sent:
        period = usage.period_of(await now(session))
        await usage.reserve(session, period, sent, capacity, usage.TEST)
    for entry in entries:
        if entry.reason is not None:
            entry.detail = wording.why(entry, trial.blueprint.campaign)
    return entries


def _for_users(campaign: Campaign) -> Campaign:
    """The campaign as it is tested. One for channels has no channels to create; its testers have theirs."""
    if campaign.audience == SegmentType.USER:
        return campaign
    fields = {"audience": SegmentType.USER, "channel_template": None, "create_channels": False}
    return Campaign(**{**campaign.model_dump(), **fields})


async def _deliver(session: AsyncSession, blueprint: Blueprint, entries: Sequence[Entry]) -> None:
    campaign, writer = blueprint.campaign, await writer_of(session)
    blueprint = await as_of_now(writer, blueprint)
    try:
        await settle_in_turns(writer, blueprint, entries)
    except SenderMissing:
        raise InvalidInput(wording.sender_missing(campaign), path=["campaign_id"]) from None
    shared = Shared(
        None,
        0,
        campaign.sender_id,
        blueprint.message.poll_id,
        await now(session),
        blueprint.created_channels if blueprint.creates else None,
    )
    await deliver(session, writer, blueprint, entries, shared)

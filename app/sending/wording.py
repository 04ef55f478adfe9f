"""Outcomes in words, for people: what a preview shows and a support agent reads out. Pure."""

from datetime import UTC, datetime

from app.campaigns.models import Campaign
from app.ledger.models import OutcomeReason, RecipientStatus
from app.ledger.recipients import LedgerRow
from app.sending.writing import Entry

_SAID = {
    OutcomeReason.SENDER: "{target} is the sender",
    OutcomeReason.UNKNOWN_USER: "there {is_} no user {target}",
    OutcomeReason.UNKNOWN_CHANNEL: "there {is_} no channel {target}",
    OutcomeReason.USER_DEACTIVATED: "the user {target} {is_} deactivated or deleted",
    OutcomeReason.CHANNEL_FROZEN: "the channel {cid} {is_} frozen",
    OutcomeReason.NO_CHANNEL: "there {is_} no {channel}, and {none_created}",
    OutcomeReason.NO_RECEIVER: "the message names the receiver, and the channel {target} {has} none: only a "
    "channel of the sender and one other member has a receiver",
}


def why(outcome: Entry | LedgerRow, campaign: Campaign) -> str:
    """Why a target is not sent, such as `SKIPPED CHANNEL_FROZEN: the channel messaging:x is frozen`. What
    the ledger has is told as it was then."""
    assert outcome.reason is not None
    reason, past = OutcomeReason(outcome.reason), isinstance(outcome, LedgerRow)
    sentence = _SAID.get(reason)
    if sentence is None:
        said = outcome.detail or "no more is known"
    else:
        said = sentence.format(
            target=outcome.target_id,
            cid=outcome.cid,
            is_="was" if past else "is",
            has="had" if past else "has",
            channel=_channel(outcome, campaign),
            none_created=_none_created(campaign),
        )
    return f"{RecipientStatus(outcome.status).name} {reason.name}: {said}"


def _channel(outcome: Entry | LedgerRow, campaign: Campaign) -> str:
    if outcome.cid is not None:
        return f"channel {outcome.cid}"
    if campaign.channel_template is None:
        return f"channel of {campaign.sender_id} and {outcome.target_id} alone"
    return "channel of such an id as the channelTemplate gives"


def _none_created(campaign: Campaign) -> str:
    if not campaign.create_channels:
        return "createChannels is false"
    return "without a channelTemplate none is created"


def sender_missing(campaign: Campaign) -> str:
    """That there is nobody to send for."""
    return f"The sender {campaign.sender_id} does not exist or is deactivated."


def instant(at: datetime) -> str:
    """A time that can be read out."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)

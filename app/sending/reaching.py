"""Who can be reached, and which channels are written into: the rules for one target as for all at once."""

from collections.abc import Mapping, Sequence

from app.ledger.models import OutcomeReason
from app.messages.rendering import Fields, user_fields
from app.sending.blueprint import Blueprint
from app.sending.writing import BatchWriter, ChannelState, Entry, Person, Standing

People = Mapping[str, Person]


class SenderMissing(Exception):
    """The sender was deleted or deactivated while the campaign runs."""


async def people_of(writer: BatchWriter, blueprint: Blueprint, user_ids: Sequence[str]) -> People:
    """These users and the sender, as far as the templates ask."""
    return await writer.people([*user_ids, blueprint.campaign.sender_id], details=blueprint.needs_details)


def reaches(entry: Entry, person: Person | None, sender_id: str) -> bool:
    """Whether this user can get a message at all; if not, the entry is settled."""
    if entry.target_id == sender_id:
        entry.skip(OutcomeReason.SENDER)
    elif person is None:
        entry.skip(OutcomeReason.UNKNOWN_USER)
    elif not person.reachable:
        entry.skip(OutcomeReason.USER_DEACTIVATED)
    return entry.reason is None


def sender_fields(people: Mapping[str, Person], sender_id: str) -> Fields:
    """The sender as templates see him. Raises `SenderMissing`."""
    sender = people.get(sender_id)
    if sender is None or not sender.reachable:
        raise SenderMissing
    return user_fields(*sender[:6])


def why_left_out(channel: ChannelState | Standing | None, blueprint: Blueprint) -> OutcomeReason | None:
    """Why nothing is sent into this channel, or where there is none; None if something is."""
    if channel is not None:
        return OutcomeReason.CHANNEL_FROZEN if channel.frozen else None
    return None if blueprint.creates or blueprint.only_looked_at else OutcomeReason.NO_CHANNEL

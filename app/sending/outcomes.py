"""Deciding the outcome of each target: who gets the message, in which channel, and what it says.

Reads only. The preview of a campaign runs this very code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from app.channels.distinct import channel_id_problem, members_key
from app.ids import new_uuid
from app.ledger.models import OutcomeReason, RecipientStatus
from app.messages.rendering import (
    ChannelIdTemplate,
    Fields,
    RenderError,
    Variables,
    channel_fields,
    user_fields,
)
from app.sending.blueprint import Blueprint
from app.sending.writing import BatchWriter, ChannelState, Entry

log = structlog.get_logger(__name__)


class SenderMissing(Exception):
    """The sender was deleted or deactivated while the campaign runs."""


@dataclass(slots=True)
class Going:
    """An entry that is still to be sent, with its receiver and channel as the templates see them."""

    entry: Entry
    variables: Variables


async def settle_without_writing(writer: BatchWriter, blueprint: Blueprint, entries: Sequence[Entry]) -> None:
    """Settles every entry that is not sent; the others stay PENDING with their channel and message.

    Raises `SenderMissing`.
    """
    sender_id = blueprint.campaign.sender_id
    people = await writer.people([*(entry.target_id for entry in entries), sender_id])
    sender = people.get(sender_id)
    if sender is None or not sender.reachable:
        raise SenderMissing
    sender_fields = user_fields(*sender[:6])
    going: list[Going] = []
    for entry in entries:
        person = people.get(entry.target_id)
        if entry.target_id == sender_id:
            entry.skip(OutcomeReason.SENDER)
        elif person is None:
            entry.skip(OutcomeReason.UNKNOWN_USER)
        elif not person.reachable:
            entry.skip(OutcomeReason.USER_DEACTIVATED)
        else:
            going.append(Going(entry, Variables(sender_fields, user_fields(*person[:6]), None)))
    states = await _find_channels(writer, blueprint, going)
    for target in going:
        if target.entry.status == RecipientStatus.PENDING:
            _settle_in_channel(target, blueprint, states)


async def _find_channels(
    writer: BatchWriter, blueprint: Blueprint, going: Sequence[Going]
) -> dict[str, ChannelState]:
    """Gives every entry its cid and returns, by cid, the channels that exist."""
    if blueprint.channel_type is None:
        return await _find_pairs(writer, blueprint, going)
    for target in going:
        if blueprint.channel_id is None:
            receiver_id = target.entry.target_id
            target.entry.cid = blueprint.cid(blueprint.distinct_channel_id(receiver_id))
        else:
            _name_channel(target, blueprint, blueprint.channel_id)
    return await writer.channels([target.entry.cid for target in going if target.entry.cid is not None])


async def _find_pairs(
    writer: BatchWriter, blueprint: Blueprint, going: Sequence[Going]
) -> dict[str, ChannelState]:
    sender_id = blueprint.campaign.sender_id
    keys = {members_key((sender_id, target.entry.target_id)): target.entry for target in going}
    pairs = await writer.pair_channels(list(keys))
    for key, state in pairs.items():
        keys[key].cid = state.cid
    return {state.cid: state for state in pairs.values()}


def _name_channel(target: Going, blueprint: Blueprint, template: ChannelIdTemplate) -> None:
    entry = target.entry
    try:
        channel_id = template.render(target.variables)
    except RenderError as error:
        entry.fail(OutcomeReason.RENDER_ERROR, str(error))
        return
    except Exception:
        _fail_alone(entry, blueprint)
        return
    problem = channel_id_problem(channel_id)
    if problem is not None:
        entry.fail(OutcomeReason.CHANNEL_ID_INVALID, problem)
    else:
        entry.cid = blueprint.cid(channel_id)


def _settle_in_channel(target: Going, blueprint: Blueprint, states: dict[str, ChannelState]) -> None:
    entry = target.entry
    state = None if entry.cid is None else states.get(entry.cid)
    if state is not None and state.frozen:
        entry.skip(OutcomeReason.CHANNEL_FROZEN)
    elif state is None and not blueprint.creates:
        entry.skip(OutcomeReason.NO_CHANNEL)
    else:
        _render(target, blueprint, state)


def _render(target: Going, blueprint: Blueprint, state: ChannelState | None) -> None:
    entry = target.entry
    assert entry.cid is not None
    try:
        if blueprint.names_channel:
            target.variables.channel = _channel_fields(state or blueprint.channel_to_create(entry.cid))
        message = blueprint.message.render(target.variables)
    except RenderError as error:
        entry.fail(OutcomeReason.RENDER_ERROR, str(error))
    except Exception:
        _fail_alone(entry, blueprint)
    else:
        entry.text, entry.attachments, entry.custom = message.text, message.attachments, message.custom


def _channel_fields(state: ChannelState) -> Fields:
    return channel_fields(state.cid, state.type, state.channel_id, state.name, state.team, state.custom)


def _fail_alone(entry: Entry, blueprint: Blueprint) -> None:
    """One recipient that raises never stops the others; the log line and the ledger share an incident id."""
    incident = new_uuid()
    log.exception(
        "recipient failed",
        incident=incident,
        campaign=blueprint.campaign.campaign_id,
        target=entry.target_id,
    )
    entry.fail(OutcomeReason.INTERNAL_ERROR, f"incident {incident}")

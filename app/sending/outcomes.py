"""Deciding the outcome of each target: who gets the message, in which channel, and what it says.

Reads only. The preview of a campaign runs this very code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import structlog

from app.channels.distinct import channel_id_problem, members_key
from app.ids import new_uuid
from app.ledger.models import OutcomeReason, RecipientStatus
from app.messages.rendering import (
    Fields,
    RenderError,
    Variables,
    channel_fields,
    user_fields,
)
from app.sending.blueprint import Blueprint
from app.sending.writing import BatchWriter, ChannelState, Entry

log = structlog.get_logger(__name__)

SECONDS_TO_RENDER = 0.5  # ten times what a thousand usual messages take; hostile templates can be slower


class SenderMissing(Exception):
    """The sender was deleted or deactivated while the campaign runs."""


@dataclass(slots=True)
class Going:
    """An entry that is still to be sent, with its receiver and channel as the templates see them."""

    position: int
    entry: Entry
    variables: Variables


async def settle_without_writing(
    writer: BatchWriter, blueprint: Blueprint, entries: Sequence[Entry], *, collect_missing: bool = False
) -> int:
    """Settles every entry that is not sent; the others stay PENDING with their channel and message.

    With `collect_missing` each entry names the variables that rendered empty. Returns how many entries, from
    the first on, it came to within `SECONDS_TO_RENDER`: the others are untouched, and left for the next slice.
    Raises `SenderMissing`.
    """
    sender_id = blueprint.campaign.sender_id
    people = await writer.people([*(entry.target_id for entry in entries), sender_id])
    sender = people.get(sender_id)
    if sender is None or not sender.reachable:
        raise SenderMissing
    sender_fields = user_fields(*sender[:6])
    going: list[Going] = []
    for position, entry in enumerate(entries):
        person = people.get(entry.target_id)
        if entry.target_id == sender_id:
            entry.skip(OutcomeReason.SENDER)
        elif person is None:
            entry.skip(OutcomeReason.UNKNOWN_USER)
        elif not person.reachable:
            entry.skip(OutcomeReason.USER_DEACTIVATED)
        else:
            variables = Variables(sender_fields, user_fields(*person[:6]), None)
            going.append(Going(position, entry, variables))
    until = monotonic() + SECONDS_TO_RENDER
    if blueprint.channel_type is None:
        states = await _find_pairs(writer, blueprint, going)
    else:
        going, end = _in_time(going, len(entries), until, lambda target: _name_channel(target, blueprint))
        entries = entries[:end]
        states = await writer.channels([target.entry.cid for target in going if target.entry.cid is not None])
    waiting = [target for target in going if target.entry.status == RecipientStatus.PENDING]
    _, end = _in_time(
        waiting, len(entries), until, lambda target: _settle_in_channel(target, blueprint, states)
    )
    return end


def _in_time(
    going: list[Going], end: int, until: float, step: Callable[[Going], None]
) -> tuple[list[Going], int]:
    """Takes the step with each until time is up, with one at least. Returns those it was taken with, and how
    many entries that covers."""
    for number, target in enumerate(going):
        if number and monotonic() > until:
            return going[:number], target.position
        step(target)
    return going, end


async def _find_pairs(
    writer: BatchWriter, blueprint: Blueprint, going: Sequence[Going]
) -> dict[str, ChannelState]:
    sender_id = blueprint.campaign.sender_id
    keys = {members_key((sender_id, target.entry.target_id)): target.entry for target in going}
    pairs = await writer.pair_channels(list(keys))
    for key, state in pairs.items():
        keys[key].cid = state.cid
    return {state.cid: state for state in pairs.values()}


def _name_channel(target: Going, blueprint: Blueprint) -> None:
    entry, template = target.entry, blueprint.channel_id
    if template is None:
        entry.cid = blueprint.cid(blueprint.distinct_channel_id(entry.target_id))
        return
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

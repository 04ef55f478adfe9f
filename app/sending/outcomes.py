"""Deciding the outcome of each target: who gets the message, in which channel, and what it says.

Reads only. The preview of a campaign runs this very code.
"""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import structlog

from app.channels.distinct import any_channel_id_problem, channel_id_problem, members_key, pair_keys
from app.ids import new_uuid
from app.ledger.models import OutcomeReason, RecipientStatus
from app.messages.rendering import (
    Fields,
    RenderError,
    Variables,
    channel_fields,
    user_fields,
)
from app.messages.templating.plain import PLAIN_FIELDS
from app.sending.blueprint import Blueprint
from app.sending.reaching import People, people_of, reaches, sender_fields, why_left_out
from app.sending.writing import BatchWriter, ChannelState, Entries, Entry, Person, Sending, Standing

log = structlog.get_logger(__name__)

MEMBERS_AT_ONCE = 20_000  # of existing channels that one transaction may write into
SECONDS_TO_RENDER = 0.5  # ten times what a thousand usual messages take; hostile templates can be slower

States = Mapping[str, ChannelState]
WriteAtOnce = Callable[[Sequence[Sequence[Any]], Sequence[Any]], list[str] | None]


class Going:
    """An entry that is still to be sent, with the people that its templates see."""

    __slots__ = ("_variables", "entry", "position", "receiver", "sender")

    def __init__(self, position: int, entry: Entry, sender: Fields, receiver: Person | None) -> None:
        self.position = position
        self.entry = entry
        self.sender = sender
        self.receiver = receiver
        self._variables: Variables | None = None

    @property
    def variables(self) -> Variables:
        """The people as Jinja sees them; the channel comes later."""
        if self._variables is None:
            receiver = None if self.receiver is None else user_fields(*self.receiver[:6])
            self._variables = Variables(self.sender, receiver, None)
        return self._variables


async def settle_without_writing(
    writer: BatchWriter,
    blueprint: Blueprint,
    entries: Sequence[Entry],
    *,
    collect_missing: bool = False,
    seconds: float | None = None,
) -> int:
    """Settles every entry that is not sent; the others stay PENDING with their channel and message.

    With `collect_missing` each entry names the variables that rendered empty. Returns how many entries, from
    the first on, it came to within `seconds` (`SECONDS_TO_RENDER` unless told), at least one: the others are
    untouched, for the next slice. Raises `SenderMissing`.
    """
    until = monotonic() + (SECONDS_TO_RENDER if seconds is None else seconds)
    people: People | None = None
    if blueprint.may_be_alike and isinstance(entries, Entries) and not entries.apart:
        people = await _settle_alike(writer, blueprint, entries, until)
        if entries.alike is not None:
            return len(entries)
    if blueprint.for_channels:
        found = await _find_channels(writer, blueprint, entries)
    else:
        found = await _find_receivers(writer, blueprint, entries, until, people)
    if isinstance(entries, Entries):
        entries.none_exist = not (found[1] or entries.apart)
    going, states, end = _affordable(*found)
    if not collect_missing and monotonic() < until and _settle_at_once(going, blueprint, states):
        return end

    def settle(target: Going) -> None:
        _settle_in_channel(target, blueprint, states, collect_missing)

    return _in_time(going, end, until, settle)[1]


def _affordable(going: list[Going], states: States, end: int) -> tuple[list[Going], States, int]:
    """Those, one at least, whose channels have together few enough members: who joins a channel renews the
    key of all of them, and showChannels looks at each."""
    members = 0
    if not states:
        return going, states, end
    for number, target in enumerate(going):
        state = states.get(target.entry.cid or "")
        members += 0 if state is None else state.member_count
        if number and members > MEMBERS_AT_ONCE:
            return going[:number], states, target.position
    return going, states, end


async def _settle_alike(
    writer: BatchWriter, blueprint: Blueprint, entries: Entries, until: float
) -> People | None:
    """Settles entries that are all alike: plain texts, each into a channel of its own. Those who get nothing
    are settled one by one; with any other entry, or channels of too many members, nothing is decided, and
    what was read is given back."""
    same = blueprint.message.same_for_all
    people = await people_of(writer, blueprint, entries.target_ids)
    sender = sender_fields(people, blueprint.campaign.sender_id)
    if monotonic() > until or same is None:
        return people
    reached, unreached = _reached(entries.target_ids, people, blueprint.campaign.sender_id)
    found = await _look_at_once(writer, blueprint, reached, sender)
    if found is None or sum(channel.member_count for channel in found[1].values()) > MEMBERS_AT_ONCE:
        return people
    going, cids, left_out = _let_in(reached, *found, blueprint)
    texts = _unless_it_raises(blueprint.message.plain_texts, going, sender)
    if texts is None or len(set(cids)) != len(cids):
        return people
    sending = Sending.alike([person.id for person in going], cids, texts, found[1])
    entries.settle_alike(sending, [*unreached, *left_out], same)
    return people


def _reached(
    target_ids: Sequence[str], people: People, sender_id: str
) -> tuple[list[Person], Sequence[Entry]]:
    """Who of these can get a message at all, and the others, settled."""
    receivers = [people.get(target_id) for target_id in target_ids]
    reached = [person for person in receivers if person is not None and person[6] and person[0] != sender_id]
    if len(reached) == len(receivers):
        return reached, ()
    entries = map(Entry, target_ids)
    return reached, [entry for entry in entries if not reaches(entry, people.get(entry.target_id), sender_id)]


async def _look_at_once(
    writer: BatchWriter, blueprint: Blueprint, reached: Sequence[Person], sender: Fields
) -> tuple[Sequence[str | None], Mapping[str, Standing]] | None:
    """The channel of each of these, None if there is none nor a name for it; and those that stand. None where
    that has to be worked out one by one."""
    if blueprint.channel_type is not None:
        cids = _cids_at_once(reached, sender, blueprint)
        return None if cids is None else (cids, await writer.standing(cids))
    keys = pair_keys(blueprint.campaign.sender_id, [person.id for person in reached])
    pairs = await writer.standing_pairs(keys)
    found = map(pairs.get, keys)
    return [pair and pair.cid for pair in found], {pair.cid: pair for pair in pairs.values()}


def _let_in(
    reached: Sequence[Person],
    cids: Sequence[str | None],
    standing: Mapping[str, Standing],
    blueprint: Blueprint,
) -> tuple[Sequence[Person], list[str], Sequence[Entry]]:
    """Those who get the message in their channel, these channels, and the others, settled."""
    going: list[Person] = []
    taken: list[str] = []
    left_out: list[Entry] = []
    for person, cid in zip(reached, cids, strict=True):
        reason = why_left_out(standing.get(cid or ""), blueprint)
        if reason is None:
            going.append(person)
            taken.append(cid or "")
        else:
            left_out.append(Entry(person.id))
            left_out[-1].cid = cid
            left_out[-1].skip(reason)
    return going, taken, left_out


async def _find_receivers(
    writer: BatchWriter,
    blueprint: Blueprint,
    entries: Sequence[Entry],
    until: float,
    people: People | None,
) -> tuple[list[Going], States, int]:
    """The users among the entries that can get the message, the channels of theirs that exist, and how many
    entries that covers."""
    sender_id = blueprint.campaign.sender_id
    if people is None:
        people = await people_of(writer, blueprint, [entry.target_id for entry in entries])
    sender = sender_fields(people, sender_id)
    going: list[Going] = []
    for position, entry in enumerate(entries):
        person = people.get(entry.target_id)
        if reaches(entry, person, sender_id):
            going.append(Going(position, entry, sender, person))
    if blueprint.channel_type is None:
        return going, await _find_pairs(writer, blueprint, going), len(entries)
    end = len(entries)
    if monotonic() > until or not _name_at_once(going, blueprint):
        going, end = _in_time(going, end, until, lambda target: _name_channel(target, blueprint))
    states = await writer.channels([target.entry.cid for target in going if target.entry.cid is not None])
    return [target for target in going if target.entry.status == RecipientStatus.PENDING], states, end


async def _find_channels(
    writer: BatchWriter, blueprint: Blueprint, entries: Sequence[Entry]
) -> tuple[list[Going], States, int]:
    """The same where channels are the targets; each may have a receiver."""
    sender_id, cids = blueprint.campaign.sender_id, [entry.target_id for entry in entries]
    states = await writer.channels(cids)
    receivers = await writer.receivers(cids, sender_id) if blueprint.names_receiver else {}
    people = await writer.people([*receivers.values(), sender_id])
    sender = sender_fields(people, sender_id)
    going: list[Going] = []
    for position, entry in enumerate(entries):
        state = states.get(entry.target_id)
        if state is None:
            entry.skip(OutcomeReason.UNKNOWN_CHANNEL)
            continue
        entry.cid = state.cid
        receiver = people.get(receivers.get(state.cid, ""))
        if blueprint.names_receiver:
            entry.members_key = state.members_key
        if receiver is None and blueprint.message.needs_receiver and not state.frozen:
            entry.skip(OutcomeReason.NO_RECEIVER)
        else:
            going.append(Going(position, entry, sender, receiver))
    return going, states, len(entries)


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


async def _find_pairs(writer: BatchWriter, blueprint: Blueprint, going: Sequence[Going]) -> States:
    sender_id = blueprint.campaign.sender_id
    keys = {members_key((sender_id, target.entry.target_id)): target.entry for target in going}
    pairs = await writer.pair_channels(list(keys))
    for key, state in pairs.items():
        keys[key].cid = state.cid
    return {state.cid: state for state in pairs.values()}


def _name_at_once(going: Sequence[Going], blueprint: Blueprint) -> bool:
    """Names the channels of all of these; False, and nothing done, where that has to be done one by one."""
    if not going:
        return False
    cids = _cids_at_once([target.receiver or () for target in going], going[0].sender, blueprint)
    if cids is None:
        return False
    for target, cid in zip(going, cids, strict=True):
        target.entry.cid = cid
    return True


def _cids_at_once(
    receivers: Sequence[Sequence[Any]], sender: Fields, blueprint: Blueprint
) -> list[str] | None:
    """The channels of all these receivers; None where they have to be worked out one by one."""
    if blueprint.channel_id is None:
        return [blueprint.cid(blueprint.distinct_channel_id(receiver[0])) for receiver in receivers]
    ids = _unless_it_raises(blueprint.channel_id.plain_ids, receivers, sender)
    if ids is None or any_channel_id_problem(ids):
        return None
    beginning = blueprint.cid("")
    return [beginning + channel_id for channel_id in ids]


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
    if problem is None:
        entry.cid = blueprint.cid(channel_id)
    elif blueprint.creates:
        entry.fail(OutcomeReason.CHANNEL_ID_INVALID, problem)
    else:
        entry.skip(OutcomeReason.NO_CHANNEL)  # no channel has such an id


def _settle_at_once(going: Sequence[Going], blueprint: Blueprint, states: States) -> bool:
    """Settles all of these; False, and nothing decided that `_settle_in_channel` would decide otherwise,
    where their messages have to be made one by one."""
    same = blueprint.message.same_for_all
    if same is None or blueprint.for_channels or not going:
        return False
    sending = going
    if states or not blueprint.creates:
        sending = [target for target in going if not _is_left_out(target.entry, blueprint, states)]
    receivers = [target.receiver or () for target in sending]
    texts = _unless_it_raises(blueprint.message.plain_texts, receivers, going[0].sender)
    if texts is None:
        return False
    for target, text in zip(sending, texts, strict=True):
        entry = target.entry
        entry.text = text
        entry.attachments, entry.custom = same
    return True


def _unless_it_raises(
    write: WriteAtOnce, receivers: Sequence[Sequence[Any]], sender: Fields
) -> list[str] | None:
    """What is written for all of these. An error is somebody's own: one by one it will be found whose."""
    try:
        return write(receivers, [sender.get(name) for name in PLAIN_FIELDS])
    except Exception:
        return None


def _settle_in_channel(target: Going, blueprint: Blueprint, states: States, collect_missing: bool) -> None:
    entry = target.entry
    if not _is_left_out(entry, blueprint, states):
        state = None if entry.cid is None else states.get(entry.cid)
        _render(target, blueprint, state, collect_missing)


def _is_left_out(entry: Entry, blueprint: Blueprint, states: States) -> bool:
    """Skips an entry whose channel is frozen, or absent and not to be created."""
    reason = why_left_out(None if entry.cid is None else states.get(entry.cid), blueprint)
    if reason is not None:
        entry.skip(reason)
    return reason is not None


def _render(target: Going, blueprint: Blueprint, state: ChannelState | None, collect_missing: bool) -> None:
    entry = target.entry
    try:
        if blueprint.names_channel and entry.cid is not None:
            target.variables.channel = _channel_fields(state or blueprint.channel_to_create(entry.cid))
        message = blueprint.message.render(target.variables, collect_missing=collect_missing)
    except RenderError as error:
        entry.fail(OutcomeReason.RENDER_ERROR, str(error))
    except Exception:
        _fail_alone(entry, blueprint)
    else:
        entry.text, entry.attachments, entry.custom = message.text, message.attachments, message.custom
        entry.missing = message.missing


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

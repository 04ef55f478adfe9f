"""Sending a batch, or a slice of one: messages, ledger rows, channels and counts in one transaction.

The order decides what a target gets: outcomes that need no channel, then the channel, then the
text, and only then rows are locked and written. So a recipient that fails leaves nothing behind, and
locks are held for the shortest time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.channels import service as channels
from app.database import ask, changed, dialect_of
from app.events import service as events
from app.ids import message_ids
from app.ledger.models import Batch, OutcomeReason, RecipientStatus
from app.sending.ahead import Ahead, Picked, Ready, make_ready
from app.sending.blueprint import Blueprint, Blueprints
from app.sending.closing import Made, close_batch
from app.sending.opening import held_targets, open_batch
from app.sending.running import ensure_running
from app.sending.writers import writer_of
from app.sending.writing import (
    NEW,
    BatchWriter,
    Entries,
    Entry,
    Sending,
    Shared,
    TakenChannel,
    count_sent,
    first_to_send_to,
    unsent,
)

_UNSYNCHRONISED = {"synchronize_session": False}
_OTHER = aliased(Batch)
_MORE = (
    select(col(_OTHER.batch_no))
    .where(
        col(_OTHER.campaign_no) == bindparam("this_campaign"),
        col(_OTHER.pending) > 0,
        col(_OTHER.batch_no) > col(Batch.batch_no),
    )
    .correlate(Batch)
    .exists()
)
# Built once: building the statements of every batch anew took a twentieth of the sender's time.
_PICK = (
    update(Batch)
    .where(
        col(Batch.campaign_no) == bindparam("this_campaign"),
        col(Batch.batch_no)
        == select(col(Batch.batch_no))
        .where(
            col(Batch.campaign_no) == bindparam("this_campaign"),
            col(Batch.pending) > 0,
            col(Batch.batch_no) != bindparam("but_not"),
        )
        .order_by(col(Batch.attempts), col(Batch.batch_no))
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery(),
    )
    .values(attempts=col(Batch.attempts) + 1)
    .returning(col(Batch.batch_no), col(Batch.attempts), col(Batch.pending), ~_MORE)
    .execution_options(**_UNSYNCHRONISED)
)


_PATIENT = select(func.set_config("lock_timeout", "6s", True))  # longer than anybody may hold a batch

ONLY_LEFT_OUT = 0  # as the limit of a slice: none of its messages


class SomebodyToSendTo(Exception):
    """The first target of the batch gets a message, for which there was no leave."""


class MembersChanged(Exception):
    """Somebody joined or left a channel after its receiver was read: the batch is to be tried anew."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction settled."""

    settled: int
    sent: int


async def send_slice(
    session: AsyncSession,
    campaign_no: int,
    batch_no: int,
    limit: int | None,
    blueprints: Blueprints,
    ahead: Ahead | None = None,
    apart: bool = False,
) -> Slice:
    """Settles up to `limit` targets of an open batch, all of them if None; with `ONLY_LEFT_OUT` those before
    the first one that gets a message. The caller commits. Looking `ahead`, it picks the next batch as well,
    and begins to make it ready. `apart` is for a batch that raised `ChannelsTaken`: whatever happens to a
    channel then settles its entry, not the batch.

    Raises `BatchTaken`, `CampaignNotRunning`, `SenderMissing`, `MembersChanged`, `ChannelsTaken`,
    `SomebodyToSendTo`; and `Disagreement` rather than commit ledger rows, messages and counts that differ.
    Whatever it raises, nothing may be committed.
    """
    opened = await open_batch(session, campaign_no, batch_no)
    blueprint = await _blueprint(session, campaign_no, blueprints, opened.edited_at)
    writer = await writer_of(session)
    ready = None if ahead is None else ahead.ready
    if ready is None or not await ready.holds(session, blueprint, opened.pending):
        ready = await _make_ready(session, writer, blueprint, (campaign_no, batch_no), limit, apart)
    if limit == ONLY_LEFT_OUT and (first := first_to_send_to(ready.entries)) is not None:
        if first == 0:
            raise SomebodyToSendTo
        ready = await _make_ready(session, writer, blueprint, (campaign_no, batch_no), first, apart)
    if ahead is not None:
        await _look_ahead(session, ahead, blueprint, campaign_no, batch_no)
    shared = Shared(
        campaign_no,
        batch_no,
        blueprint.campaign.sender_id,
        blueprint.message.poll_id,
        opened.at,
        ready.blueprint.created_channels if blueprint.creates else None,
        blueprint.message.same_for_all,
    )
    entries: Sequence[Entry] = ready.entries
    if ready.covered != len(entries):
        entries = entries[: ready.covered]
    made = await deliver(session, writer, ready.blueprint, entries, shared)
    await close_batch(session, shared, entries, ready.target_ids[len(entries) :], made)
    await ensure_running(session, campaign_no, {Status.IN_PROGRESS})
    return Slice(len(entries), count_sent(entries))


async def _make_ready(
    session: AsyncSession,
    writer: BatchWriter,
    blueprint: Blueprint,
    batch: tuple[int, int],
    limit: int | None,
    apart: bool,
) -> Ready:
    """What `Ahead` makes, in the transaction itself."""
    target_ids = await held_targets(session, *batch)
    return await make_ready(writer, blueprint, batch[1], target_ids, limit=limit, apart=apart)


async def _look_ahead(
    session: AsyncSession, ahead: Ahead, blueprint: Blueprint, campaign_no: int, batch_no: int
) -> None:
    """Picks the next batch in this transaction: so the try is counted when it begins, and costs none of its
    own. One that failed before is not made ready: it may be what kills its worker."""
    ahead.picked = await pick(session, campaign_no, but_not=batch_no)
    if ahead.picked is not None and ahead.picked.attempts == 1:
        next_no = ahead.picked.batch_no
        await ahead.begin(session, blueprint, next_no, await held_targets(session, campaign_no, next_no))


async def _blueprint(
    session: AsyncSession, campaign_no: int, blueprints: Blueprints, edited_at: datetime
) -> Blueprint:
    blueprint = blueprints.kept(campaign_no, edited_at)
    if blueprint is None:
        blueprint = blueprints.of(await session.get_one(Campaign, campaign_no))
    return blueprint


async def _take_channels(
    writer: BatchWriter, entries: Sequence[Entry], shared: Shared, for_channels: bool
) -> int:
    """Locks or creates the channels of all entries still to be sent and numbers their messages; returns
    how many were created. What changed since the channel was read (frozen, deleted) settles the entry."""
    if isinstance(entries, Entries) and (alike := entries.alike) is not None:
        return alike.into_created  # `write` takes them
    going = [entry for entry in entries if entry.status == RecipientStatus.PENDING and entry.cid is not None]
    targets: dict[str, list[str]] = {}
    for entry in going:
        targets.setdefault(entry.cid or "", []).append(entry.target_id)
    if not targets:
        return 0
    alone = len(targets) == len(going)
    if alone and isinstance(entries, Entries) and entries.none_exist and shared.created is not None:
        entries.takes = True
        _number(going, dict.fromkeys(targets, NEW), for_channels, alone=True)
        return len(targets)
    take = writer.take_existing if shared.created is None else writer.take_or_create
    taken: dict[str, TakenChannel] = await take(dict(sorted(targets.items())), shared)
    _number(going, taken, for_channels, alone=alone)
    return sum(channel.created for channel in taken.values())


def _number(
    going: Sequence[Entry], taken: Mapping[str, TakenChannel], for_channels: bool, *, alone: bool
) -> None:
    """Gives each message its number in the channel; `alone` says that no two go into the same one."""
    before: Counter[str] = Counter()
    for entry in going:
        cid = entry.cid or ""
        channel = taken.get(cid)
        if channel is NEW and alone:
            entry.created, entry.seq = True, 1
        elif channel is None:
            entry.skip(OutcomeReason.UNKNOWN_CHANNEL if for_channels else OutcomeReason.NO_CHANNEL)
        elif channel.frozen:
            entry.skip(OutcomeReason.CHANNEL_FROZEN)
        elif entry.members_key is not None and entry.members_key != channel.members_key:
            raise MembersChanged
        else:
            entry.created = channel.created
            entry.seq = channel.first_seq + before[cid]
            before[cid] += 1


async def _write(
    session: AsyncSession,
    writer: BatchWriter,
    blueprint: Blueprint,
    entries: Sequence[Entry],
    shared: Shared,
) -> int:
    """Writes the batch's rows and whoever joins; returns how many users it reaches."""
    sending = _sending(entries, shared)
    await writer.write(sending, unsent(entries), shared)
    if sending.into_created == len(sending.cids):
        return len(sending.cids)
    for_channels = blueprint.for_channels
    users = await writer.count_members(shared.sender_id) if for_channels else len(sending.cids)
    joined = Counter({} if for_channels else await writer.add_receivers(shared))
    if blueprint.campaign.sender_mode == "INCLUDE":
        joined.update(await writer.add_to_all(shared.sender_id, shared))
    await channels.count_joined(session, joined)
    if blueprint.campaign.show_channels:
        await (writer.show_to_members(shared.sender_id) if for_channels else writer.show_to_receivers())
    return users


def _sending(entries: Sequence[Entry], shared: Shared) -> Sending:
    """The messages of all that are still to be sent, which are SENT with that."""
    if isinstance(entries, Entries) and entries.alike is not None:
        return entries.alike
    sending = [entry for entry in entries if entry.status == RecipientStatus.PENDING]
    for entry, message_id in zip(sending, message_ids(len(sending)), strict=True):
        entry.status, entry.message_id = RecipientStatus.SENT, message_id
    return Sending.of(sending, shared, takes=isinstance(entries, Entries) and entries.takes)


async def deliver(
    session: AsyncSession,
    writer: BatchWriter,
    blueprint: Blueprint,
    entries: Sequence[Entry],
    shared: Shared,
) -> Made:
    """Sends to every entry that is still PENDING, and writes the ledger rows of all and the events. Locks the
    channels."""
    created = await _take_channels(writer, entries, shared, blueprint.for_channels)
    users = await _write(session, writer, blueprint, entries, shared)
    if not blueprint.campaign.skip_webhook:
        await _record(session, blueprint.campaign, entries, shared)
    return Made(created, users)


async def _record(
    session: AsyncSession, campaign: Campaign, entries: Sequence[Entry], shared: Shared
) -> None:
    """Writes the events of a slice: a row for its messages and one for the channels it created."""
    if isinstance(entries, Entries) and (alike := entries.alike) is not None:
        ids, created = alike.message_ids, alike.created_cids
    else:
        ids = [entry.message_id for entry in entries if entry.message_id is not None]
        created = list(dict.fromkeys(entry.cid for entry in entries if entry.created and entry.cid))
    by = None if shared.campaign_no is None else (shared.campaign_no, campaign.campaign_id)
    await events.record_messages(session, ids, created, shared.now, by)


async def pick(session: AsyncSession, campaign_no: int, *, but_not: int = 0) -> Picked | None:
    """Chooses an open batch that nobody holds, those never tried first, and counts an attempt. The caller
    commits before the batch is sent: so a crash counts."""
    picked = await ask(session, _PICK, this_campaign=campaign_no, but_not=but_not)
    row = picked.one_or_none()
    return None if row is None else Picked(*row)


async def forgive(session: AsyncSession, campaign_no: int, batch_no: int) -> None:
    """Takes an attempt back that failed through no fault of the batch. Waits for whoever holds the batch now,
    who may give it back too: an attempt too many must be gone before anybody else can pick it, or a healthy
    target whose channel somebody keeps locked would count as one that breaks its batch."""
    if dialect_of(session) == "postgresql":
        await session.execute(_PATIENT)
    await changed(
        session,
        update(Batch)
        .where(
            col(Batch.campaign_no) == campaign_no, col(Batch.batch_no) == batch_no, col(Batch.attempts) > 0
        )
        .values(attempts=col(Batch.attempts) - 1),
    )

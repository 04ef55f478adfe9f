"""Sending a batch, or a slice of one: messages, ledger rows, channels and counts in one transaction.

The order decides what a target gets: outcomes that need no channel, then the channel, then the
text, and only then rows are locked and written. So a recipient that fails leaves nothing behind, and
locks are held for the shortest time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.campaigns.models import Campaign
from app.campaigns.states import Status
from app.channels import service as channels
from app.database import ask, changed, dialect_of, now
from app.events import service as events
from app.ids import message_ids
from app.ledger.models import Batch, BatchReason, BatchTargets, OutcomeReason, RecipientStatus
from app.ledger.queries import SAMPLES
from app.sending.blueprint import Blueprint, Blueprints
from app.sending.outcomes import settle_without_writing
from app.sending.postgres import PostgresWriter
from app.sending.running import CampaignNotRunning, ensure_running
from app.sending.sqlite import SqliteWriter
from app.sending.writing import (
    NEW,
    BatchWriter,
    Disagreement,
    Entries,
    Entry,
    Sending,
    Shared,
    TakenChannel,
    count_sent,
    unsent,
)

log = structlog.get_logger(__name__)

# Longer waits for a lock give the batch back, so that no pause or mutation queues behind it; a process that
# is stopped, not dead, loses its batch after five seconds instead of keeping it for ever.
# (The connection has a timeout already, whose timer runs: only by way of 0 does it take another one.)
_BOUND_WAITS = text(
    "SELECT set_config('lock_timeout', '100ms', true), set_config('transaction_timeout', '0', true),"
    " set_config('transaction_timeout', :longest, true)"
)
LONGEST_TRANSACTION = "5s"

# The statements of every batch are built once: building them took a twentieth of the sender's time.
_THIS_BATCH = (
    col(Batch.campaign_no) == bindparam("this_campaign"),
    col(Batch.batch_no) == bindparam("this_batch"),
)
_THESE_TARGETS = (
    col(BatchTargets.campaign_no) == bindparam("this_campaign"),
    col(BatchTargets.batch_no) == bindparam("this_batch"),
)
_LOCK = (
    select(col(Batch.batch_no)).where(*_THIS_BATCH, col(Batch.pending) > 0).with_for_update(skip_locked=True)
)
_HELD = select(col(BatchTargets.target_ids)).where(*_THESE_TARGETS)
_UNSYNCHRONISED = {"synchronize_session": False}
_DROP_TARGETS = delete(BatchTargets).where(*_THESE_TARGETS).execution_options(**_UNSYNCHRONISED)
_CLOSE = (
    update(Batch)
    .where(*_THIS_BATCH, col(Batch.pending) == bindparam("was_pending"))
    .values(
        pending=bindparam("still_pending"),
        sent=col(Batch.sent) + bindparam("more_sent"),
        skipped=col(Batch.skipped) + bindparam("more_skipped"),
        failed=col(Batch.failed) + bindparam("more_failed"),
        messages_sent=col(Batch.messages_sent) + bindparam("more_sent"),
        users_sent=col(Batch.users_sent) + bindparam("more_users"),
        channels_created=col(Batch.channels_created) + bindparam("more_channels"),
        attempts=0,
        settled_at=bindparam("at"),
    )
    .execution_options(**_UNSYNCHRONISED)
)
_RUNNING = select(col(Campaign.updated_at)).where(
    col(Campaign.campaign_no) == bindparam("this_campaign"),
    col(Campaign.status) == Status.IN_PROGRESS,
    col(Campaign.deleted_at).is_(None),
)
_PICK = (
    update(Batch)
    .where(
        col(Batch.campaign_no) == bindparam("this_campaign"),
        col(Batch.batch_no)
        == select(col(Batch.batch_no))
        .where(col(Batch.campaign_no) == bindparam("this_campaign"), col(Batch.pending) > 0)
        .order_by(col(Batch.attempts), col(Batch.batch_no))
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery(),
    )
    .values(attempts=col(Batch.attempts) + 1)
    .returning(col(Batch.batch_no), col(Batch.attempts), col(Batch.pending))
    .execution_options(**_UNSYNCHRONISED)
)


class BatchTaken(Exception):
    """Another worker holds this batch, or has settled it."""


class MembersChanged(Exception):
    """Somebody joined or left a channel after its receiver was read: the batch is to be tried anew."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one transaction settled."""

    settled: int
    sent: int


async def send_slice(
    session: AsyncSession, campaign_no: int, batch_no: int, limit: int | None, blueprints: Blueprints
) -> Slice:
    """Settles up to `limit` targets of an open batch (all of them if None). The caller commits.

    Raises `BatchTaken`, `CampaignNotRunning`, `SenderMissing`, `MembersChanged`; and `Disagreement` rather
    than commit ledger rows, messages and counts that differ. Whatever it raises, nothing may be committed.
    """
    await _bound_waits(session)
    target_ids = await lock_batch(session, campaign_no, batch_no)
    blueprint = await _blueprint(session, campaign_no, blueprints)
    taken = target_ids[: min(limit or len(target_ids), blueprint.most_at_once)]
    writer = await writer_of(session)
    blueprint = await as_of_now(writer, blueprint)
    shared = Shared(
        campaign_no,
        batch_no,
        blueprint.campaign.sender_id,
        blueprint.message.poll_id,
        await now(session),
        blueprint.created_channels if blueprint.creates else None,
        blueprint.message.same_for_all,
    )
    entries: Sequence[Entry] = Entries(taken)
    covered = await settle_without_writing(writer, blueprint, entries)
    if covered != len(entries):
        entries = entries[:covered]
    made = await deliver(session, writer, blueprint, entries, shared)
    await close_batch(session, shared, entries, target_ids[len(entries) :], made)
    await ensure_running(session, campaign_no, {Status.IN_PROGRESS})
    return Slice(len(entries), count_sent(entries))


async def as_of_now(writer: BatchWriter, blueprint: Blueprint) -> Blueprint:
    """The blueprint without the members of its channel template who were deleted: they join nothing."""
    if not blueprint.creates or not blueprint.template_members:
        return blueprint
    deleted = await writer.deleted([member.user_id for member in blueprint.template_members])
    return blueprint.without(frozenset(deleted))


async def _bound_waits(session: AsyncSession) -> None:
    if dialect_of(session) == "postgresql":
        await session.execute(_BOUND_WAITS, {"longest": LONGEST_TRANSACTION})


async def lock_batch(session: AsyncSession, campaign_no: int, batch_no: int) -> list[str]:
    """The ids that the batch still holds. The row lock is the lease: it dies with its worker."""
    batch = {"this_campaign": campaign_no, "this_batch": batch_no}
    if (await ask(session, _LOCK, **batch)).one_or_none() is None:
        raise BatchTaken
    found = await ask(session, _HELD, **batch)
    target_ids: list[str] = found.scalar_one()
    return target_ids


async def _blueprint(session: AsyncSession, campaign_no: int, blueprints: Blueprints) -> Blueprint:
    """The blueprint of the campaign, if it runs. Raises `CampaignNotRunning`."""
    updated_at = (await ask(session, _RUNNING, this_campaign=campaign_no)).scalar_one_or_none()
    if updated_at is None:
        raise CampaignNotRunning
    blueprint = blueprints.kept(campaign_no, updated_at)
    if blueprint is None:
        blueprint = blueprints.of(await session.get_one(Campaign, campaign_no))
    return blueprint


async def writer_of(session: AsyncSession) -> BatchWriter:
    """How this session's database writes a batch."""
    if dialect_of(session) == "sqlite":
        return await SqliteWriter.of(session)
    return await PostgresWriter.of(session)


async def _take_channels(
    writer: BatchWriter, entries: Sequence[Entry], shared: Shared, for_channels: bool
) -> int:
    """Locks or creates the channels of all entries still to be sent and numbers their messages; returns
    how many were created. What changed since the channel was read (frozen, deleted) settles the entry."""
    taken: dict[str, TakenChannel]
    if isinstance(entries, Entries) and (alike := entries.alike) is not None:
        receivers = [(target_id,) for target_id in alike.target_ids]
        taken = await writer.take_or_create(dict(sorted(zip(alike.cids, receivers, strict=True))), shared)
        if all(channel is NEW for channel in taken.values()):
            return len(taken)
        going = [entry for entry in entries.take_apart() if entry.reason is None]  # somebody was faster
        _number(going, taken, for_channels, alone=True)
        return sum(channel.created for channel in taken.values())
    going = [entry for entry in entries if entry.status == RecipientStatus.PENDING and entry.cid is not None]
    targets: dict[str, list[str]] = {}
    for entry in going:
        targets.setdefault(entry.cid or "", []).append(entry.target_id)
    if not targets:
        return 0
    take = writer.take_existing if shared.created is None else writer.take_or_create
    taken = await take(dict(sorted(targets.items())), shared)
    _number(going, taken, for_channels, alone=len(targets) == len(going))
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
    if isinstance(entries, Entries) and (alike := entries.alike) is not None:
        entries.number(alike, message_ids(len(alike.target_ids)))
        await writer.write(alike, entries.others, shared)
        return len(alike.target_ids)
    sending = [entry for entry in entries if entry.status == RecipientStatus.PENDING]
    for entry, message_id in zip(sending, message_ids(len(sending)), strict=True):
        entry.status, entry.message_id = RecipientStatus.SENT, message_id
    await writer.write(Sending.of(sending, shared), unsent(entries), shared)
    if len(sending) == sum(entry.created for entry in sending):
        return len(sending)
    for_channels = blueprint.for_channels
    users = await writer.count_members(shared.sender_id) if for_channels else len(sending)
    joined = Counter({} if for_channels else await writer.add_receivers(shared))
    if blueprint.campaign.sender_mode == "INCLUDE":
        joined.update(await writer.add_to_all(shared.sender_id, shared))
    await channels.count_joined(session, joined)
    if blueprint.campaign.show_channels:
        await (writer.show_to_members(shared.sender_id) if for_channels else writer.show_to_receivers())
    return users


@dataclass(frozen=True, slots=True)
class Made:
    """What a slice did beside its entries."""

    channels: int = 0
    users: int = 0


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
        ids, created = alike.message_ids, alike.cids
    else:
        ids = [entry.message_id for entry in entries if entry.message_id is not None]
        created = list(dict.fromkeys(entry.cid for entry in entries if entry.created and entry.cid))
    by = None if shared.campaign_no is None else (shared.campaign_no, campaign.campaign_id)
    await events.record_messages(session, ids, created, shared.now, by)


async def close_batch(
    session: AsyncSession, shared: Shared, entries: Sequence[Entry], left: Sequence[str], made: Made
) -> None:
    """Counts what was settled into the batch's row, and keeps or drops the ids that are left."""
    statuses = Counter(entry.status for entry in unsent(entries))
    sent = count_sent(entries)
    closed = await ask(
        session,
        _CLOSE,
        this_campaign=shared.campaign_no,
        this_batch=shared.batch_no,
        was_pending=len(entries) + len(left),
        still_pending=len(left),
        more_sent=sent,
        more_skipped=statuses[RecipientStatus.SKIPPED],
        more_failed=statuses[RecipientStatus.FAILED],
        more_users=made.users,
        more_channels=made.channels,
        at=shared.now,
    )
    if closed.rowcount != 1 or len(entries) != sent + statuses[2] + statuses[3]:
        raise Disagreement(f"batch {shared.batch_no}: {dict(statuses)}, {len(left)} left")
    await _keep(session, shared, left)
    await _count_reasons(session, shared, entries)


async def _keep(session: AsyncSession, shared: Shared, left: Sequence[str]) -> None:
    batch = {"this_campaign": shared.campaign_no, "this_batch": shared.batch_no}
    if left:
        keep = update(BatchTargets).where(*_THESE_TARGETS).values(target_ids=list(left))
        await changed(session, keep, **batch)
    else:
        await ask(session, _DROP_TARGETS, **batch)


async def _count_reasons(session: AsyncSession, shared: Shared, entries: Sequence[Entry]) -> None:
    by_reason: dict[int, list[str]] = {}
    for entry in unsent(entries):
        by_reason.setdefault(int(entry.reason or 0), []).append(entry.target_id)
    for reason, target_ids in by_reason.items():
        counted = await changed(
            session,
            update(BatchReason)
            .where(
                col(BatchReason.campaign_no) == shared.campaign_no,
                col(BatchReason.batch_no) == shared.batch_no,
                col(BatchReason.reason) == reason,
            )
            .values(count=col(BatchReason.count) + len(target_ids)),
        )
        if counted == 0:
            await session.execute(
                insert(BatchReason).values(
                    campaign_no=shared.campaign_no,
                    batch_no=shared.batch_no,
                    reason=reason,
                    count=len(target_ids),
                    samples=target_ids[:SAMPLES],
                )
            )


async def pick(session: AsyncSession, campaign_no: int) -> tuple[int, int, int] | None:
    """Chooses an open batch that nobody holds, those never tried first, and counts an attempt. The caller
    commits before the batch is sent: so a crash counts. Returns (batch_no, attempts, pending)."""
    picked = await ask(session, _PICK, this_campaign=campaign_no)
    row = picked.one_or_none()
    return None if row is None else (row.batch_no, row.attempts, row.pending)


async def forgive(session: AsyncSession, campaign_no: int, batch_no: int) -> None:
    """Takes an attempt back that failed through no fault of the batch. Whoever holds the batch now clears
    its attempts by success, so that this never waits for him."""
    free = (
        select(col(Batch.batch_no))
        .where(
            col(Batch.campaign_no) == campaign_no, col(Batch.batch_no) == batch_no, col(Batch.attempts) > 0
        )
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    await changed(
        session,
        update(Batch)
        .where(col(Batch.campaign_no) == campaign_no, col(Batch.batch_no) == free)
        .values(attempts=col(Batch.attempts) - 1),
    )

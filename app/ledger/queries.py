"""Reading the ledger: sums over batches, speed, and recipients wherever they stand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.ledger.models import (
    Batch,
    BatchRead,
    BatchReason,
    BatchTargets,
    Plan,
    Recipient,
    RecipientStatus,
)

SPEED_WINDOW = timedelta(seconds=10)
SAMPLES = 3
BATCHES_A_LOOK = 16


@dataclass(frozen=True, slots=True)
class ReasonSum:
    """How many targets were skipped or failed for one reason, and up to three of them."""

    reason: int
    count: int
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sums:
    """What a campaign's batches add up to. Each number is counted; none is a difference of others."""

    targets: int = 0
    pending: int = 0
    sent: int = 0
    skipped: int = 0
    failed: int = 0
    messages_sent: int = 0
    channels_created: int = 0
    users_sent: int = 0
    users_read: int = 0
    planned: bool = False
    reasons: tuple[ReasonSum, ...] = field(default=())


_COUNTS = (
    "targets",
    "pending",
    "sent",
    "skipped",
    "failed",
    "messages_sent",
    "channels_created",
    "users_sent",
)


async def sums(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, Sums]:
    """The sums of these campaigns, in three statements, however many."""
    counted = await session.execute(
        select(
            col(Plan.campaign_no),
            col(Plan.planned),
            *(func.coalesce(func.sum(getattr(Batch, name)), 0) for name in _COUNTS),
        )
        .outerjoin(Batch, col(Batch.campaign_no) == col(Plan.campaign_no))
        .where(col(Plan.campaign_no).in_(campaign_nos))
        .group_by(col(Plan.campaign_no), col(Plan.planned))
    )
    reasons = await _reasons(session, campaign_nos)
    read = await users_read(session, campaign_nos)
    return {
        number: Sums(
            **dict(zip(_COUNTS, map(int, counts), strict=True)),
            users_read=read.get(number, 0),
            planned=planned,
            reasons=tuple(reasons.get(number, ())),
        )
        for number, planned, *counts in counted
    }


async def _reasons(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, list[ReasonSum]]:
    """Per campaign, its reasons in the order of their numbers; samples are those of the first batch."""
    key = (col(BatchReason.campaign_no), col(BatchReason.reason))
    totals = (
        select(
            *key, func.sum(BatchReason.count).label("count"), func.min(BatchReason.batch_no).label("first")
        )
        .where(col(BatchReason.campaign_no).in_(campaign_nos))
        .group_by(*key)
        .subquery()
    )
    rows = await session.execute(
        select(totals.c.campaign_no, totals.c.reason, totals.c["count"], col(BatchReason.samples))
        .join(
            BatchReason,
            and_(
                col(BatchReason.campaign_no) == totals.c.campaign_no,
                col(BatchReason.reason) == totals.c.reason,
                col(BatchReason.batch_no) == totals.c.first,
            ),
        )
        .order_by(totals.c.campaign_no, totals.c.reason)
    )
    found: dict[int, list[ReasonSum]] = {}
    for number, reason, count, samples in rows:
        found.setdefault(number, []).append(ReasonSum(reason, int(count), tuple(samples)))
    return found


async def users_read(session: AsyncSession, campaign_nos: Sequence[int]) -> dict[int, int]:
    """How many users have read each campaign's messages. Reading goes on when a campaign has ended."""
    rows = await session.execute(
        select(col(BatchRead.campaign_no), func.sum(BatchRead.users_read))
        .where(col(BatchRead.campaign_no).in_(campaign_nos))
        .group_by(col(BatchRead.campaign_no))
    )
    return {number: int(count) for number, count in rows}


async def has_open(session: AsyncSession, campaign_no: int) -> bool:
    """Whether a batch still holds ids."""
    found = await session.execute(
        select(col(Batch.batch_no))
        .where(col(Batch.campaign_no) == campaign_no, col(Batch.pending) > 0)
        .limit(1)
    )
    return found.first() is not None


async def speeds(session: AsyncSession, campaign_nos: Sequence[int], at: datetime) -> dict[int, float]:
    """Messages a second over the ten seconds before `at`, by the batches settled in them."""
    rows = await session.execute(
        select(col(Batch.campaign_no), func.sum(Batch.messages_sent))
        .where(col(Batch.campaign_no).in_(campaign_nos), col(Batch.settled_at) > at - SPEED_WINDOW)
        .group_by(col(Batch.campaign_no))
    )
    return {number: int(sent) / SPEED_WINDOW.total_seconds() for number, sent in rows}


@dataclass(frozen=True, slots=True)
class RecipientFilter:
    """Which recipients to list; what is None does not matter.

    `where` is a condition on `Recipient.target_id`; `holds` is the same in Python, for pending targets.
    """

    statuses: frozenset[int] | None = None
    reasons: frozenset[int] | None = None
    target_ids: frozenset[str] | None = None
    where: ColumnElement[bool] | None = None
    holds: Callable[[str], bool] = lambda _: True

    def settled(self) -> bool:
        """Whether a settled recipient can match."""
        return self.statuses is None or bool(self.statuses - {RecipientStatus.PENDING})

    def pending(self) -> bool:
        """Whether a pending recipient can match (it has no reason)."""
        return self.reasons is None and (self.statuses is None or RecipientStatus.PENDING in self.statuses)

    def conditions(self) -> list[ColumnElement[bool]]:
        """For settled rows. `status >= 2` is spelt out where it holds: it opens the index of the unsent."""
        found: list[ColumnElement[bool]] = []
        if self.statuses is not None:
            settled = sorted(self.statuses - {RecipientStatus.PENDING})
            found.append(col(Recipient.status).in_(settled))
            if settled and settled[0] >= RecipientStatus.SKIPPED:
                found.append(col(Recipient.status) >= 2)
        if self.reasons is not None:
            found += [col(Recipient.reason).in_(sorted(self.reasons)), col(Recipient.status) >= 2]
        if self.target_ids is not None:
            found.append(col(Recipient.target_id).in_(sorted(self.target_ids)))
        if self.where is not None:
            found.append(self.where)
        return found

    def names(self, target_id: str) -> bool:
        """Whether a target of this id can match."""
        return (self.target_ids is None or target_id in self.target_ids) and self.holds(target_id)


async def recipients(
    session: AsyncSession,
    campaign_no: int,
    wanted: RecipientFilter,
    *,
    after: str | None,
    before: str | None,
    limit: int,
    backward: bool,
) -> list[Recipient]:
    """Up to `limit` recipients between two target ids (exclusive), ascending by target id, or the last
    ones descending if `backward`. Settled ones come from the ledger, pending ones from open batches."""
    found: list[Recipient] = []
    if wanted.settled():
        found += await _settled(session, campaign_no, wanted, after, before, limit, backward)
    if wanted.pending():
        settled = {row.target_id for row in found}
        pending = await _pending(session, campaign_no, wanted, after, before, limit, backward)
        found += [row for row in pending if row.target_id not in settled]
    return sorted(found, key=lambda row: row.target_id, reverse=backward)[:limit]


async def _settled(
    session: AsyncSession,
    campaign_no: int,
    wanted: RecipientFilter,
    after: str | None,
    before: str | None,
    limit: int,
    backward: bool,
) -> list[Recipient]:
    target = col(Recipient.target_id)
    statement = select(Recipient).where(col(Recipient.campaign_no) == campaign_no, *wanted.conditions())
    if after is not None:
        statement = statement.where(target > after)
    if before is not None:
        statement = statement.where(target < before)
    rows = await session.execute(statement.order_by(target.desc() if backward else target).limit(limit))
    return list(rows.scalars())


async def _pending(
    session: AsyncSession,
    campaign_no: int,
    wanted: RecipientFilter,
    after: str | None,
    before: str | None,
    limit: int,
    backward: bool,
) -> list[Recipient]:
    """Open batches are disjoint ranges of target ids: walk them in order until the page is full."""
    found: list[Recipient] = []
    edge = before if backward else after
    while len(found) < limit:
        batches = await _open_batches(session, campaign_no, edge, backward)
        for batch_no, first, last, target_ids in batches:
            edge = first if backward else last
            found += [
                Recipient(
                    campaign_no=campaign_no,
                    target_id=target_id,
                    status=RecipientStatus.PENDING,
                    batch_no=batch_no,
                )
                for target_id in (reversed(target_ids) if backward else target_ids)
                if (after is None or target_id > after)
                and (before is None or target_id < before)
                and wanted.names(target_id)
            ]
        if len(batches) < BATCHES_A_LOOK:
            break
    return found[:limit]


async def _open_batches(
    session: AsyncSession, campaign_no: int, edge: str | None, backward: bool
) -> Sequence[tuple[int, str, str, list[str]]]:
    first, last = col(Batch.first_target), col(Batch.last_target)
    near = (
        select(col(Batch.batch_no), first, last)
        .where(col(Batch.campaign_no) == campaign_no, col(Batch.pending) > 0)
        .order_by(first.desc() if backward else first)
        .limit(BATCHES_A_LOOK)
    )
    if edge is not None:
        near = near.where(first < edge if backward else last > edge)
    ranges = near.subquery()
    rows = await session.execute(
        select(ranges.c.batch_no, ranges.c.first_target, ranges.c.last_target, col(BatchTargets.target_ids))
        .join(
            BatchTargets,
            and_(
                col(BatchTargets.campaign_no) == campaign_no, col(BatchTargets.batch_no) == ranges.c.batch_no
            ),
        )
        .order_by(ranges.c.first_target.desc() if backward else ranges.c.first_target)
    )
    return list(rows)


async def count_recipients(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    """How many recipients match: from the sums where they know it, counted in the ledger otherwise."""
    if wanted.target_ids is not None:
        return len(
            await recipients(
                session,
                campaign_no,
                wanted,
                after=None,
                before=None,
                limit=len(wanted.target_ids),
                backward=False,
            )
        )
    if wanted.where is not None:
        return await _count_named(session, campaign_no, wanted)
    total = (await sums(session, [campaign_no])).get(campaign_no, Sums())
    statuses = set(RecipientStatus) if wanted.statuses is None else wanted.statuses
    if wanted.reasons is None:
        return sum(_by_status(total)[status] for status in statuses)
    if statuses >= {RecipientStatus.SKIPPED, RecipientStatus.FAILED}:
        return sum(reason.count for reason in total.reasons if reason.reason in wanted.reasons)
    return await _count_settled(session, campaign_no, wanted)


async def _count_settled(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    counted = await session.execute(
        select(func.count())
        .select_from(Recipient)
        .where(col(Recipient.campaign_no) == campaign_no, *wanted.conditions())
    )
    return counted.scalar_one()


async def _count_named(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    """Counts one by one: no sum knows the ids."""
    count = await _count_settled(session, campaign_no, wanted) if wanted.settled() else 0
    edge: str | None = None
    more = wanted.pending()
    while more:
        batches = await _open_batches(session, campaign_no, edge, backward=False)
        for _, _, last, target_ids in batches:
            edge = last
            count += sum(map(wanted.names, target_ids))
        more = len(batches) == BATCHES_A_LOOK
    return count


def _by_status(total: Sums) -> Mapping[int, int]:
    return {
        RecipientStatus.PENDING: total.pending,
        RecipientStatus.SENT: total.sent,
        RecipientStatus.SKIPPED: total.skipped,
        RecipientStatus.FAILED: total.failed,
    }


async def recipients_by_key(
    session: AsyncSession, keys: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], Recipient]:
    """These recipients by (campaign_no, target_id), settled or pending."""
    wanted: dict[int, set[str]] = {}
    for campaign_no, target_id in keys:
        wanted.setdefault(campaign_no, set()).add(target_id)
    found: dict[tuple[int, str], Recipient] = {}
    for campaign_no, target_ids in wanted.items():
        rows = await recipients(
            session,
            campaign_no,
            RecipientFilter(target_ids=frozenset(target_ids)),
            after=None,
            before=None,
            limit=len(target_ids),
            backward=False,
        )
        found |= {(campaign_no, row.target_id): row for row in rows}
    return found


def as_json(total: Sums) -> dict[str, Any]:
    """Sums as they are stored with an ended campaign and in events."""
    counts: dict[str, Any] = {name: getattr(total, name) for name in (*_COUNTS, "users_read", "planned")}
    counts["reasons"] = [
        {"reason": reason.reason, "count": reason.count, "samples": list(reason.samples)}
        for reason in total.reasons
    ]
    return counts


def from_json(stored: Mapping[str, Any], users_read: int) -> Sums:
    """The reverse of `as_json`, with `users_read` as it is by now: it grows after the end."""
    reasons = tuple(
        ReasonSum(reason["reason"], reason["count"], tuple(reason["samples"])) for reason in stored["reasons"]
    )
    counts = {name: stored[name] for name in (*_COUNTS, "planned")}
    return Sums(**counts, users_read=users_read, reasons=reasons)

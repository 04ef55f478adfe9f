"""Recipients wherever they stand: settled ones in the ledger, pending ones in open batches.

A page is walked along an index that has it in order, however few match.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import DialectName, dialect_of
from app.ledger.models import Batch, BatchTargets, OutcomeReason, Recipient, RecipientStatus
from app.ledger.queries import Sums, sums

BATCHES_A_LOOK = 16

_SETTLED = frozenset(RecipientStatus) - {RecipientStatus.PENDING}
# Right after a campaign PostgreSQL may still believe that its ledger is small, and sort a million rows for a
# page (300 ms instead of 25).
_WALK_INDEXES = text(
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
)


class LedgerRow(NamedTuple):
    """A row of the ledger, or a target that has none yet. Ten thousand entities would take 130 ms to make."""

    campaign_no: int
    target_id: str
    status: int
    batch_no: int
    reason: int | None = None
    detail: str | None = None
    cid: str | None = None
    message_id: str | None = None
    settled_at: datetime | None = None
    read_at: datetime | None = None


_COLUMNS: list[Any] = [getattr(Recipient, name) for name in LedgerRow._fields]


@dataclass(frozen=True, slots=True)
class RecipientFilter:
    """Which recipients to list; what is None does not matter.

    `read` False lets through whoever has not read, sent to or not. `where` is a condition on
    `Recipient.target_id`; `holds` is the same in Python, for pending targets.
    """

    statuses: frozenset[int] | None = None
    reasons: frozenset[int] | None = None
    read: bool | None = None
    target_ids: frozenset[str] | None = None
    where: ColumnElement[bool] | None = None
    holds: Callable[[str], bool] = lambda _: True

    def settled(self) -> frozenset[int]:
        """The statuses that settled recipients which match can have. Only who was sent a message can have
        read it, and who was not has one reason."""
        found = _SETTLED if self.statuses is None else _SETTLED & self.statuses
        if self.read:
            found &= {RecipientStatus.SENT}
        if self.reasons is not None:
            found &= {OutcomeReason(reason).status for reason in self.reasons}
        return found

    def pending(self) -> bool:
        """Whether a pending recipient can match (it has no reason, and nothing to read)."""
        if self.reasons is not None or self.read:
            return False
        return self.statuses is None or RecipientStatus.PENDING in self.statuses

    def names(self, target_id: str) -> bool:
        """Whether a target of this id can match."""
        return (self.target_ids is None or target_id in self.target_ids) and self.holds(target_id)


@dataclass(frozen=True, slots=True)
class Span:
    """Up to `limit` recipients between two target ids (exclusive): the first, ascending, or the last,
    descending, if `backward`."""

    limit: int
    after: str | None = None
    before: str | None = None
    backward: bool = False

    @property
    def edge(self) -> str | None:
        """Where the walk begins."""
        return self.before if self.backward else self.after

    @property
    def order(self) -> ColumnElement[str]:
        """The order of the walk."""
        target = col(Recipient.target_id)
        return target.desc() if self.backward else target.asc()

    def conditions(self) -> list[ColumnElement[bool]]:
        """For settled rows. The lower bound is always there: without one SQLite prefers the table to the
        index of those that have read."""
        target = col(Recipient.target_id)
        behind = [target > (self.after or "")]
        return behind if self.before is None else [*behind, target < self.before]

    def holds(self, target_id: str) -> bool:
        """Whether it lies within."""
        return (self.after is None or target_id > self.after) and (
            self.before is None or target_id < self.before
        )


async def page(
    session: AsyncSession, campaign_no: int, wanted: RecipientFilter, span: Span
) -> list[LedgerRow]:
    """The recipients that match, as far as the span goes."""
    found = await _settled(session, campaign_no, wanted, span)
    if wanted.pending():
        settled = {row.target_id for row in found}
        pending = await _pending(session, campaign_no, wanted, span)
        found += [row for row in pending if row.target_id not in settled]
    return sorted(found, key=lambda row: row.target_id, reverse=span.backward)[: span.limit]


async def _settled(
    session: AsyncSession, campaign_no: int, wanted: RecipientFilter, span: Span
) -> list[LedgerRow]:
    if wanted.target_ids is None:
        await _walk_indexes(session)
    found: list[LedgerRow] = []
    for walk in _walks(dialect_of(session), campaign_no, wanted):
        rows = await session.execute(
            select(*_COLUMNS).where(*walk, *span.conditions()).order_by(span.order).limit(span.limit)
        )
        found += map(LedgerRow._make, rows)
    return found


async def _walk_indexes(session: AsyncSession) -> None:
    if dialect_of(session) == "postgresql":
        await session.execute(_WALK_INDEXES)


def _walks(
    dialect: DialectName, campaign_no: int, wanted: RecipientFilter
) -> list[list[ColumnElement[bool]]]:
    """Conditions of settled rows that match, for each walk along an index: of those that have read, of one
    status of the unsent, or of all."""
    statuses, target = wanted.settled(), col(Recipient.target_id)
    always: list[ColumnElement[bool]] = [col(Recipient.campaign_no) == campaign_no]
    if wanted.target_ids is not None:
        always.append(target.in_(sorted(wanted.target_ids)))
    if wanted.where is not None:
        always.append(wanted.where)
    if not statuses:
        return []
    if wanted.read:
        return [[*always, col(Recipient.read_at).is_not(None)]]
    if RecipientStatus.SENT not in statuses:
        return [[*always, *_unsent(dialect, status, wanted.reasons)] for status in sorted(statuses)]
    if statuses != _SETTLED:
        always.append(col(Recipient.status).in_(sorted(statuses)))
    if wanted.read is False:
        always.append(col(Recipient.read_at).is_(None))
    return [always]


def _unsent(dialect: DialectName, status: int, reasons: Collection[int] | None) -> list[ColumnElement[bool]]:
    """Skipped or failed rows, found in their index: it holds the rows that have a reason."""
    is_it = col(Recipient.status) == status
    # Without being told, SQLite looks for the rare ones in the whole ledger.
    told: ColumnElement[bool] = func.unlikely(is_it) if dialect == "sqlite" else is_it
    reason = col(Recipient.reason)
    return [told, reason.is_not(None), *([] if reasons is None else [reason.in_(sorted(reasons))])]


async def _pending(
    session: AsyncSession, campaign_no: int, wanted: RecipientFilter, span: Span
) -> list[LedgerRow]:
    """Open batches are disjoint ranges of target ids: walk them in order until the page is full."""
    found: list[LedgerRow] = []
    edge = span.edge
    while len(found) < span.limit:
        batches = await _open_batches(session, campaign_no, edge, span.backward, wanted.target_ids)
        for batch_no, first, last, target_ids in batches:
            edge = first if span.backward else last
            found += [
                LedgerRow(campaign_no, target_id, RecipientStatus.PENDING, batch_no)
                for target_id in (reversed(target_ids) if span.backward else target_ids)
                if span.holds(target_id) and wanted.names(target_id)
            ]
        if len(batches) < BATCHES_A_LOOK:
            break
    return found[: span.limit]


async def _open_batches(
    session: AsyncSession,
    campaign_no: int,
    edge: str | None,
    backward: bool,
    target_ids: Collection[str] | None = None,
) -> Sequence[tuple[int, str, str, list[str]]]:
    """The next open batches behind `edge`, with the ids that they hold; if `target_ids` are given, only those
    that can hold one of them."""
    first, last = col(Batch.first_target), col(Batch.last_target)
    near = (
        select(col(Batch.batch_no), first, last)
        .where(col(Batch.campaign_no) == campaign_no, col(Batch.pending) > 0)
        .order_by(first.desc() if backward else first)
        .limit(BATCHES_A_LOOK)
    )
    if edge is not None:
        near = near.where(first < edge if backward else last > edge)
    if target_ids:
        near = near.where(last >= min(target_ids), first <= max(target_ids))
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


async def count(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    """How many recipients match: from the sums where they know it, counted one by one otherwise."""
    if wanted.target_ids is not None:
        return len(await page(session, campaign_no, wanted, Span(len(wanted.target_ids))))
    if wanted.where is not None:
        settled = await _count_settled(session, campaign_no, wanted)
        return settled + (await _count_pending(session, campaign_no, wanted) if wanted.pending() else 0)
    if wanted.read:
        return await _count_settled(session, campaign_no, wanted)
    total = (await sums(session, [campaign_no])).get(campaign_no, Sums())
    if wanted.reasons is not None:
        chosen = {reason for reason in wanted.reasons if OutcomeReason(reason).status in wanted.settled()}
        return sum(reason.count for reason in total.reasons if reason.reason in chosen)
    by_status = _by_status(total)
    whole = sum(by_status[status] for status in wanted.settled())
    whole += by_status[RecipientStatus.PENDING] if wanted.pending() else 0
    if wanted.read is None or RecipientStatus.SENT not in wanted.settled():
        return whole
    # All but the read ones: only these have an index. The session is one snapshot.
    return whole - await _count_settled(session, campaign_no, replace(wanted, read=True))


async def _count_settled(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    await _walk_indexes(session)
    counted = 0
    for walk in _walks(dialect_of(session), campaign_no, wanted):
        rows = await session.execute(select(func.count()).select_from(Recipient).where(*walk))
        counted += rows.scalar_one()
    return counted


async def _count_pending(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    """Counts ids: no sum knows them."""
    counted, edge, more = 0, None, True
    while more:
        batches = await _open_batches(session, campaign_no, edge, backward=False)
        for _, _, last, target_ids in batches:
            edge = last
            counted += sum(map(wanted.names, target_ids))
        more = len(batches) == BATCHES_A_LOOK
    return counted


def _by_status(total: Sums) -> Mapping[int, int]:
    return {
        RecipientStatus.PENDING: total.pending,
        RecipientStatus.SENT: total.sent,
        RecipientStatus.SKIPPED: total.skipped,
        RecipientStatus.FAILED: total.failed,
    }


async def by_key(session: AsyncSession, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], LedgerRow]:
    """These recipients by (campaign_no, target_id), settled or pending."""
    wanted: dict[int, set[str]] = {}
    for campaign_no, target_id in keys:
        wanted.setdefault(campaign_no, set()).add(target_id)
    found: dict[tuple[int, str], LedgerRow] = {}
    for campaign_no, target_ids in wanted.items():
        named = RecipientFilter(target_ids=frozenset(target_ids))
        rows = await page(session, campaign_no, named, Span(len(target_ids)))
        found |= {(campaign_no, row.target_id): row for row in rows}
    return found

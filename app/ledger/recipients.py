"""Recipients wherever they stand: settled ones in the ledger, pending ones in open batches.

A page is walked along an index that has it in order, however few match.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app import keyset
from app.database import DialectName, dialect_of
from app.given import given
from app.keyset import Bounds, By
from app.ledger.models import Batch, BatchTargets, OutcomeReason, Recipient, RecipientStatus
from app.ledger.queries import Sums, sums

BATCHES_A_LOOK = 16

UNSENT = (RecipientStatus.SKIPPED, RecipientStatus.FAILED)
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

    def everyone(self) -> bool:
        """Whether every pending recipient matches, if any does."""
        return self.target_ids is None and self.where is None

    def batches_at_once(self, campaigns: int) -> int:
        """How many batches of each campaign to look at, before it is known whether that will do."""
        return BATCHES_A_LOOK if self.everyone() else max(1, BATCHES_A_LOOK // campaigns)

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

    def bounds(self) -> Bounds:
        """For settled rows. The lower bound is always there: without one SQLite prefers the table to the
        index of those that have read."""
        before = None if self.before is None else (self.before,)
        return Bounds((self.after or "",), before, self.limit, self.backward)

    def holds(self, target_id: str) -> bool:
        """Whether it lies within."""
        return (self.after is None or target_id > self.after) and (
            self.before is None or target_id < self.before
        )


async def page(
    session: AsyncSession, campaign_no: int, wanted: RecipientFilter, span: Span
) -> list[LedgerRow]:
    """The recipients that match, as far as the span goes."""
    return (await pages(session, [campaign_no], wanted, span))[campaign_no]


async def pages(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter, span: Span
) -> dict[int, list[LedgerRow]]:
    """For each campaign the recipients that match, as far as the span goes: a statement or two for those that
    are settled, one for those that are pending, however many campaigns there are."""
    found = await _settled(session, campaign_nos, wanted, span)
    pending = await _pending(session, campaign_nos, wanted, span) if wanted.pending() else {}
    for campaign_no, rows in pending.items():
        settled = {row.target_id for row in found[campaign_no]}
        found[campaign_no] += [row for row in rows if row.target_id not in settled]
    return {
        campaign_no: sorted(rows, key=lambda row: row.target_id, reverse=span.backward)[: span.limit]
        for campaign_no, rows in found.items()
    }


async def _settled(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter, span: Span
) -> dict[int, list[LedgerRow]]:
    if wanted.target_ids is None:
        await _walk_indexes(session)
    found: dict[int, list[LedgerRow]] = {campaign_no: [] for campaign_no in campaign_nos}
    order, bounds = [By(col(Recipient.target_id))], span.bounds()
    for walk in _walks(dialect_of(session), wanted):

        def of(campaign_no: Any, walk: Sequence[ColumnElement[bool]] = walk) -> Select[Any]:
            return select(*_COLUMNS).where(col(Recipient.campaign_no) == campaign_no, *walk)

        for campaign_no, rows in (await keyset.pages(session, of, campaign_nos, order, bounds)).items():
            found[campaign_no] += [LedgerRow._make(row) for row, _ in rows]
    return found


async def _walk_indexes(session: AsyncSession) -> None:
    if dialect_of(session) == "postgresql":
        await session.execute(_WALK_INDEXES)


def _walks(dialect: DialectName, wanted: RecipientFilter) -> list[list[ColumnElement[bool]]]:
    """Conditions of a campaign's settled rows that match, for each walk along an index: of those that have
    read, of one status of the unsent, or of all."""
    statuses, target = wanted.settled(), col(Recipient.target_id)
    always: list[ColumnElement[bool]] = []
    if wanted.target_ids is not None:
        always.append(target.in_(sorted(wanted.target_ids)))
    if wanted.where is not None:
        always.append(wanted.where)
    if not statuses:
        return []
    if wanted.read:
        return [[*always, col(Recipient.read_at).is_not(None)]]
    if RecipientStatus.SENT not in statuses:
        return [[*always, *unsent(dialect, status, wanted.reasons)] for status in sorted(statuses)]
    if statuses != _SETTLED:
        always.append(col(Recipient.status).in_(sorted(statuses)))
    if wanted.read is False:
        always.append(col(Recipient.read_at).is_(None))
    return [always]


def unsent(dialect: DialectName, status: int, reasons: Collection[int] | None) -> list[ColumnElement[bool]]:
    """Skipped or failed rows, found in their index: it holds the rows that have a reason."""
    is_it = col(Recipient.status) == status
    # Without being told, SQLite looks for the rare ones in the whole ledger.
    told: ColumnElement[bool] = func.unlikely(is_it) if dialect == "sqlite" else is_it
    reason = col(Recipient.reason)
    return [told, reason.is_not(None), *([] if reasons is None else [reason.in_(sorted(reasons))])]


async def _pending(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter, span: Span
) -> dict[int, list[LedgerRow]]:
    """Open batches are disjoint ranges of target ids: walk them in order until the pages are full."""
    found: dict[int, list[LedgerRow]] = {campaign_no: [] for campaign_no in campaign_nos}
    edges: dict[int, str | None] = dict.fromkeys(campaign_nos, span.edge)
    while edges:
        at_once = wanted.batches_at_once(len(edges))
        looked_at: Counter[int] = Counter()
        for campaign_no, batch_no, first, last, target_ids in await _open_batches(
            session, edges, wanted, span.backward, at_once, limit=span.limit
        ):
            looked_at[campaign_no] += 1
            edges[campaign_no] = first if span.backward else last
            matching = (
                LedgerRow(campaign_no, target_id, RecipientStatus.PENDING, batch_no)
                for target_id in (reversed(target_ids) if span.backward else target_ids)
                if span.holds(target_id) and wanted.names(target_id)
            )
            found[campaign_no] += islice(matching, span.limit - len(found[campaign_no]))
        edges = {
            campaign_no: edge
            for campaign_no, edge in edges.items()
            if looked_at[campaign_no] == at_once and len(found[campaign_no]) < span.limit
        }
    return found


async def _open_batches(
    session: AsyncSession,
    edges: Mapping[int, str | None],
    wanted: RecipientFilter,
    backward: bool,
    at_once: int,
    *,
    limit: int | None,
) -> Sequence[tuple[int, int, str, str, list[str]]]:
    """The next open batches of each campaign behind its edge, with the ids that they hold: `at_once` of each,
    or as few as fill a page of `limit` ids, where every id counts; if ids are wanted, only batches that can
    hold one of them."""
    behind = given(session, edges.items(), campaign_no=BigInteger, edge=Text)
    first, last, pending = col(Batch.first_target), col(Batch.last_target), col(Batch.pending)
    order = first.desc() if backward else first.asc()
    window: dict[str, Any] = {"partition_by": col(Batch.campaign_no), "order_by": order}
    # The first may lie behind the edge in part: what it holds is no promise.
    sure = 0 if None in edges.values() else func.first_value(pending).over(**window)
    before = func.coalesce(func.sum(pending).over(**window, rows=(None, -1)), 0) - sure
    near = (
        select(col(Batch.campaign_no), col(Batch.batch_no), first, last)
        .add_columns(func.row_number().over(**window).label("place"), before.label("before"))
        .join(behind, behind.c.campaign_no == col(Batch.campaign_no))
        .where(pending > 0)
        .where(or_(behind.c.edge.is_(None), first < behind.c.edge if backward else last > behind.c.edge))
    )
    if wanted.target_ids:
        near = near.where(last >= min(wanted.target_ids), first <= max(wanted.target_ids))
    ranges = near.subquery()
    enough = [ranges.c.before < limit] if limit is not None and wanted.everyone() else []
    rows = await session.execute(
        select(*(ranges.c[name] for name in ("campaign_no", "batch_no", "first_target", "last_target")))
        .add_columns(col(BatchTargets.target_ids))
        .join(
            BatchTargets,
            and_(
                col(BatchTargets.campaign_no) == ranges.c.campaign_no,
                col(BatchTargets.batch_no) == ranges.c.batch_no,
            ),
        )
        .where(ranges.c.place <= at_once, *enough)
        .order_by(ranges.c.campaign_no, ranges.c.place)
    )
    return list(rows)


async def count(session: AsyncSession, campaign_no: int, wanted: RecipientFilter) -> int:
    """How many recipients match."""
    return (await counts(session, [campaign_no], wanted))[campaign_no]


async def counts(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter
) -> dict[int, int]:
    """How many recipients of each campaign match: from the sums where they know it, counted one by one
    otherwise; statements are as few for many campaigns as for one."""
    if wanted.target_ids is not None:
        found = await pages(session, campaign_nos, wanted, Span(len(wanted.target_ids)))
        return {campaign_no: len(rows) for campaign_no, rows in found.items()}
    if wanted.read:
        return await _count_settled(session, campaign_nos, wanted)
    if wanted.where is not None:
        settled = await _count_settled(session, campaign_nos, wanted)
        pending = await _count_pending(session, campaign_nos, wanted) if wanted.pending() else {}
        return {campaign_no: count + pending.get(campaign_no, 0) for campaign_no, count in settled.items()}
    totals = await sums(session, campaign_nos)
    known = {campaign_no: _known(totals.get(campaign_no, Sums()), wanted) for campaign_no in campaign_nos}
    if wanted.reasons is not None or wanted.read is None or RecipientStatus.SENT not in wanted.settled():
        return known
    # All but the read ones: only these have an index. The session is one snapshot.
    read = await _count_settled(session, campaign_nos, replace(wanted, read=True))
    return {campaign_no: count - read[campaign_no] for campaign_no, count in known.items()}


def _known(total: Sums, wanted: RecipientFilter) -> int:
    """What the sums say, whoever has read."""
    if wanted.reasons is not None:
        chosen = {reason for reason in wanted.reasons if OutcomeReason(reason).status in wanted.settled()}
        return sum(reason.count for reason in total.reasons if reason.reason in chosen)
    by_status = _by_status(total)
    whole = sum(by_status[status] for status in wanted.settled())
    return whole + (by_status[RecipientStatus.PENDING] if wanted.pending() else 0)


async def _count_settled(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter
) -> dict[int, int]:
    await _walk_indexes(session)
    counted: Counter[int] = Counter(dict.fromkeys(campaign_nos, 0))
    for walk in _walks(dialect_of(session), wanted):

        def of(campaign_no: Any, walk: Sequence[ColumnElement[bool]] = walk) -> Select[Any]:
            return select(col(Recipient.target_id)).where(col(Recipient.campaign_no) == campaign_no, *walk)

        counted.update(await keyset.counts(session, of, campaign_nos))
    return counted


async def _count_pending(
    session: AsyncSession, campaign_nos: Sequence[int], wanted: RecipientFilter
) -> dict[int, int]:
    """Counts ids: no sum knows them."""
    counted: Counter[int] = Counter()
    edges: dict[int, str | None] = dict.fromkeys(campaign_nos)
    while edges:
        at_once = wanted.batches_at_once(len(edges))
        looked_at: Counter[int] = Counter()
        for campaign_no, _, _, last, target_ids in await _open_batches(
            session, edges, wanted, backward=False, at_once=at_once, limit=None
        ):
            looked_at[campaign_no] += 1
            edges[campaign_no] = last
            counted[campaign_no] += sum(map(wanted.names, target_ids))
        edges = {number: edge for number, edge in edges.items() if looked_at[number] == at_once}
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

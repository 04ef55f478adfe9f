"""The pace of a campaign and of the server: what is sent is reserved first, a slice at a time.

A rate row says when the next message of its scope may go out. Once that has come, a worker moves it on by
a slice, in a short transaction of its own, by the database's clock, and sends at once; before, it waits and
holds nothing, so that no slices pile up in waiting hands. A lock held inside the batch would make the
workers queue. A crash forfeits its slice.

Over any ten seconds no more is reserved than a limit allows for 10.4: a slice is sent at its beginning
(0.2 s), and whoever comes late gets what was missed in the last 0.2 s too, so that a worker that is busy with
other campaigns keeps the pace.

Campaigns that run at once under the server's limit each have a share of it. Those who may have all that
their own limits allow come first: they need not wait until the slice of another is over. Of the others each
has a row for its share, which binds nobody: who has had his share lets the others go before, and takes what
they leave.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import Database, dialect_of, now, waited_too_long
from app.ledger.models import Rate

SLICE_SECONDS = 0.2
SLICE_SECONDS_BESIDE_OTHERS = 0.1  # of the server's limit, for which they wait meanwhile
# A batch. What is reserved of a limit far above what can be sent would keep other lanes waiting meanwhile.
MOST_MESSAGES = 3_000
LATEST_SECONDS = 0.2  # what was missed longer ago is forfeited
LATEST_SECONDS_OF_A_SHARE = 2.0  # or one slice: others may have been before it
SECONDS_BEFORE_OTHERS = 0.1  # whose slice may just have begun
SECONDS_AFTER_OTHERS = 0.05  # by then each of their workers has looked
MOST_SECONDS_AHEAD = 2.0  # a slice is a message or 0.4 s at most, and no limit is below one a second
SERVER = 0  # the scope of CARILLON_MESSAGES_PER_SECOND

# A worker that is stopped, not dead, in the middle of a reservation keeps all others from sending.
_BOUNDED = select(
    func.set_config("lock_timeout", "100ms", True),
    func.set_config("transaction_timeout", "0", True),
    func.set_config("transaction_timeout", "1s", True),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for one campaign, in messages a second: a limit of its own, the server's, and its share of
    that beside other campaigns. None: there is none."""

    campaign_no: int
    own: int | None
    server: int | None
    share: float | None = None

    @property
    def goes_first(self) -> bool:
        """Whether its share of the server's limit is all that it may send."""
        return self.own is not None and self.share is not None and self.own <= self.share

    @property
    def by_scope(self) -> Mapping[int, float]:
        """Those that have a row, in the order in which these are locked."""
        share = None if self.goes_first else self.share
        scopes = (SERVER, self.server), (self.campaign_no, self.own), (share_of(self.campaign_no), share)
        return {scope: limit for scope, limit in scopes if limit is not None}

    @property
    def longest(self) -> float:
        """For how many seconds others may be kept waiting by a slice."""
        return SLICE_SECONDS if self.share is None else SLICE_SECONDS_BESIDE_OTHERS

    def slice(self, missed: float) -> int:
        """How many messages a slice has, one at least, if so many seconds of each limit were missed."""
        most = (self.own, SLICE_SECONDS), (self.server, self.longest)
        messages = min(limit * (each + missed) for limit, each in most if limit is not None)
        return max(1, min(MOST_MESSAGES, int(messages)))

    def wait(self, waits: Mapping[int, float]) -> float:
        """In how many seconds a slice may be reserved, by what each scope waits for; not positive: now."""
        own, server = waits.get(self.campaign_no, -inf), waits.get(SERVER, -inf)
        if self.goes_first:
            server -= SECONDS_BEFORE_OTHERS
        elif self.share is not None:
            share = waits.get(share_of(self.campaign_no), 0.0)
            server = min(max(server, share), server + SECONDS_AFTER_OTHERS)
        return max(own, server)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Leave to send `messages` now (none: it is too early), and in how many seconds each scope has more."""

    messages: int
    limits: Limits
    waits: Mapping[int, float]


def share_of(campaign_no: int) -> int:
    """The scope of a campaign's share of the server's limit."""
    return -campaign_no


def shares(server_limit: int, limits: Mapping[int, int | None]) -> dict[int, float]:
    """What each campaign may have of the server's limit, by the limits of their own: who needs less than an
    equal part leaves the rest to the others, in equal parts (max-min fairness)."""
    left, found = float(server_limit), dict[int, float]()
    by_need = sorted(limits, key=lambda number: limits[number] or server_limit)
    for before, number in enumerate(by_need):
        found[number] = min(float(limits[number] or server_limit), left / (len(by_need) - before))
        left -= found[number]
    return found


def limits_of(campaign_no: int, own: int | None, server: int | None, found: Mapping[int, float]) -> Limits:
    """The limits of a campaign beside those whose shares were `found`; one that was not among them, since it
    had nothing to send, may have an equal part."""
    if server is None or not found.keys() - {campaign_no}:
        return Limits(campaign_no, own, server)
    return Limits(campaign_no, own, server, found.get(campaign_no, server / (len(found) + 1)))


def grant(limits: Limits, rows: Mapping[int, float]) -> tuple[int, dict[int, float]]:
    """How many messages may be sent now, and in how many seconds each scope has more then. Pure.

    `rows` says in how many seconds each had more before, negative if it was due already.
    """
    waits = {scope: _wait(limits, scope, rows[scope]) for scope in limits.by_scope}
    if limits.wait(waits) > 0:
        return 0, waits
    missed = max(0.0, -max(wait for scope, wait in waits.items() if scope >= SERVER))
    messages = limits.slice(missed)
    for scope, limit in limits.by_scope.items():
        # Who takes what the others leave owes them no more than his last slice.
        before = min(0.0, waits[scope]) if scope < SERVER else waits[scope]
        waits[scope] = before + messages / limit
    return messages, waits


def _wait(limits: Limits, scope: int, row: float) -> float:
    latest, most_ahead = LATEST_SECONDS, MOST_SECONDS_AHEAD
    if scope < SERVER:
        share = limits.share or 1.0
        latest = max(LATEST_SECONDS_OF_A_SHARE, limits.slice(0.0) / share)
        most_ahead = max(most_ahead, 2 * limits.slice(LATEST_SECONDS) / share)
    # A row that is further ahead was written before the clock was set back, or when the share was smaller.
    return 0.0 if row > most_ahead else max(-latest, row)


async def reserve(database: Database, limits: Limits) -> Reservation:
    """Reserves the next slice if its time has come, and the rows are free."""
    scopes = limits.by_scope
    reservation = Reservation(0, limits, dict.fromkeys(scopes, SECONDS_AFTER_OTHERS))
    async with _briefly(database) as session:
        rows = await _locked(session, scopes)
        if missing := [scope for scope in scopes if scope not in rows]:
            await _make(session, missing)
            rows = await _locked(session, scopes)
        at = await now(session)  # locked first: it may have taken a while
        since = {scope: (rows.get(scope, at) - at).total_seconds() for scope in scopes}
        messages, waits = grant(limits, since)
        if messages:
            for scope, wait in waits.items():
                await _set(session, scope, at + timedelta(seconds=wait))
        reservation = Reservation(messages, limits, waits)
    return reservation


@asynccontextmanager
async def _briefly(database: Database) -> AsyncIterator[AsyncSession]:
    """A transaction that neither waits nor lasts long; what it would have to wait for, it leaves undone."""
    try:
        async with database.transaction() as session:
            if dialect_of(session) == "postgresql":
                await session.execute(_BOUNDED)
            yield session
    except DBAPIError as error:
        if not waited_too_long(error):
            raise


async def _locked(session: AsyncSession, scopes: Mapping[int, float]) -> dict[int, datetime]:
    """When the next message of each scope that has a row may go out."""
    these = (
        select(col(Rate.scope), col(Rate.next_at))
        .where(col(Rate.scope).in_(scopes))
        .order_by(func.abs(col(Rate.scope)), col(Rate.scope).desc())
        .with_for_update()
    )
    return dict((await session.execute(these)).all())


async def _make(session: AsyncSession, scopes: Sequence[int]) -> None:
    """Rows for these scopes, due now."""
    make = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    at = await now(session)
    rows = [{"scope": scope, "next_at": at} for scope in scopes]
    await session.execute(make(Rate).values(rows).on_conflict_do_nothing())


async def give_back(database: Database, reservation: Reservation, unused: int) -> None:
    """Returns what a slice reserved for targets that turned out to be skipped."""
    if unused <= 0:
        return
    async with _briefly(database) as session:
        limits = reservation.limits.by_scope
        for scope, next_at in (await _locked(session, limits)).items():
            await _set(session, scope, next_at - timedelta(seconds=unused / limits[scope]))


async def _set(session: AsyncSession, scope: int, next_at: datetime) -> None:
    await session.execute(
        update(Rate)
        .where(col(Rate.scope) == scope)
        .values(next_at=next_at)
        .execution_options(synchronize_session=False)
    )

"""A request that is sent twice is done once, and answered twice.

A mutation that comes with an `Idempotency-Key` runs in steps, each a transaction of its own:

1. **Claim.** A row named for the key says which attempt executes the request, and until when it holds the
   claim; while it lives, it renews that. Who finds a claim that holds waits for its answer.
2. **Change.** Each mutation field has its own transaction, as without a key. Before it commits, `note` adds
   the field's outcome (its payload, with ids for objects) to the row. So change and outcome commit together,
   or neither does.
3. **Answer.** The whole response is stored, and only then sent: nobody has seen an answer that a repeat
   could not give.

An attempt that dies leaves a claim which runs out. The repeat takes it over: fields with an outcome are not
executed, their payloads are built of it, with the objects as they are now; all other fields committed
nothing, and are executed. An attempt that was only slow finds, in `note`, that the claim is another's, and
rolls back. `note` is the last statement before the commit and locks the row: who takes over waits for a
commit that is under way (even of a connection that broke) and then sees its outcome. So at every instant one
attempt can commit, and nothing is committed twice.

What was refused is an outcome too, and is noted with the next commit. After a fault the claim ends without an
answer: the repeat goes on as after a death.

All of it is forgotten 24 hours after the first request.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, now
from app.errors import Conflict
from app.idempotency import queries
from app.idempotency.models import IdempotencyKey
from app.ids import new_uuid

KEPT = timedelta(hours=24)
LEASE = timedelta(seconds=10)  # how long a repeat may have to wait for an attempt that died
PRUNED_AT_ONCE = 500


class ClaimLost(Conflict):
    """The claim ran out and a repeat took it over: what this attempt has not committed, that one does."""


@dataclass(frozen=True)
class Claimed:
    """The request is to be executed, except for what `outcomes` say that earlier attempts committed."""

    claim: str
    outcomes: str = ""


@dataclass(frozen=True)
class Answered:
    """The request was executed; this is its sealed answer."""

    response: bytes


@dataclass(frozen=True)
class Busy:
    """Another attempt executes the request."""


async def claim(session: AsyncSession, name: str, request_hash: str) -> Claimed | Answered | Busy:
    """Who executes this request. Raises CONFLICT if the key was used for another one."""
    at = await now(session)
    fresh = IdempotencyKey(
        name=name, request_hash=request_hash, claim=new_uuid(), leased_until=at + LEASE, created_at=at
    )
    if await queries.insert(session, fresh):
        return Claimed(fresh.claim)
    row = await queries.locked(session, name)
    if row is None:  # pruned this moment: whoever looks again finds the key free
        return Busy()
    held = row.response is None and row.leased_until > at
    if row.created_at <= at - KEPT and not held:
        return await _take(session, row, fresh.model_dump(exclude={"name"}))
    if row.request_hash != request_hash:
        raise Conflict(
            "This Idempotency-Key was used for another request. Use a new key for each request, and repeat a "
            "request without changing it."
        )
    if row.response is not None:
        return Answered(row.response)
    return Busy() if held else await _take(session, row, fresh.model_dump(include={"claim", "leased_until"}))


async def _take(session: AsyncSession, row: IdempotencyKey, changes: dict[str, object]) -> Claimed:
    for field, value in changes.items():
        setattr(row, field, value)
    await session.flush()
    return Claimed(row.claim, row.outcomes)


async def busy(session: AsyncSession, name: str) -> bool:
    """Whether it is too early to ask `claim` again."""
    return await queries.busy(session, name, await now(session))


async def note(session: AsyncSession, name: str, claim: str, outcomes: str) -> None:
    """Adds outcomes, as the last statement before the commit that makes them true. Raises ClaimLost."""
    _hold(await queries.append_outcomes(session, name, claim, outcomes))


async def renew(session: AsyncSession, name: str, claim: str) -> None:
    """Prolongs the lease of whoever is not done yet. Raises ClaimLost."""
    _hold(await queries.extend(session, name, claim, await now(session) + LEASE))


async def answer(session: AsyncSession, name: str, claim: str, response: bytes) -> None:
    """Stores the answer for every repeat. Raises ClaimLost."""
    _hold(await queries.answer(session, name, claim, response, await now(session)))


async def release(session: AsyncSession, name: str, claim: str) -> None:
    """Ends the claim without an answer: a repeat goes on where this attempt ended. Raises ClaimLost."""
    _hold(await queries.extend(session, name, claim, await now(session)))


async def forget(session: AsyncSession, name: str, claim: str) -> None:
    """Frees the key of a request that was not executed at all. Raises ClaimLost."""
    _hold(await queries.remove(session, name, claim))


def _hold(holds: bool) -> None:
    if not holds:
        raise ClaimLost(" ".join((ClaimLost.__doc__ or "").split()))


async def prune(database: Database) -> None:
    """Deletes keys older than 24 hours, in chunks that no writer has to wait for."""
    deleted = PRUNED_AT_ONCE
    while deleted == PRUNED_AT_ONCE:
        async with database.transaction() as session:
            at = await now(session)
            deleted = await queries.delete_created_before(session, at - KEPT, at, PRUNED_AT_ONCE)

"""One execution of a request that may be repeated: it holds the claim, and commits outcomes with changes."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, run_after_commit
from app.idempotency import service
from app.idempotency.sealing import Part, SealedRow
from app.idempotency.service import Claimed, ClaimLost

log = structlog.get_logger(__name__)

SECONDS_BETWEEN_RENEWALS = 3.0
MAX_RESPONSE_BYTES = 1_000_000


class Attempt:
    """What was committed under a key so far, by this execution and by those before it.

    Raises Broken if what those before it stored was changed by somebody.
    """

    def __init__(self, database: Database, row: SealedRow, claimed: Claimed) -> None:
        self._database = database
        self._row = row
        self._claim = claimed.claim
        self._outcomes: dict[str, Any] = {}
        self._refusals: dict[str, Any] = {}
        self._restored = self._executed = False
        for line in claimed.outcomes.splitlines():
            self._outcomes |= orjson.loads(row.open(base64.b64decode(line), Part.OUTCOME))

    def outcome(self, field: str) -> Any:
        """What came of a mutation field in an earlier execution, None if nothing did: then it is executed."""
        outcome = self._outcomes.get(field)
        self._restored |= outcome is not None
        self._executed |= outcome is None
        return outcome

    @property
    def repeated(self) -> bool:
        """Whether every field that was asked for was answered of an earlier execution."""
        return self._restored and not self._executed

    def refuse(self, field: str, outcome: Any) -> None:
        """Has an outcome that changed nothing written with the next commit."""
        self._refusals[field] = outcome

    async def commit(self, session: AsyncSession, outcome: dict[str, Any]) -> None:
        """Commits a change with what came of its field, if that is known. Raises ClaimLost."""
        await self._note(session, outcome)
        await session.commit()
        self._refusals = {}

    async def _note(self, session: AsyncSession, outcome: dict[str, Any]) -> None:
        outcomes, line = {**self._refusals, **outcome}, b""
        if outcomes:
            line = base64.b64encode(self._row.close(orjson.dumps(outcomes), Part.OUTCOME)) + b"\n"
        await service.note(session, self._row.name, self._claim, line.decode())

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Renews the lease for as long as the block takes."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_RENEWALS)
            try:
                async with self._database.transaction() as session:
                    await service.renew(session, self._row.name, self._claim)
            except ClaimLost:
                return
            except Exception as error:  # if it goes on like this the claim is lost, and the commit finds out
                log.warning("a claim could not be renewed", error=str(error))

    async def answer(self, response: bytes) -> None:
        """Stores the answer. One of over a megabyte is not kept: its repeat is built of the outcomes, with
        objects as they are then. Raises ClaimLost."""
        if len(response) > MAX_RESPONSE_BYTES:
            await self.release()
            return
        sealed = self._row.close(response, Part.ANSWER)
        async with self._database.transaction() as session:
            await service.answer(session, self._row.name, self._claim, sealed)

    async def release(self) -> None:
        """Leaves what is not committed to a repeat. Raises ClaimLost."""
        async with self._database.transaction() as session:
            await self._note(session, {})
            await service.release(session, self._row.name, self._claim)

    async def forget(self) -> None:
        """Frees the key of a request that was not executed, now or earlier. Raises ClaimLost."""
        if self._outcomes:
            await self.release()
            return
        async with self._database.transaction() as session:
            await service.forget(session, self._row.name, self._claim)


class HeldDatabase(Database):
    """The database as one mutation field sees it. What it has changed stays open behind the block of its
    transaction until `settle`, so that its outcome, which is known only then, commits with it.

    Only one transaction is open at a time: beginning another one commits the first. So of several the last
    has to be the one that makes the outcome true; those before it have to be harmless when repeated.
    """

    def __init__(self, database: Database, attempt: Attempt) -> None:
        vars(self).update(vars(database))
        self._attempt = attempt
        self._session: AsyncSession | None = None
        self._open = AsyncExitStack()
        self._settled = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits after its block; any exception rolls everything back."""
        if self._settled:
            async with super().transaction() as session:
                yield session
            return
        await self._commit({})
        async with AsyncExitStack() as opening:
            session = await opening.enter_async_context(self.opened())
            yield session
            self._session, self._open = session, opening.pop_all()

    async def settle(self, field: str, outcome: Any, *, refused: bool) -> None:
        """Commits what is open with the outcome; rolls it back if that is a refusal. Raises ClaimLost."""
        self._settled = True
        if refused:
            await self.close()
        if self._session is None:
            self._attempt.refuse(field, outcome)
        else:
            await self._commit({field: outcome})

    async def _commit(self, outcome: dict[str, Any]) -> None:
        session = self._session
        if session is None:
            return
        try:
            await self._attempt.commit(session, outcome)
        finally:
            await self.close()
        await run_after_commit(session)

    async def close(self) -> None:
        """Rolls back what is open, if anything."""
        self._session = None
        await self._open.aclose()

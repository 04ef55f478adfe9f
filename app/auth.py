"""Who asks: an API key becomes a viewer with a role."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from app.database import Database
from app.errors import LimitExceeded
from app.keys import queries
from app.keys.guessing import Guesses
from app.keys.roles import Role
from app.keys.secrets import hash_of

log = structlog.get_logger(__name__)

V = TypeVar("V")

SECONDS_CACHED = 4.0
MAX_CACHED = 10_000
SECONDS_BETWEEN_NOTES = 60.0
MAX_KEY_LENGTH = 200


@dataclass(frozen=True)
class Viewer:
    """The holder of a valid key."""

    key_id: str
    name: str
    role: Role


class TooManyWrongKeys(LimitExceeded):
    """An address was wrong too often; `retry_after` is in seconds."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(
            f"Too many wrong keys came from this address; {limit:,} a minute are allowed. Try again in "
            f"{retry_after} s.",
            details={"limit": limit, "given": limit + 1, "retryAfterSeconds": retry_after},
        )
        self.retry_after = retry_after


class Authenticator:
    """Knows the viewer of a key. Valid keys are remembered for four seconds, so that a revoked one is out
    within ten; that a key was used is written at most once a minute, and no request waits for it."""

    def __init__(self, database: Database, max_wrong_keys_per_minute: int) -> None:
        self._database = database
        self._guesses = Guesses(max_wrong_keys_per_minute)
        self._most = max_wrong_keys_per_minute
        self._known: OrderedDict[str, tuple[float, Viewer]] = OrderedDict()
        self._noted: OrderedDict[str, float] = OrderedDict()
        self._notes: set[asyncio.Task[None]] = set()

    async def viewer(self, authorization: str | None, address: str) -> Viewer | None:
        """The viewer of an `Authorization` header, `Bearer KEY`, that came from an address; None without a
        valid key. Raises TooManyWrongKeys without having looked at it.

        Secrets are never compared, only looked up by their SHA-256: the time it takes tells nothing of them.
        """
        secret = secret_in(authorization)
        if secret is None:
            return None
        secret_hash = hash_of(secret)
        if self._guesses.knows(address, secret_hash):
            return await self._found(address, secret_hash)
        async with self._guesses.turn(address):
            seconds = self._guesses.wait(address, secret_hash)
            if seconds:
                raise TooManyWrongKeys(self._most, math.ceil(seconds))
            return await self._found(address, secret_hash)

    async def _found(self, address: str, secret_hash: str) -> Viewer | None:
        viewer = self._remembered(secret_hash) or await self._look_up(secret_hash)
        if viewer is None:
            self._guesses.wrong(address, secret_hash)
        else:
            self._guesses.right(address, secret_hash)
            self._note_use(viewer.key_id)
        return viewer

    async def still_valid(self, key_ids: Collection[str]) -> set[str]:
        """Those of `key_ids` that are not revoked, as the database has it now."""
        async with self._database.read() as session:
            return await queries.valid_ids(session, key_ids)

    def _remembered(self, secret_hash: str) -> Viewer | None:
        until, viewer = self._known.get(secret_hash, (0.0, None))
        return viewer if time.monotonic() < until else None

    async def _look_up(self, secret_hash: str) -> Viewer | None:
        asked = time.monotonic()
        async with self._database.read() as session:
            key = await queries.by_hash(session, secret_hash)
        if key is None:
            self._known.pop(secret_hash, None)
            return None
        viewer = Viewer(key.key_id, key.name, Role(key.role))
        _keep(self._known, secret_hash, (asked + SECONDS_CACHED, viewer))
        return viewer

    def _note_use(self, key_id: str) -> None:
        if time.monotonic() < self._noted.get(key_id, 0.0):
            return
        _keep(self._noted, key_id, time.monotonic() + SECONDS_BETWEEN_NOTES)
        note = asyncio.create_task(self._write_use(key_id))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write_use(self, key_id: str) -> None:
        try:
            async with self._database.transaction() as session:
                await queries.note_use(session, [key_id], datetime.now(UTC))
        except Exception as error:  # nobody waits for it, and the next use notes again
            log.warning("use of a key was not noted", key_id=key_id, error=str(error))

    async def close(self) -> None:
        """Gives up what is still to be noted."""
        for note in tuple(self._notes):
            note.cancel()
        await asyncio.gather(*self._notes, return_exceptions=True)


def secret_in(authorization: object) -> str | None:
    """The key in `Bearer KEY`; None for anything else."""
    if not isinstance(authorization, str):
        return None
    scheme, _, secret = authorization.strip().partition(" ")
    secret = secret.strip()
    return secret if scheme.lower() == "bearer" and 0 < len(secret) <= MAX_KEY_LENGTH else None


def _keep(kept: OrderedDict[str, V], key: str, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MAX_CACHED:
        kept.popitem(last=False)

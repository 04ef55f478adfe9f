"""Changes of users."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app import validation
from app.database import now
from app.errors import InvalidInput
from app.users import queries
from app.users.inputs import DEFAULT_ROLE, checked
from app.users.models import User
from app.validation import Problems

MAX_UPSERTED = 1_000
MAX_DELETED = 1_000


async def upsert_users(session: AsyncSession, inputs: Sequence[Mapping[str, Any]]) -> list[User]:
    """Creates or changes 1 to 1,000 users, all or none, and gives them back in the order of `inputs`.

    An input has `user_id` and any of the fields of `inputs.CHECKS`; what it omits stays as it is, None
    clears. A deleted user comes back as a new one. Every problem is raised at once, under `users`.
    """
    problems, given = Problems(), list[dict[str, Any]]()
    with problems.at("users"):
        validation.between(inputs, most=MAX_UPSERTED)
        given = _all_checked(inputs)
    problems.check()
    rows = await store(session, given)
    return [User(**rows[fields["user_id"]]) for fields in given]


def _all_checked(inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    problems, seen, given = Problems(), dict[str, int](), list[dict[str, Any]]()
    for position, fields in enumerate(inputs):
        with problems.at(position):
            given.append(kept := checked(fields))
            first = seen.setdefault(kept["user_id"], position)
            if first != position:
                raise InvalidInput(f"is in this call already, at position {first}", path=("user_id",))
    problems.check()
    return given


async def store(session: AsyncSession, given: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Writes checked users with distinct ids and gives their whole rows by id.

    All rows are created or locked in one pass in the order of their ids: whoever waits for a row holds
    none behind it, so that concurrent calls never wait for each other in a circle.
    """
    at = await now(session)
    by_id = {fields["user_id"]: fields for fields in sorted(given, key=lambda each: str(each["user_id"]))}
    fresh = dict[str, dict[str, Any]]()
    if not await queries.all_exist(session, list(by_id)):
        fresh = {user_id: _merged(_fresh(user_id, at), fields, at) for user_id, fields in by_id.items()}
        if await queries.create_or_lock(session, list(fresh.values())):
            return fresh
    found = await queries.locked(session, list(by_id))
    rows = {user_id: _merged(row, by_id[user_id], at) for user_id, row in found.items()}
    await queries.overwrite(
        session, [row for user_id, row in rows.items() if fresh.get(user_id) != found[user_id]]
    )
    return rows


def _fresh(user_id: str, at: datetime) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(queries.CHANGED)
    return row | {"id": user_id, "role": DEFAULT_ROLE, "teams": [], "custom": {}, "created_at": at}


def _merged(row: dict[str, Any], fields: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """The row with what is given; a tombstone begins anew."""
    if row["deleted_at"] is not None:
        row = _fresh(row["id"], at)
    merged = {**row, **fields, "updated_at": at}
    del merged["user_id"]
    if (deactivated := merged.pop("deactivated", None)) is not None:
        merged["deactivated_at"] = (row["deactivated_at"] or at) if deactivated else None
    return merged


async def bury(session: AsyncSession, user_ids: Sequence[str], *, erase_messages: bool) -> list[str]:
    """Deletes those of 1 to 1,000 users who live, and gives their ids. A tombstone stays: the id and
    `deleted_at`. Ids that nobody has are no error.

    Notes that the users' memberships, and with `erase_messages` what was sent to them, are still to be
    cleared away. Who was deleted before can be asked to be erased still, and then is among the ids. Until
    the commit nobody can make them members anywhere.
    """
    problems, wanted = Problems(), list[str]()
    with problems.at("user_ids"):
        validation.between(user_ids, most=MAX_DELETED)
        wanted = validation.distinct(user_ids, validation.identifier)
    problems.check()
    rows = await queries.locked(session, wanted)
    living = [user_id for user_id, row in rows.items() if row["deleted_at"] is None]
    done = list(rows) if erase_messages else living
    at = await now(session)
    if living:
        graves = [_fresh(user_id, at) | {"updated_at": at, "deleted_at": at} for user_id in living]
        await queries.overwrite(session, graves)
    if done:
        await queries.ask_erasure(session, done, at, erase_messages)
    return done

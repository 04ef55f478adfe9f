"""Changes of segments."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, now
from app.errors import AlreadyExists, Conflict, NotFound
from app.ids import new_number, new_uuid
from app.segments import queries
from app.segments.inputs import checked_changes, checked_new, checked_targets
from app.segments.kinds import SegmentKind, SizeState
from app.segments.models import Segment

COUNT_WIDTH = 20_000
COUNT_AGE = timedelta(minutes=5)
PRUNED_AT_ONCE = 5_000

Naming = Callable[[AsyncSession, int], Awaitable[Sequence[str]]]


async def create(session: AsyncSession, given: Mapping[str, Any]) -> Segment:
    """A new segment of `segment_id`, `type`, `name`, `description`, `filter`, `all_users` and
    `all_sender_channels`, of which only `type` is required. Its kind follows from the last three.

    Raises every problem of the input at once, or ALREADY_EXISTS.
    """
    fields = checked_new(given)
    segment_id = fields.pop("segment_id", None) or new_uuid()
    if await queries.by_id(session, segment_id) is not None:
        raise _taken(segment_id)
    at = await now(session)
    segment = Segment(
        segment_no=new_number(),
        segment_id=segment_id,
        created_at=at,
        updated_at=at,
        size_state=_first_size_state(fields["kind"]),
        **fields,
    )
    if segment.kind == SegmentKind.MANUAL:
        segment.size, segment.size_as_of = 0, at
    session.add(segment)
    try:
        await session.flush()
    except IntegrityError as error:  # somebody else took the id just now
        raise _taken(segment_id) from error
    return segment


def _first_size_state(kind: SegmentKind) -> SizeState:
    if kind in queries.COUNTED:
        return SizeState.COMPUTING
    return SizeState.READY if kind is SegmentKind.MANUAL else SizeState.NEVER


def _taken(segment_id: str) -> AlreadyExists:
    return AlreadyExists(f"a segment {segment_id} exists already", path=("segment_id",))


async def update(session: AsyncSession, segment_id: str, changes: Mapping[str, Any]) -> Segment:
    """Changes `name`, `description` or `filter`, whichever is given. Another filter is counted anew."""
    segment = await _locked(session, segment_id)
    fields = checked_changes(segment.type, changes)
    if "filter" in fields and segment.kind != SegmentKind.FILTER:
        raise Conflict("this segment has no filter, and its kind is fixed", path=("filter",))
    if fields.get("filter", segment.filter) != segment.filter:
        segment.size_state = SizeState.COMPUTING
    for name, value in fields.items():
        setattr(segment, name, value)
    segment.updated_at = await now(session)
    await session.flush()
    return segment


async def delete(session: AsyncSession, segment_id: str, naming: Naming) -> Segment:
    """Deletes a segment that no campaign still needs; `naming` tells the ids of those that do.

    The row is locked first, so that a campaign which names it at the same time is either seen here or finds
    it deleted.
    """
    segment = await queries.locked(session, segment_id, to_delete=True)
    if segment is None:
        raise _unknown(segment_id)
    if campaign_ids := list(await naming(session, segment.segment_no)):
        raise Conflict(
            f"campaigns that are not over name this segment: {', '.join(campaign_ids)}; stop or delete them,"
            " or name another segment in them",
            path=("segment_id",),
            details={"campaignIds": campaign_ids},
        )
    segment.deleted_at = segment.updated_at = await now(session)
    await session.flush()
    return segment


async def add_targets(session: AsyncSession, segment_id: str, target_ids: Sequence[str]) -> Segment:
    """Adds 1 to 10,000 ids to a manual list; those it has already are no error."""
    wanted = checked_targets(target_ids)
    segment = await _locked_list(session, segment_id)
    at = await now(session)
    added = await queries.insert_targets(session, segment.segment_no, wanted, at)
    return await _resized(session, segment, added)


async def remove_targets(session: AsyncSession, segment_id: str, target_ids: Sequence[str]) -> Segment:
    """Takes 1 to 10,000 ids out of a manual list; those it does not have are no error."""
    wanted = checked_targets(target_ids)
    segment = await _locked_list(session, segment_id)
    removed = await queries.delete_targets(session, segment.segment_no, wanted)
    return await _resized(session, segment, -removed)


async def _resized(session: AsyncSession, segment: Segment, more: int) -> Segment:
    segment.size_as_of = await now(session)
    if more:
        segment.size = (segment.size or 0) + more
        segment.updated_at = segment.size_as_of
    await session.flush()
    return segment


async def _locked_list(session: AsyncSession, segment_id: str) -> Segment:
    segment = await _locked(session, segment_id)
    if segment.kind != SegmentKind.MANUAL:
        sentence = "only a manual list has targets to add and remove; this segment finds its own"
        raise Conflict(sentence, path=("segment_id",))
    return segment


async def _locked(session: AsyncSession, segment_id: str) -> Segment:
    segment = await queries.locked(session, segment_id)
    if segment is None:
        raise _unknown(segment_id)
    return segment


def _unknown(segment_id: str) -> NotFound:
    return NotFound(f"there is no segment {segment_id}", path=("segment_id",))


async def recount_stale(session: AsyncSession, segment_nos: Sequence[int]) -> bool:
    """Asks for new counts where the last is over five minutes old; says whether any was asked for."""
    return await queries.ask_recount(session, segment_nos, await now(session) - COUNT_AGE) > 0


async def count_size(database: Database, segment_no: int) -> None:
    """Counts a COMPUTING segment in short reads and stores the size, unless its filter changed meanwhile:
    then it stays COMPUTING and is counted again."""
    async with database.read() as session:
        segment = (await queries.by_numbers(session, [segment_no])).get(segment_no)
    if segment is None or segment.size_state != SizeState.COMPUTING:
        return
    counted = await count_members(database, [queries.definition(segment)])
    async with database.transaction() as session:
        current = await queries.locked(session, segment.segment_id)
        if current is None or current.segment_no != segment_no or current.filter != segment.filter:
            return
        current.size, current.size_as_of = counted, await now(session)
        current.size_state = SizeState.READY


async def count_members(
    database: Database,
    definitions: Sequence[Mapping[str, Any]],
    *,
    sender_id: str | None = None,
    after: str | None = None,
) -> int:
    """How many targets behind `after` segments of these definitions have together now, each counted once, in
    short reads one after the other. `sender_id` only counts for ALL_SENDER_CHANNELS."""
    total, more = 0, True
    while more:
        async with database.read() as session:
            found, after = await queries.count_range(session, definitions, after, COUNT_WIDTH, sender_id)
        total += found
        more = after is not None
    return total


async def prune(database: Database) -> int:
    """Clears away a chunk of what deleted segments left behind; says how many rows, 0 when all is clear."""
    async with database.transaction() as session:
        return await queries.prune_targets(session, PRUNED_AT_ONCE)

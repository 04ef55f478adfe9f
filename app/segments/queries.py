"""Every statement about segments; first of all: who is in one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    cast,
    delete,
    exists,
    func,
    null,
    select,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.database import DialectName, UtcDateTime, dialect_of
from app.filters.language import parse
from app.keyset import rows_of_each
from app.segments.filtering import COLLECTIONS
from app.segments.kinds import SegmentKind, SegmentType, SizeState
from app.segments.models import Segment, SegmentTarget
from app.users.models import User

COUNTED = (SegmentKind.FILTER, SegmentKind.ALL_USERS)
TargetKey = tuple[int, str, str | None]  # segment_no, target id, and the sender where that decides
AT_ONCE = 5_000  # ids of one statement; SQLite takes at most 32,766 bound values


def definition(segment: Segment) -> dict[str, Any]:
    """What `members` needs to know of a segment."""
    return {
        "type": segment.type,
        "kind": segment.kind,
        "filter": segment.filter,
        "segment_no": segment.segment_no,
    }


def members_select(
    dialect: DialectName,
    definition: Mapping[str, Any],
    *,
    sender_id: str,
    after: str | None = None,
    last: str | None = None,
    limit: int | None = None,
) -> Select[Any]:
    """The targets of a segment of this definition: a column `target_id`, distinct, ascending, behind `after`,
    up to `last`.

    `definition` is `{"type", "kind", "filter", "segment_no"}`; `sender_id` only counts for
    ALL_SENDER_CHANNELS. Deleted users match no filter and are not among all users; deactivated ones are.
    """
    target, statement = members(dialect, definition, sender_id)
    return _between(target, statement, after, last).order_by(target).limit(limit)


def members(
    dialect: DialectName, definition: Mapping[str, Any], sender_id: str | None = None
) -> tuple[SQLColumnExpression[str], Select[Any]]:
    """The column of target ids and the statement that selects it, unordered, as `target_id`."""
    match definition["kind"]:
        case SegmentKind.MANUAL:
            target = col(SegmentTarget.target_id)
            return target, _ids(target).where(col(SegmentTarget.segment_no) == definition["segment_no"])
        case SegmentKind.ALL_SENDER_CHANNELS:
            target = col(Member.cid)
            return target, _ids(target).where(col(Member.user_id) == sender_id)
        case _ if definition["type"] == SegmentType.CHANNEL:
            target = col(Channel.cid)
            return target, _ids(target).where(_matches(dialect, definition))
        case _:
            target = col(User.id)
            return target, _ids(target).where(col(User.deleted_at).is_(None), _matches(dialect, definition))


def _ids(target: SQLColumnExpression[str]) -> Select[Any]:
    return select(target.label("target_id"))


def _matches(dialect: DialectName, definition: Mapping[str, Any]) -> ColumnElement[bool]:
    return parse(COLLECTIONS[definition["type"]], definition["filter"] or {}).where(dialect)


async def contains(
    session: AsyncSession, definition: Mapping[str, Any], target_id: str, sender_id: str | None = None
) -> bool:
    """Whether a segment of this definition has the target now."""
    target, statement = members(dialect_of(session), definition, sender_id)
    return bool((await session.execute(select(exists(statement.where(target == target_id))))).scalar_one())


def targets_of(
    dialect: DialectName, segment: Segment, sender_id: str | None
) -> tuple[SQLColumnExpression[str], Select[Any]]:
    """The column of target ids and the statement that selects these and since when each is listed; unordered.
    Only a manual list knows since when."""
    target, statement = members(dialect, definition(segment), sender_id)
    listed = segment.kind == SegmentKind.MANUAL
    since = col(SegmentTarget.created_at) if listed else cast(null(), UtcDateTime)
    return target, statement.add_columns(since.label("since"))


async def targets_by_keys(
    session: AsyncSession, keys: Sequence[TargetKey]
) -> Mapping[TargetKey, tuple[Segment, datetime | None]]:
    """Those of the keys that are targets now, each with its segment and since when it is listed."""
    groups: defaultdict[tuple[int, str | None], list[str]] = defaultdict(list)
    for segment_no, target_id, sender_id in keys:
        groups[segment_no, sender_id].append(target_id)
    segments = await by_numbers(session, sorted({segment_no for segment_no, _ in groups}))
    statements: dict[tuple[int, str | None], Select[Any]] = {}
    for (segment_no, sender_id), target_ids in groups.items():
        segment = segments.get(segment_no)
        if segment is not None and segment.deleted_at is None:
            target, statement = targets_of(dialect_of(session), segment, sender_id)
            statements[segment_no, sender_id] = statement.where(target.in_(target_ids))
    return {
        (segment_no, target_id, sender_id): (segments[segment_no], since)
        for (segment_no, sender_id), rows in (await rows_of_each(session, statements)).items()
        for target_id, since in rows
    }


async def count_range(
    session: AsyncSession,
    definitions: Sequence[Mapping[str, Any]],
    after: str | None,
    width: int,
    sender_id: str | None = None,
) -> tuple[int, str | None]:
    """How many targets segments of these definitions have together in a range of ids behind `after`, and
    where it ends; None when there are no more. It spans at most `width` ids of each segment's collection, so
    a count of any size is many short reads."""
    dialect = dialect_of(session)
    last = await range_end(session, definitions, after, width, sender_id)
    arms = []
    for each in definitions:
        target, statement = members(dialect, each, sender_id)
        arms.append(_between(target, statement, after, last))
    together = (union(*arms) if len(arms) > 1 else arms[0]).subquery()
    counted = await session.execute(select(func.count()).select_from(together))
    return int(counted.scalar_one()), last


async def range_end(
    session: AsyncSession,
    definitions: Sequence[Mapping[str, Any]],
    after: str | None,
    width: int,
    sender_id: str | None = None,
) -> str | None:
    """Where a range of ids behind `after` ends that spans at most `width` ids of each segment's collection;
    None when there are no more."""
    ends = [await _range_end(session, each, after, width, sender_id) for each in definitions]
    return min((end for end in ends if end is not None), default=None)


async def _range_end(
    session: AsyncSession, definition: Mapping[str, Any], after: str | None, width: int, sender_id: str | None
) -> str | None:
    """The last of the next `width` ids that a filter looks at, or a list holds; None if there are fewer."""
    target, statement = members(dialect_of(session), definition, sender_id)
    listed = definition["kind"] in (SegmentKind.MANUAL, SegmentKind.ALL_SENDER_CHANNELS)
    ids = _between(target, statement if listed else select(target), after, None)
    end = await session.execute(ids.order_by(target).offset(width - 1).limit(1))
    last: str | None = end.scalar_one_or_none()
    return last


def _between(
    target: SQLColumnExpression[str], statement: Select[Any], after: str | None, last: str | None
) -> Select[Any]:
    if after is not None:
        statement = statement.where(target > after)
    return statement if last is None else statement.where(target <= last)


def living() -> Select[Any]:
    """Segments that are not deleted; unordered."""
    return select(Segment).where(col(Segment.deleted_at).is_(None))


async def by_id(session: AsyncSession, segment_id: str) -> Segment | None:
    """The segment that lives under this id."""
    found = await session.execute(living().where(col(Segment.segment_id) == segment_id))
    segment: Segment | None = found.scalar_one_or_none()
    return segment


async def by_numbers(session: AsyncSession, segment_nos: Sequence[int]) -> Mapping[int, Segment]:
    """The segments of these numbers, deleted ones too."""
    found = await session.execute(select(Segment).where(col(Segment.segment_no).in_(segment_nos)))
    return {segment.segment_no: segment for segment in found.scalars()}


async def locked(session: AsyncSession, segment_id: str, *, to_delete: bool = False) -> Segment | None:
    """The living segment, its row locked. Only `to_delete` waits for campaigns that are about to name it."""
    found = await session.execute(
        living()
        .where(col(Segment.segment_id) == segment_id)
        .with_for_update(key_share=not to_delete)
        .execution_options(populate_existing=True)
    )
    segment: Segment | None = found.scalar_one_or_none()
    return segment


# The segments whose size is to be counted.
COMPUTING = select(col(Segment.segment_no)).where(
    col(Segment.size_state) == SizeState.COMPUTING.value, col(Segment.deleted_at).is_(None)
)


async def computing(session: AsyncSession) -> list[int]:
    """The segments whose size is to be counted."""
    return list((await session.execute(COMPUTING)).scalars())


async def ask_recount(session: AsyncSession, segment_nos: Sequence[int], counted_before: datetime) -> int:
    """Marks those of the segments whose count is older; says how many these are."""
    marked: Any = await session.execute(
        update(Segment)
        .where(
            col(Segment.segment_no).in_(segment_nos),
            col(Segment.kind).in_(COUNTED),
            col(Segment.size_state) == SizeState.READY.value,
            col(Segment.size_as_of) < counted_before,
        )
        .values(size_state=SizeState.COMPUTING.value)
        .execution_options(synchronize_session=False)
    )
    return int(marked.rowcount)


async def insert_targets(
    session: AsyncSession, segment_no: int, target_ids: Sequence[str], at: datetime
) -> int:
    """Adds to a manual list what it lacks; says how many these are."""
    dialect = postgresql if dialect_of(session) == "postgresql" else sqlite
    statement = dialect.insert(SegmentTarget).on_conflict_do_nothing()
    inserted: Any = await (await session.connection()).execute(
        statement.execution_options(preserve_rowcount=True),
        [{"segment_no": segment_no, "target_id": each, "created_at": at} for each in sorted(target_ids)],
    )
    return int(inserted.rowcount)


async def delete_targets(session: AsyncSession, segment_no: int, target_ids: Sequence[str]) -> int:
    """Takes out of a manual list what it has; says how many these are."""
    deleted = 0
    for start in range(0, len(target_ids), AT_ONCE):
        result: Any = await session.execute(
            delete(SegmentTarget)
            .where(
                col(SegmentTarget.segment_no) == segment_no,
                col(SegmentTarget.target_id).in_(target_ids[start : start + AT_ONCE]),
            )
            .execution_options(synchronize_session=False)
        )
        deleted += result.rowcount
    return deleted


async def prune_targets(session: AsyncSession, limit: int) -> int:
    """Clears away up to `limit` targets of deleted segments; says how many these were."""
    target, segment = col(SegmentTarget.target_id), col(SegmentTarget.segment_no)
    deleted_segment = (
        select(col(Segment.segment_no))
        .where(
            col(Segment.deleted_at).is_not(None),
            exists().where(segment == col(Segment.segment_no)),
        )
        .limit(1)
    )
    segment_no = (await session.execute(deleted_segment)).scalar_one_or_none()
    if segment_no is None:
        return 0
    found = await session.execute(select(target).where(segment == segment_no).order_by(target).limit(limit))
    return await delete_targets(session, segment_no, list(found.scalars()))

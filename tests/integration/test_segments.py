"""Segments: kinds that never change, sizes that are exact, targets by the filter now, deletion that waits."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, union, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel, Member
from app.database import Database, dialect_of, now
from app.errors import AppError, Conflict, Invalid, InvalidInput, LimitExceeded, NotFound
from app.segments import queries, service
from app.segments.models import Segment, SegmentTarget
from app.users.models import User
from app.users.service import upsert_users


async def nobody(session: AsyncSession, segment_no: int) -> Sequence[str]:
    return []


async def create(database: Database, **given: Any) -> Segment:
    async with database.transaction() as session:
        return await service.create(session, {"type": "USER", **given})


async def change(database: Database, segment_id: str, **changes: Any) -> Segment:
    async with database.transaction() as session:
        return await service.update(session, segment_id, changes)


async def add(database: Database, segment_id: str, *ids: str) -> Segment:
    async with database.transaction() as session:
        return await service.add_targets(session, segment_id, ids)


async def remove(database: Database, segment_id: str, *ids: str) -> Segment:
    async with database.transaction() as session:
        return await service.remove_targets(session, segment_id, ids)


async def read(database: Database, segment_id: str) -> Segment:
    async with database.read() as session:
        segment = await queries.by_id(session, segment_id)
    assert segment is not None
    return segment


async def users(database: Database, *inputs: Mapping[str, Any]) -> None:
    async with database.transaction() as session:
        await upsert_users(session, inputs)


async def targets(database: Database, segment: Segment, **page: Any) -> list[str]:
    async with database.read() as session:
        statement = queries.members_select(
            dialect_of(session), queries.definition(segment), **{"sender_id": "s", **page}
        )
        return list((await session.execute(statement)).scalars())


async def test_a_list_is_empty_at_first_and_exact_at_once(database: Database) -> None:
    made = await create(database, segment_id="vip", name="VIPs")
    assert (made.kind, made.size, made.size_state) == ("MANUAL", 0, "READY")
    assert (await add(database, "vip", "b", "a", "b")).size == 2
    assert (await add(database, "vip", "b", "c")).size == 3
    assert (await remove(database, "vip", "a", "nobody")).size == 2
    vip = await read(database, "vip")
    assert (vip.size, vip.size_state) == (2, "READY")
    assert await targets(database, vip) == ["b", "c"]
    assert await targets(database, vip, after="b") == ["c"]
    assert await targets(database, vip, limit=1) == ["b"]


async def test_a_lists_size_is_exact_when_many_write_at_once(database: Database) -> None:
    segment = await create(database, segment_id="vip")
    ids = [f"u{number}" for number in range(60)]
    await asyncio.gather(
        *(add(database, "vip", *ids[start : start + 30]) for start in range(0, 40, 10)),
        *(remove(database, "vip", *ids[start : start + 20][::-1]) for start in range(0, 40, 10)),
    )
    async with database.read() as session:
        counted = (await session.execute(select(func.count()).select_from(SegmentTarget))).scalar_one()
    assert (await read(database, "vip")).size == counted
    assert len(await targets(database, segment)) == counted


async def test_ten_thousand_targets_and_no_more(database: Database) -> None:
    await create(database, segment_id="vip")
    assert (await add(database, "vip", *map(str, range(10_000)))).size == 10_000
    assert (await remove(database, "vip", *map(str, range(10_000)))).size == 0
    with pytest.raises(LimitExceeded) as refused:
        await add(database, "vip", *map(str, range(10_001)))
    assert refused.value.path == ("target_ids",)
    assert refused.value.details == {"limit": 10_000, "given": 10_001}


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"filter": {}}, [("filter",)]),
        ({"filter": {"age": {"$x": 1}}}, [("filter", "age", "$x")]),
        ({"filter": {"a": 1}, "all_users": True}, [()]),
        ({"type": "CHANNEL", "all_users": True}, [("all_users",)]),
        ({"all_sender_channels": True}, [("all_sender_channels",)]),
        (
            {"type": "CHANNEL", "filter": {"members": {"$contains": "x"}}},
            [("filter", "members", "$contains")],
        ),
        ({"segment_id": "a b"}, [("segment_id",)]),
        (
            {"name": "x" * 129, "description": "x" * 257, "segment_id": ""},
            [("segment_id",), ("name",), ("description",)],
        ),
    ],
)
async def test_refused_at_creation(database: Database, given: dict[str, Any], paths: list[Any]) -> None:
    with pytest.raises((AppError, Invalid)) as refused:
        await create(database, **given)
    found = refused.value.errors if isinstance(refused.value, Invalid) else [refused.value]
    assert [error.path for error in found] == paths


async def test_an_empty_filter_says_what_to_use(database: Database) -> None:
    with pytest.raises(InvalidInput, match="use allUsers"):
        await create(database, filter={})


async def test_ids_are_taken_once_even_at_the_same_time(database: Database) -> None:
    results = await asyncio.gather(
        *(create(database, segment_id="same") for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists"] * 3 + ["Segment"]
    async with database.transaction() as session:
        await service.delete(session, "same", nobody)
    assert (await create(database, segment_id="same")).segment_id == "same"


async def test_the_kind_is_fixed(database: Database) -> None:
    await create(database, segment_id="list")
    await create(database, segment_id="filter", filter={"a": 1})
    with pytest.raises(Conflict):
        await change(database, "list", filter={"a": 1})
    with pytest.raises(InvalidInput):
        await change(database, "filter", filter=None)
    with pytest.raises(InvalidInput, match="use allUsers"):
        await change(database, "filter", filter={})
    with pytest.raises(InvalidInput):
        await change(database, "filter", name=None)
    with pytest.raises(Conflict):
        await add(database, "filter", "a")
    with pytest.raises(NotFound):
        await change(database, "nothing", name="x")
    changed = await change(database, "filter", name="N", description="D")
    assert (changed.name, changed.description, changed.filter) == ("N", "D", {"a": 1})


async def test_counting_a_filter(database: Database) -> None:
    await users(database, *({"user_id": f"u{n:02}", "custom": {"n": n}} for n in range(30)))
    segment = await create(database, segment_id="f", filter={"n": {"$lt": 10}})
    assert (segment.size, segment.size_state) == (None, "COMPUTING")
    async with database.read() as session:
        assert await queries.computing(session) == [segment.segment_no]
    await service.count_size(database, segment.segment_no)
    counted = await read(database, "f")
    assert (counted.size, counted.size_state) == (10, "READY")
    assert (await change(database, "f", filter={"n": {"$lt": 10}})).size_state == "READY"
    assert (await change(database, "f", filter={"n": {"$lt": 5}})).size_state == "COMPUTING"
    await service.count_size(database, segment.segment_no)
    assert (await read(database, "f")).size == 5


async def test_counting_goes_by_ranges(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "COUNT_WIDTH", 7)
    await users(database, *({"user_id": f"u{n:02}"} for n in range(28)))
    segment = await create(database, all_users=True)
    await service.count_size(database, segment.segment_no)
    assert (await read(database, segment.segment_id)).size == 28


async def test_recounted_at_most_every_five_minutes(database: Database) -> None:
    segment = await create(database, segment_id="all", all_users=True)
    manual = await create(database)
    await service.count_size(database, segment.segment_no)
    numbers = [segment.segment_no, manual.segment_no]
    async with database.transaction() as session:
        assert not await service.recount_stale(session, numbers)
        long_ago = await now(session) - timedelta(minutes=6)
        await session.execute(update(Segment).values(size_as_of=long_ago))
    async with database.transaction() as session:
        assert await service.recount_stale(session, numbers)
    assert (await read(database, "all")).size_state == "COMPUTING"
    assert (await read(database, manual.segment_id)).size_state == "READY"


async def test_deleted_users_are_in_no_segment_and_deactivated_ones_are(database: Database) -> None:
    await users(
        database, *({"user_id": name, "deactivated": name == "off"} for name in ("on", "off", "gone"))
    )
    async with database.transaction() as session:
        await session.execute(
            update(User).where(col(User.id) == "gone").values(deleted_at=await now(session))
        )
    everybody = await create(database, all_users=True)
    active = await create(database, filter={"deactivated": False})
    assert await targets(database, everybody) == ["off", "on"]
    assert await targets(database, active) == ["on"]
    async with database.read() as session:
        assert await queries.contains(session, queries.definition(active), "on")
        assert not await queries.contains(session, queries.definition(active), "off")
        assert not await queries.contains(session, queries.definition(everybody), "gone")


async def test_channels_of_the_sender_and_by_filter(database: Database) -> None:
    async with database.transaction() as session:
        at = await now(session)
        for cid in ("team:a", "team:b", "chat:c"):
            kind, _, name = cid.partition(":")
            session.add(Channel(cid=cid, type=kind, channel_id=name, created_at=at, updated_at=at))
        session.add_all(Member(cid=cid, user_id="s", created_at=at) for cid in ("team:b", "chat:c"))
    sent = await create(database, type="CHANNEL", all_sender_channels=True)
    assert (sent.size, sent.size_state) == (None, "NEVER")
    filtered = await create(database, type="CHANNEL", filter={"type": "team"})
    assert await targets(database, sent) == ["chat:c", "team:b"]
    assert await targets(database, sent, sender_id="other") == []
    assert await targets(database, filtered) == ["team:a", "team:b"]
    await service.count_size(database, filtered.segment_no)
    assert (await read(database, filtered.segment_id)).size == 2


async def test_arms_make_one_ascending_walk(database: Database) -> None:
    await users(database, *({"user_id": f"u{n}", "custom": {"n": n}} for n in range(6)))
    low = await create(database, filter={"n": {"$lte": 3}})
    listed = await create(database, segment_id="list")
    await add(database, "list", "u3", "a", "z", "u5")
    async with database.read() as session:
        arms = [
            select(
                queries.members_select(
                    dialect_of(session), queries.definition(segment), sender_id="s", after="u0", limit=3
                )
                .subquery()
                .c.target_id
            )
            for segment in (low, listed)
        ]
        walked = await session.execute(union(*arms).order_by("target_id").limit(3))
        assert list(walked.scalars()) == ["u1", "u2", "u3"]


async def test_a_segment_that_campaigns_name_is_kept(database: Database) -> None:
    async def two(session: AsyncSession, segment_no: int) -> Sequence[str]:
        return ["spring", "summer"]

    segment = await create(database, segment_id="s")
    await add(database, "s", "a", "b", "c")
    with pytest.raises(Conflict, match="spring, summer") as refused:
        async with database.transaction() as session:
            await service.delete(session, "s", two)
    assert refused.value.details == {"campaignIds": ["spring", "summer"]}
    async with database.transaction() as session:
        await service.delete(session, "s", nobody)
    with pytest.raises(NotFound):
        await add(database, "s", "a")
    async with database.read() as session:
        assert await queries.by_id(session, "s") is None
        kept = (await queries.by_numbers(session, [segment.segment_no]))[segment.segment_no]
    assert kept.deleted_at is not None
    assert await service.prune(database) == 3
    assert await service.prune(database) == 0

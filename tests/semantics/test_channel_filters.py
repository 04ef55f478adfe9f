"""SEMANTICS, "The filter language": every field and operator of channels, in queries and in segments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col

from app.channels.filtering import CHANNELS
from app.channels.models import Channel, Member
from app.channels.queries import matching
from app.database import Database, dialect_of
from app.errors import AppError
from app.filters.language import parse
from app.segments import queries as segments
from app.segments import service

AT = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = "support:a", "team:b", "team:c"
EVERY = [FIRST, SECOND, THIRD]

FIELDS: dict[
    str, tuple[Any, Any]
] = {  # what the first channel has, and the second; the third lacks what it can
    "cid": (FIRST, SECOND),
    "id": ("a", "b"),
    "type": ("support", "team"),
    "name": ("Ann's Tea Room", "billing"),
    "team": ("blue", "red"),
    "created_by_id": ("ann", "bob"),
    "frozen": (False, True),
    "created_at": ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
    "last_message_at": ("2026-01-02T00:00:00Z", "2026-01-02T01:00:00+00:00"),
    "member_count": (2, 3),
    "level": (1, 2),
    "info.city": ("Aachen", "Bonn"),
}
LACKING = {"name", "team", "created_by_id", "last_message_at", "level", "info.city"}
LIKE_SECOND = {"type", "created_at"}  # what the third channel has like the second


@pytest.fixture
async def channels(database: Database) -> None:
    def channel(cid: str, **fields: Any) -> Channel:
        kind, _, channel_id = cid.partition(":")
        return Channel(cid=cid, type=kind, channel_id=channel_id, updated_at=AT, **fields)

    hour, day = timedelta(hours=1), timedelta(days=1)
    first = {"name": "Ann's Tea Room", "team": "blue", "created_by_id": "ann", "last_message_at": AT + day}
    second = {"name": "billing", "team": "red", "created_by_id": "bob", "last_message_at": AT + day + hour}
    custom = {"level": 1, "info": {"city": "Aachen"}, "tags": ["x", 1], "odd": "1"}
    async with database.transaction() as session:
        session.add(channel(FIRST, **first, created_at=AT, member_count=2, custom=custom))
        more = {"level": 2, "info": {"city": "Bonn"}, "tags": "x", "odd": 1}
        session.add(channel(SECOND, **second, created_at=AT + hour, member_count=3, custom=more, frozen=True))
        session.add(channel(THIRD, created_at=AT + hour, member_count=0, custom={"odd": None}))
        members = {FIRST: ["ann", "bob"], SECOND: ["ann", "bob", "cid"]}
        session.add_all(
            Member(cid=cid, user_id=who, created_at=AT) for cid, people in members.items() for who in people
        )


async def chosen(database: Database, wanted: dict[str, Any]) -> list[str]:
    async with database.read() as session:
        where = parse(CHANNELS, wanted).where(dialect_of(session))
        found = await session.execute(matching(where).order_by(col(Channel.cid)))
        return [channel.cid for channel in found.scalars()]


def having(field: str) -> list[str]:
    return [FIRST, SECOND] if field in LACKING else EVERY


def expected(field: str, operator: str) -> list[str]:
    """What `field operator <what the first channel has>` chooses; of lists, what both channels have."""
    lacking = [cid for cid in EVERY if cid not in having(field)]
    like_first = [FIRST, THIRD] if field == "frozen" else [FIRST]
    others = [cid for cid in having(field) if cid not in like_first]
    lower = [THIRD] if field == "member_count" else []
    higher = [cid for cid in others if cid not in lower]
    return sorted(
        {
            "$eq": like_first,
            "$ne": [*others, *lacking],
            "$gt": higher,
            "$gte": [FIRST, *higher],
            "$lt": lower,
            "$lte": [FIRST, *lower],
            "$in": like_first,
            "$nin": [*others, *lacking],
            "$exists": having(field),
        }[operator]
    )


EQUALITY = ["$eq", "$ne", "$in", "$nin", "$exists"]
ORDER = ["$gt", "$gte", "$lt", "$lte"]


@pytest.mark.usefixtures("channels")
@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_with_every_operator(database: Database, field: str) -> None:
    has, other = FIELDS[field]
    for operator in EQUALITY if field == "frozen" else EQUALITY + ORDER:
        operand = [has] if operator in ("$in", "$nin") else True if operator == "$exists" else has
        found = await chosen(database, {field: {operator: operand}})
        assert found == expected(field, operator), operator
    assert await chosen(database, {field: has}) == expected(field, "$eq")
    second = [SECOND, THIRD] if field in LIKE_SECOND else [SECOND]
    either = sorted({*expected(field, "$eq"), *second})
    assert await chosen(database, {field: {"$in": [has, other]}}) == either
    lacking = [cid for cid in EVERY if cid not in having(field)]
    assert await chosen(database, {field: {"$exists": False}}) == lacking


SENTENCES: list[Any] = [
    pytest.param({"name": {"$autocomplete": "tea"}}, [FIRST], id="name also $autocomplete: any word"),
    pytest.param({"name": {"$autocomplete": "ROOM"}}, [FIRST], id="$autocomplete: ignoring case"),
    pytest.param({"name": {"$autocomplete": "oom"}}, [], id="$autocomplete: its beginning"),
    pytest.param({"info.city": {"$autocomplete": "bo"}}, [SECOND], id="custom: all of the above"),
    pytest.param({"tags": {"$contains": "x"}}, [FIRST], id="custom: $contains for lists"),
    pytest.param({"tags": {"$contains": 1}}, [FIRST], id="custom: $contains a number"),
    pytest.param({"odd": "1"}, [FIRST], id='"1" never equals 1'),
    pytest.param({"odd": {"$exists": False}}, [THIRD], id="null equals absent"),
    pytest.param({"members": {"$in": ["cid", "no"]}}, [SECOND], id="members: $in (any of)"),
    pytest.param({"members": {"$eq": ["bob", "ann", "bob"]}}, [FIRST], id="members: $eq (exactly these)"),
    pytest.param({"members": ["bob", "ann"]}, [FIRST], id="members: a list means $eq"),
    pytest.param({"members": ["ann"]}, [], id="members: not a part of them"),
    pytest.param({"members": []}, [THIRD], id="members: nobody"),
    pytest.param({"$nor": [{"members": {"$in": ["ann"]}}]}, [THIRD], id="members under $nor"),
    pytest.param({"type": "team", "frozen": True}, [SECOND], id="several keys are AND"),
    pytest.param({"member_count": {"$gt": 0, "$lt": 3}}, [FIRST], id="several operators are AND"),
    pytest.param({"$or": [{"level": 1}, {"id": "c"}]}, [FIRST, THIRD], id="$or takes a list"),
    pytest.param({}, EVERY, id="an empty filter is all in a query"),
]


@pytest.mark.usefixtures("channels")
@pytest.mark.parametrize(("wanted", "cids"), SENTENCES)
async def test_what_the_page_says(database: Database, wanted: dict[str, Any], cids: list[str]) -> None:
    assert await chosen(database, wanted) == cids


REFUSED: list[Any] = [
    pytest.param({"cid": {"$autocomplete": "a"}}, ("cid", "$autocomplete"), id="only name has $autocomplete"),
    pytest.param({"id": {"$autocomplete": "a"}}, ("id", "$autocomplete"), id="the id of a channel has none"),
    pytest.param({"members": "ann"}, ("members",), id="members take a list"),
    pytest.param({"members": {"$contains": "ann"}}, ("members", "$contains"), id="members: $in and $eq only"),
    pytest.param({"members": {"$exists": True}}, ("members", "$exists"), id="members: no $exists"),
    pytest.param({"frozen": 1}, ("frozen",), id="true never equals 1"),
    pytest.param({"member_count": "2"}, ("member_count",), id="a number is no string"),
    pytest.param({"created_at": "2026-01-01"}, ("created_at",), id="times are RFC 3339"),
    pytest.param({"frozen": {"$gt": False}}, ("frozen", "$gt"), id="true and false have no order"),
    pytest.param({"name.first": "x"}, ("name.first",), id="a built-in field has no fields of its own"),
]


@pytest.mark.parametrize(("wanted", "path"), REFUSED)
def test_what_is_refused(wanted: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(AppError) as failure:
        parse(CHANNELS, wanted)
    assert (failure.value.code, failure.value.path) == ("INVALID_INPUT", path)


@pytest.mark.usefixtures("channels")
async def test_a_channel_segment_has_the_channels_that_its_filter_chooses(database: Database) -> None:
    for number, wanted in enumerate([{"members": {"$in": ["ann"]}}, {"level": {"$gt": 1}}, {"type": "team"}]):
        async with database.transaction() as session:
            fields = {"segment_id": f"s{number}", "type": "CHANNEL", "filter": wanted}
            segment = await service.create(session, fields)
        await service.count_size(database, segment.segment_no)
        cids = await chosen(database, wanted)
        async with database.read() as session:
            definition = segments.definition(segment)
            statement = segments.members_select(dialect_of(session), definition, sender_id="ann")
            assert list((await session.execute(statement)).scalars()) == cids
            inside = [await segments.contains(session, definition, cid) for cid in EVERY]
            counted = await segments.by_id(session, segment.segment_id)
        assert inside == [cid in cids for cid in EVERY]
        assert counted is not None and (counted.size, counted.size_state) == (len(cids), "READY")


async def test_an_empty_filter_is_refused_in_a_segment(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(AppError) as failure:
            await service.create(session, {"segment_id": "s", "type": "CHANNEL", "filter": {}})
    assert (failure.value.code, failure.value.path) == ("INVALID_INPUT", ("filter",))

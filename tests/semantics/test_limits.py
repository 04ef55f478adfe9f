"""SEMANTICS, "Limits": at the limit it is accepted; past it LIMIT_EXCEEDED names the limit and what was
given, and nothing is stored. Pages, bodies and documents: tests/api/test_limits.py.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import service as campaigns
from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.database import Database, now
from app.errors import AppError, Invalid
from app.segments import service as segments
from app.segments.models import Segment, SegmentTarget
from app.users import service as users
from app.users.models import User
from tests.integration.campaigning import add_users

STORED = (Campaign, CampaignSegment, CampaignTarget, Segment, SegmentTarget, User)
Call = Callable[[AsyncSession, Any], Awaitable[Any]]


def ids(count: int) -> list[str]:
    return [f"u{number:05}" for number in range(count)]


def nested(levels: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {"age": 1}
    for _ in range(levels):
        wanted = {"$and": [wanted]}
    return wanted


async def campaign(session: AsyncSession, given: Mapping[str, Any]) -> None:
    """A draft that the sender of these tests speaks in."""
    fields = {"sender_id": "sender", "message_template": {"text": "Hi"}, "create_channels": True, **given}
    await campaigns.create(session, fields)


async def segment(session: AsyncSession, given: Mapping[str, Any]) -> None:
    """A segment of users."""
    await segments.create(session, {"type": "USER", **given})


async def renamed_segment(session: AsyncSession, changes: Mapping[str, Any]) -> None:
    """A segment that exists is changed."""
    await segments.update(session, "people", changes)


async def changed_campaign(session: AsyncSession, changes: Mapping[str, Any]) -> None:
    """A draft that exists is changed."""
    await campaigns.update(session, "draft", changes)


async def added(session: AsyncSession, target_ids: Sequence[str]) -> None:
    """Targets are added to a list that exists."""
    await segments.add_targets(session, "list", target_ids)


async def removed(session: AsyncSession, target_ids: Sequence[str]) -> None:
    """Targets are removed from a list that exists."""
    await segments.remove_targets(session, "list", target_ids)


async def upserted(session: AsyncSession, given: Sequence[Mapping[str, Any]]) -> None:
    """Users are created."""
    await users.upsert_users(session, given)


async def deleted(session: AsyncSession, user_ids: Sequence[str]) -> None:
    """Users are deleted, existing or not."""
    await users.bury(session, user_ids, erase_messages=False)


@dataclass(frozen=True)
class Row:
    """A row of the table: a call, what it takes, and one more than that; `path` is where the error stands."""

    call: Call
    at: Any
    past: Any
    limit: int
    path: tuple[str, ...]


def text(length: int) -> dict[str, Any]:
    return {"message_template": {"text": "ж" * length}}


def attachments(count: int) -> dict[str, Any]:
    return {"message_template": {"text": "", "attachments": [{}] * count}}


def attachments_of(size: int) -> dict[str, Any]:
    card = {"a": "x" * (size - len('[{"a":""}]'))}
    return {"message_template": {"text": "", "attachments": [card]}}


def custom_of(size: int) -> dict[str, Any]:
    return {"message_template": {"text": "", "custom": {"a": "x" * (size - len('{"a":""}'))}}}


def members(count: int) -> dict[str, Any]:
    return {"channel_template": {"type": "team", "members": ids(count)}}


def members_template(count: int) -> dict[str, Any]:
    return {"channel_template": {"type": "team", "members_template": [{"user_id": id} for id in ids(count)]}}


def channel_type(length: int) -> dict[str, Any]:
    return {"channel_template": {"type": "t" * length}}


def conditions(count: int) -> dict[str, Any]:
    return {"filter": {"$or": [{"age": {"$gt": 1, "$lt": 9}}] * (count // 2) + [{"name": "x"}] * (count % 2)}}


def users_named(count: int) -> list[dict[str, Any]]:
    return [{"user_id": id} for id in ids(count)]


IN_TEMPLATE = ("message_template",)
ROWS: dict[str, Row] = {
    "segments of a campaign: 25": Row(
        campaign, {"segment_ids": ids(25)}, {"segment_ids": ids(26)}, 25, ("segment_ids",)
    ),
    "segments of a campaign: 25, when it is changed": Row(
        changed_campaign, {"segment_ids": ids(25)}, {"segment_ids": ids(26)}, 25, ("segment_ids",)
    ),
    "userIds of a campaign: 10,000": Row(
        campaign, {"user_ids": ids(10_000)}, {"user_ids": ids(10_001)}, 10_000, ("user_ids",)
    ),
    "userIds of a campaign: 10,000, when it is changed": Row(
        changed_campaign, {"user_ids": ids(10_000)}, {"user_ids": ids(10_001)}, 10_000, ("user_ids",)
    ),
    "targets added in one call: 10,000": Row(added, ids(10_000), ids(10_001), 10_000, ("target_ids",)),
    "targets removed in one call: 10,000": Row(removed, ids(10_000), ids(10_001), 10_000, ("target_ids",)),
    "users upserted in one call: 1,000": Row(
        upserted, users_named(1_000), users_named(1_001), 1_000, ("users",)
    ),
    "users deleted in one call: 1,000": Row(deleted, ids(1_000), ids(1_001), 1_000, ("user_ids",)),
    "ids 1..255 characters: a user's": Row(
        upserted, [{"user_id": "é" * 255}], [{"user_id": "é" * 256}], 255, ("users", "0", "user_id")
    ),
    "ids 1..255 characters: a campaign's": Row(
        campaign, {"campaign_id": "c" * 255}, {"campaign_id": "c" * 256}, 255, ("campaign_id",)
    ),
    "ids 1..255 characters: a segment's": Row(
        segment, {"segment_id": "s" * 255}, {"segment_id": "s" * 256}, 255, ("segment_id",)
    ),
    "ids 1..255 characters: named by a campaign": Row(
        campaign, {"user_ids": ["u" * 255]}, {"user_ids": ["u" * 256]}, 255, ("user_ids", "0")
    ),
    "a channel's type 1..64": Row(
        campaign, channel_type(64), channel_type(65), 64, ("channel_template", "type")
    ),
    "a cid or target id up to 320": Row(
        added, [f"{'t' * 64}:{'c' * 255}"], [f"{'t' * 64}:{'c' * 256}"], 320, ("target_ids", "0")
    ),
    "segment name: 128": Row(segment, {"name": "ж" * 128}, {"name": "ж" * 129}, 128, ("name",)),
    "segment name: 128, when it is changed": Row(
        renamed_segment, {"name": "ж" * 128}, {"name": "ж" * 129}, 128, ("name",)
    ),
    "segment description: 256": Row(
        segment, {"description": "ж" * 256}, {"description": "ж" * 257}, 256, ("description",)
    ),
    "campaign name, as a segment's": Row(campaign, {"name": "ж" * 128}, {"name": "ж" * 129}, 128, ("name",)),
    "campaign description, as a segment's": Row(
        campaign, {"description": "ж" * 256}, {"description": "ж" * 257}, 256, ("description",)
    ),
    "message text: 5,000 characters": Row(
        campaign, text(5_000), text(5_001), 5_000, (*IN_TEMPLATE, "text")
    ),
    "message text: 5,000 characters, when it is changed": Row(
        changed_campaign, text(5_000), text(5_001), 5_000, (*IN_TEMPLATE, "text")
    ),
    "attachments 30": Row(campaign, attachments(30), attachments(31), 30, (*IN_TEMPLATE, "attachments")),
    "attachments 5 KB together": Row(
        campaign, attachments_of(5_120), attachments_of(5_121), 5_120, (*IN_TEMPLATE, "attachments")
    ),
    "custom 5 KB": Row(campaign, custom_of(5_120), custom_of(5_121), 5_120, (*IN_TEMPLATE, "custom")),
    "channelTemplate.members: 1,000": Row(
        campaign, members(1_000), members(1_001), 1_000, ("channel_template", "members")
    ),
    "membersTemplate: 1,000": Row(
        campaign,
        members_template(1_000),
        members_template(1_001),
        1_000,
        ("channel_template", "members_template"),
    ),
    "filter: 100 conditions": Row(
        segment, conditions(100), conditions(101), 100, ("filter", "$or", "50", "name")
    ),
    "filter: depth 5": Row(
        segment, {"filter": nested(5)}, {"filter": nested(6)}, 5, ("filter", *["$and", "0"] * 5, "$and")
    ),
    "filter: $in 1,000 values": Row(
        segment,
        {"filter": {"age": {"$in": [1] * 1_000}}},
        {"filter": {"age": {"$in": [1] * 1_001}}},
        1_000,
        ("filter", "age", "$in"),
    ),
    "filter: $in 1,000 values, when it is changed": Row(
        renamed_segment,
        {"filter": {"age": {"$nin": [1] * 1_000}}},
        {"filter": {"age": {"$nin": [1] * 1_001}}},
        1_000,
        ("filter", "age", "$nin"),
    ),
}  # fmt: skip


@pytest.fixture
async def ready(database: Database) -> Database:
    """A database with a sender, 26 segments, a list, a segment of a filter, and a draft."""
    await add_users(database, ["sender"])
    async with database.transaction() as session:
        await segments.create(session, {"type": "USER", "segment_id": "list"})
        await segments.create(session, {"type": "USER", "segment_id": "people", "filter": {"age": 1}})
        await campaign(session, {"campaign_id": "draft"})
        at = await now(session)
        rows = [
            {
                "segment_no": 100 + number,
                "segment_id": id,
                "type": "USER",
                "kind": "MANUAL",
                "size_state": "READY",
            }
            for number, id in enumerate(ids(26))
        ]
        await session.execute(
            insert(Segment), [{**row, "size": 0, "created_at": at, "updated_at": at} for row in rows]
        )
    return database


async def contents(database: Database) -> list[Any]:
    """How much is stored, and the rows that a change could touch."""
    async with database.read() as session:
        counts = [
            (await session.execute(select(func.count()).select_from(model))).scalar_one() for model in STORED
        ]
        kept = [
            row.model_dump()
            for model in (Campaign, Segment)
            for row in (await session.execute(select(model))).scalars()
        ]
    return [*counts, sorted(kept, key=repr)]


async def errors_of(database: Database, call: Call, given: Any) -> list[AppError]:
    """The errors of a call that has to fail, its transaction committed by nobody."""
    with pytest.raises((AppError, Invalid)) as caught:
        async with database.transaction() as session:
            await call(session, given)
    return list(caught.value.errors) if isinstance(caught.value, Invalid) else [caught.value]


@pytest.mark.parametrize("row", ROWS)
async def test_row(ready: Database, row: str) -> None:
    expected = ROWS[row]
    before = await contents(ready)
    (error,) = await errors_of(ready, expected.call, expected.past)
    assert (error.code, error.path) == ("LIMIT_EXCEEDED", expected.path)
    assert error.details == {"limit": expected.limit, "given": expected.limit + 1}
    assert f"{expected.limit:,}" in error.message and f"{expected.limit + 1:,}" in error.message
    assert await contents(ready) == before
    async with ready.transaction() as session:
        await expected.call(session, expected.at)


INVALID: dict[str, tuple[Call, Any, tuple[str, ...]]] = {
    "segments of a campaign, not together with userIds": (
        campaign, {"segment_ids": ["u00000"], "user_ids": ["a"]}, ("user_ids",)
    ),
    "channelTemplate.members and membersTemplate, never both": (
        campaign,
        {"channel_template": {"type": "a", "members": ["a"], "members_template": [{"user_id": "b"}]}},
        ("channel_template", "members_template"),
    ),
    "ids have a character": (upserted, [{"user_id": ""}], ("users", "0", "user_id")),
    "ids are printable": (upserted, [{"user_id": "a\x07"}], ("users", "0", "user_id")),
    "ids have no NUL": (campaign, {"user_ids": ["a\0"]}, ("user_ids", "0")),
    "ids have no white space": (segment, {"segment_id": "a b"}, ("segment_id",)),
    "ids have no white space of any script": (campaign, {"campaign_id": "a\u3000b"}, ("campaign_id",)),
    "target ids have no white space": (added, ["a\tb"], ("target_ids", "0")),
    "a channel's type has letters, digits, _ and -": (
        campaign, {"channel_template": {"type": "a:b"}}, ("channel_template", "type")
    ),
    "a channel's type has a character": (
        campaign, {"channel_template": {"type": ""}}, ("channel_template", "type")
    ),
    "at least one target": (added, [], ("target_ids",)),
    "at least one user": (upserted, [], ("users",)),
}  # fmt: skip


@pytest.mark.parametrize("sentence", INVALID)
async def test_invalid_input(ready: Database, sentence: str) -> None:
    call, given, path = INVALID[sentence]
    before = await contents(ready)
    (error,) = await errors_of(ready, call, given)
    assert (error.code, error.path) == ("INVALID_INPUT", path)
    assert await contents(ready) == before


async def test_a_limit_counts_what_was_given_repeated_ids_too(ready: Database) -> None:
    (error,) = await errors_of(ready, added, ["same"] * 10_001)
    assert error.details == {"limit": 10_000, "given": 10_001}


async def test_past_several_limits_all_are_named(ready: Database) -> None:
    template = {"text": "x" * 5_001, "attachments": [{}] * 31, "custom": {"a": "x" * 6_000}}
    found = await errors_of(ready, campaign, {"name": "x" * 129, "message_template": template})
    assert {(error.code, error.path[-1]) for error in found} == {
        ("LIMIT_EXCEEDED", name) for name in ("name", "text", "attachments", "custom")
    }

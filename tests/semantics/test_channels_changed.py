"""SEMANTICS, "Limits", and the channel mutations: creating and changing channels and their members."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from app.channels import service
from app.channels.distinct import cid_of, distinct_id
from app.channels.models import Channel, Member
from app.channels.upserting import MAX_MEMBERSHIPS, upsert_channels
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger import forgetting
from tests.integration import campaigning
from tests.integration.campaigning import add_channel, add_users, books, channel, recounted

Path = tuple[str, ...]
TEAM = {"type": "team", "channel_id": "general"}


async def upserted(database: Database, *inputs: dict[str, Any]) -> list[Channel]:
    async with database.transaction() as session:
        return await upsert_channels(session, inputs)


async def refused(database: Database, *inputs: dict[str, Any]) -> list[tuple[str, Path]]:
    """Code and path of everything that is wrong; nothing is stored."""
    before = await count(database)
    with pytest.raises((AppError, Invalid)) as failure:
        await upserted(database, *inputs)
    assert await count(database) == before
    return problems(failure.value)


def problems(failure: BaseException) -> list[tuple[str, Path]]:
    errors = failure.errors if isinstance(failure, Invalid) else (failure,)
    return [(error.code, error.path) for error in errors if isinstance(error, AppError)]


async def count(database: Database) -> int:
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(Channel))).scalar_one()


async def members(database: Database, cid: str) -> list[str]:
    return sorted((await channel(database, cid))[1])


async def add(database: Database, cid: str, user_ids: Sequence[str]) -> Channel:
    async with database.transaction() as session:
        return await service.add_members(session, cid, user_ids)


async def remove(database: Database, cid: str, user_ids: Sequence[str]) -> Channel:
    async with database.transaction() as session:
        return await service.remove_members(session, cid, user_ids)


# ---------------------------------------------------------------- upsertChannels


async def test_a_channel_is_created_with_all_that_is_said(database: Database) -> None:
    await add_users(database, ["ann", "bob"])
    said = {"name": "General", "team": "red", "custom": {"topic": {"x": 1}}, "created_by_id": "ann"}
    (made,) = await upserted(database, {**TEAM, **said, "frozen": True, "members": ["bob", "ann", "bob"]})
    found, people = await channel(database, "team:general")
    assert found == made
    assert {name: getattr(found, name) for name in said} == said
    assert (found.cid, found.type, found.channel_id) == ("team:general", "team", "general")
    assert (found.frozen, found.member_count, sorted(people)) == (True, 2, ["ann", "bob"])
    assert people["ann"].channel_role == "channel_member"
    await recounted(database)


async def test_an_omitted_field_stays_and_null_clears(database: Database) -> None:
    await add_users(database, ["ann"])
    full = {"name": "General", "team": "red", "custom": {"a": 1}, "created_by_id": "ann", "frozen": True}
    (made,) = await upserted(database, {**TEAM, **full, "members": ["ann"]})
    (same,) = await upserted(database, TEAM)
    assert same.model_dump(exclude={"updated_at"}) == made.model_dump(exclude={"updated_at"})
    assert same.updated_at > made.updated_at
    (other,) = await upserted(database, {**TEAM, "custom": {"b": 2}})
    assert (other.custom, other.name) == ({"b": 2}, "General")
    (bare,) = await upserted(database, {**TEAM, **dict.fromkeys(full), "members": None})
    cleared = {name: getattr(bare, name) for name in full}
    assert cleared == {"name": None, "team": None, "custom": {}, "created_by_id": None, "frozen": False}
    assert (bare.member_count, bare.members_key) == (0, None)
    await recounted(database)


async def test_members_given_replace(database: Database) -> None:
    """Who stays keeps what they have read; for whoever joins only later messages are unread."""
    await add_users(database, ["ann", "bob", "cid", "sender"])
    await add_channel(database, "team:general", ["ann", "bob"], last_seq=7)
    (found,) = await upserted(database, {**TEAM, "members": ["cid", "ann"]})
    people = (await channel(database, "team:general"))[1]
    assert {user_id: member.read_seq for user_id, member in people.items()} == {"ann": 0, "cid": 7}
    assert found.member_count == 2
    await recounted(database)


async def test_without_channel_id_the_one_channel_of_this_type_with_exactly_these_members(
    database: Database,
) -> None:
    await add_users(database, ["ann", "bob", "cid"])
    pair = {"type": "messaging", "members": ["ann", "bob"]}
    (made,) = await upserted(database, {**pair, "name": "We"})
    assert made.cid == cid_of("messaging", distinct_id(["ann", "bob"]))
    (again,) = await upserted(database, {**pair, "members": ["bob", "ann", "bob"], "channel_id": None})
    assert (again.cid, again.name, again.created_at) == (made.cid, "We", made.created_at)
    (of_other_type,) = await upserted(database, {**pair, "type": "team"})
    (of_others,) = await upserted(database, {**pair, "members": ["ann", "bob", "cid"]})
    assert len({made.cid, of_other_type.cid, of_others.cid}) == 3


async def test_a_distinct_channel_s_members_may_change_and_its_id_does_not(database: Database) -> None:
    await add_users(database, ["ann", "bob", "cid"])
    pair = {"type": "messaging", "members": ["ann", "bob"]}
    (made,) = await upserted(database, pair)
    assert (await add(database, made.cid, ["cid"])).cid == made.cid
    assert await members(database, made.cid) == ["ann", "bob", "cid"]
    by_its_id = {"type": "messaging", "channel_id": made.channel_id, "name": "Three"}
    assert [found.member_count for found in await upserted(database, by_its_id)] == [3]
    (again,) = await upserted(database, pair)
    assert (again.cid, again.name) == (made.cid, "Three")
    assert await members(database, made.cid) == ["ann", "bob"]
    await recounted(database)


async def test_a_campaign_and_a_mutation_find_the_same_distinct_channel(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    (made,) = await upserted(database, {"type": "messaging", "members": ["ann", "sender"]})
    campaign = await campaigning.create(
        database, channel_template={"type": "messaging"}, user_ids=["ann"], create_channels=True
    )
    await campaigning.start(database)
    await campaigning.work(database)
    assert [message.cid for message in await campaigning.messages(database)] == [made.cid]
    await books(database, campaign)


async def test_a_distinct_channel_is_created_by_its_members_only(database: Database) -> None:
    await add_users(database, ["ann", "bob"])
    named = {"type": "messaging", "channel_id": distinct_id(["ann", "bob"]), "members": ["ann"]}
    assert await refused(database, named) == [("INVALID_INPUT", ("channels", "0", "channel_id"))]


async def test_all_or_none_and_all_problems_at_once(database: Database) -> None:
    good = {"type": "team", "channel_id": "good"}
    bad = {"type": "no good", "channel_id": "a b", "name": "n" * 256, "custom": {"members": 1}}
    assert await refused(database, good, bad, {"type": "team"}, good) == [
        ("INVALID_INPUT", ("channels", "1", "type")),
        ("INVALID_INPUT", ("channels", "1", "channel_id")),
        ("LIMIT_EXCEEDED", ("channels", "1", "name")),
        ("INVALID_INPUT", ("channels", "1", "custom", "members")),
        ("INVALID_INPUT", ("channels", "2", "members")),
        ("INVALID_INPUT", ("channels", "3")),
    ]


async def test_members_and_creators_are_users_that_exist(database: Database) -> None:
    """Nobody becomes a member who never was a user, or is none any more; the position is named."""
    await add_users(database, ["ann", "gone"])
    await forgetting.delete_users(database, ["gone"], erase_messages=False)
    wanted = {"type": "team", "channel_id": "two", "members": ["ann", "nobody", "gone"]}
    assert await refused(database, TEAM, {**wanted, "created_by_id": "gone"}) == [
        ("INVALID_INPUT", ("channels", "1", "members", "1")),
        ("INVALID_INPUT", ("channels", "1", "members", "2")),
        ("INVALID_INPUT", ("channels", "1", "created_by_id")),
    ]
    await upserted(database, TEAM)
    for path, calling in (
        (("user_ids", "1"), add(database, "team:general", ["ann", "nobody"])),
        (("user_ids", "0"), add(database, "team:general", ["gone"])),
    ):
        with pytest.raises(AppError) as failure:
            await calling
        assert problems(failure.value) == [("INVALID_INPUT", path)]
    assert await members(database, "team:general") == []


LIMITS: list[Any] = [
    pytest.param({"type": "t" * 65}, "LIMIT_EXCEEDED", ("type",), id="a channel's type 1..64"),
    pytest.param({"type": "a:b"}, "INVALID_INPUT", ("type",), id="letters, digits, `_`, `-`"),
    pytest.param({"channel_id": "c" * 256}, "LIMIT_EXCEEDED", ("channel_id",), id="ids 1..255 characters"),
    pytest.param({"channel_id": ""}, "INVALID_INPUT", ("channel_id",), id="ids at least one character"),
    pytest.param({"channel_id": "a\tb"}, "INVALID_INPUT", ("channel_id",), id="printable, no white space"),
    pytest.param({"custom": {"$a": 1}}, "INVALID_INPUT", ("custom", "$a"), id="custom key: no $"),
    pytest.param({"custom": {"a.b": 1}}, "INVALID_INPUT", ("custom", "a.b"), id="custom key: no dot"),
    pytest.param({"custom": {"cid": 1}}, "INVALID_INPUT", ("custom", "cid"), id="custom key: no built-in"),
    pytest.param({"custom": {"a": "x" * 32_768}}, "LIMIT_EXCEEDED", ("custom",), id="custom: its size"),
    pytest.param({"members": ["u"] * 1_001}, "LIMIT_EXCEEDED", ("members",), id="members: 1,000 a channel"),
    pytest.param({"members": ["a b"]}, "INVALID_INPUT", ("members", "0"), id="members are ids"),
]


@pytest.mark.parametrize(("wrong", "code", "path"), LIMITS)
async def test_past_a_limit_nothing_is_stored(
    database: Database, wrong: dict[str, Any], code: str, path: Path
) -> None:
    assert await refused(database, {**TEAM, **wrong}) == [(code, ("channels", "0", *path))]


async def test_users_or_channels_upserted_in_one_call_1_000(database: Database) -> None:
    inputs = [{"type": "team", "channel_id": f"c{number}"} for number in range(1_001)]
    with pytest.raises(AppError, match=r"1,000.*1,001") as failure:
        await upserted(database, *inputs)
    assert problems(failure.value) == [("LIMIT_EXCEEDED", ("channels",))]
    assert await refused(database) == [("INVALID_INPUT", ("channels",))]
    stored = await upserted(database, *inputs[:1_000])
    assert [found.channel_id for found in stored] == [fields["channel_id"] for fields in inputs[:1_000]]
    assert await count(database) == 1_000


async def test_a_call_names_or_replaces_10_000_members_at_most(database: Database) -> None:
    names = [f"u{number}" for number in range(1_000)]
    crowds = [{"type": "team", "channel_id": f"c{number}", "members": names} for number in range(11)]
    assert await refused(database, *crowds) == [("LIMIT_EXCEEDED", ("channels",))]
    async with database.transaction() as session:
        session.add(await _crowded(session))
    assert await refused(database, {**TEAM, "members": []}) == [("LIMIT_EXCEEDED", ("channels",))]


async def _crowded(session: Any) -> Channel:
    from app.database import now

    at = await now(session)
    row = {"cid": "team:general", "type": "team", "channel_id": "general"}
    return Channel(**row, member_count=MAX_MEMBERSHIPS + 1, created_at=at, updated_at=at)


# ---------------------------------------------------------------- members


async def test_adding_twice_and_removing_what_is_absent_is_no_error(database: Database) -> None:
    await add_users(database, ["ann", "bob", "cid"])
    await add_channel(database, "team:a", ["ann"], last_seq=3)
    assert (await add(database, "team:a", ["bob", "ann", "bob"])).member_count == 2
    assert (await add(database, "team:a", ["bob"])).member_count == 2
    people = (await channel(database, "team:a"))[1]
    assert (people["ann"].read_seq, people["bob"].read_seq) == (0, 3)
    assert (await remove(database, "team:a", ["ann", "cid", "nobody"])).member_count == 1
    assert (await remove(database, "team:a", ["ann"])).member_count == 1
    assert (await remove(database, "team:a", ["bob"])).members_key is None
    await recounted(database)


async def test_a_channel_has_a_key_up_to_1_002_members(database: Database) -> None:
    names = [f"u{number:04}" for number in range(1_003)]
    await add_users(database, names)
    await upserted(database, {**TEAM, "members": names[:1_000]})
    await add(database, "team:general", names[1_000:])
    assert (await channel(database, "team:general"))[0].members_key is None
    assert (await remove(database, "team:general", names[:1])).members_key is not None
    await recounted(database)


@pytest.mark.parametrize("flag", ["hidden", "archived", "muted"])
async def test_hidden_archived_muted_of_one_member(database: Database, flag: str) -> None:
    await add_channel(database, "team:a", ["ann", "bob"])

    async def change(value: bool | None) -> bool:
        async with database.transaction() as session:
            await service.update_member(session, "team:a", "ann", {flag: value})
        people = (await channel(database, "team:a"))[1]
        assert not getattr(people["bob"], flag)
        return bool(getattr(people["ann"], flag))

    assert await change(True)
    async with database.transaction() as session:
        await service.update_member(session, "team:a", "ann", {})
    assert getattr((await channel(database, "team:a"))[1]["ann"], flag)
    assert not await change(None)


async def test_who_is_no_member_and_what_is_no_channel_is_not_found(database: Database) -> None:
    await add_users(database, ["ann"])
    await add_channel(database, "team:a", [])
    async with database.transaction() as session:
        for calling, path in (
            (service.update_member(session, "team:a", "ann", {"muted": True}), ("user_id",)),
            (service.update_member(session, "team:b", "ann", {"muted": True}), ("cid",)),
            (service.add_members(session, "team:b", ["ann"]), ("cid",)),
            (service.remove_members(session, "team:b", ["ann"]), ("cid",)),
        ):
            with pytest.raises(AppError) as failure:
                await calling
            assert problems(failure.value) == [("NOT_FOUND", path)]
        with pytest.raises(Invalid) as both:
            await service.add_members(session, "team:b", ["nobody"])
    assert problems(both.value) == [("INVALID_INPUT", ("user_ids", "0")), ("NOT_FOUND", ("cid",))]


@pytest.mark.parametrize("change", [service.add_members, service.remove_members])
async def test_1_to_1_000_members_a_call(database: Database, change: Any) -> None:
    await add_channel(database, "team:a", [])
    async with database.transaction() as session:
        for user_ids, code in (([], "INVALID_INPUT"), (["u"] * 1_001, "LIMIT_EXCEEDED")):
            with pytest.raises(AppError) as failure:
                await change(session, "team:a", user_ids)
            assert problems(failure.value) == [(code, ("user_ids",))]


# ---------------------------------------------------------------- races


async def test_two_upserts_of_the_same_channels_at_once(database: Database) -> None:
    """Each is there once, and is what one of the calls made of it, or the other."""
    people = [f"u{number}" for number in range(6)]
    await add_users(database, people)

    async def calls(who: int) -> None:
        for turn in range(6):
            inputs = [
                {"type": "team", "channel_id": f"c{number}", "members": people[who : who + turn % 3 + 1]}
                for number in range(20)
            ]
            pair = {"type": "team", "members": people[:2], "name": str(who)}
            await upserted(database, *(inputs if who % 2 else reversed(inputs)), pair)

    await asyncio.gather(*map(calls, range(4)))
    assert await count(database) == 21
    await recounted(database)


async def test_members_of_the_same_channels_changed_at_once(database: Database) -> None:
    people = [f"u{number}" for number in range(8)]
    await add_users(database, people)
    cids = [f"team:c{number}" for number in range(3)]
    for cid in cids:
        await add_channel(database, cid, people[:2])

    async def calls(who: int) -> None:
        for turn in range(8):
            cid = cids[(who + turn) % 3]
            await add(database, cid, people[who : who + 4])
            await remove(database, cid, people[turn % 4 : turn % 4 + 2])
            await upserted(database, *({"type": "team", "channel_id": f"c{each}"} for each in range(3)))

    await asyncio.gather(*map(calls, range(4)))
    await recounted(database)


async def test_no_deleted_user_is_left_a_member(database: Database) -> None:
    """upsertChannels and addChannelMembers against deleteUsers: refused, or cleared away by the deletion."""
    people = [f"u{number:02}" for number in range(30)]
    await add_users(database, people)
    await upserted(database, TEAM)

    async def join(start: int) -> None:
        for number in range(start, 30, 2):
            pair = sorted({people[number], people[29 - number]})
            try:
                await upserted(database, {"type": "team", "members": pair, "created_by_id": pair[0]})
                await add(database, "team:general", pair)
            except (AppError, Invalid) as failure:
                assert {code for code, _ in problems(failure)} == {"INVALID_INPUT"}

    async def delete() -> None:
        for start in range(0, 30, 5):
            await forgetting.delete_users(database, people[start : start + 5], erase_messages=False)

    await asyncio.gather(join(0), join(1), delete())
    async with database.read() as session:
        left = (await session.execute(select(col(Member.user_id)))).scalars().all()
    assert left == []
    await recounted(database)

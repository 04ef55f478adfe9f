"""SEMANTICS, "Deleting users and channels": what is gone, what stays, and books that balance."""

from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.campaigns import reading
from app.campaigns.models import Campaign
from app.channels.distinct import cid_of, distinct_id
from app.database import Database
from app.errors import AppError, Invalid
from app.ledger import erasing
from app.ledger.erasing import MESSAGE_DELETED, delete_channels
from app.ledger.models import Recipient, RecipientStatus
from app.ledger.verification import Books, audit
from app.users.models import User
from app.users.service import upsert_users
from tests.integration import campaigning
from tests.integration.campaigning import (
    add_channel,
    add_users,
    books,
    channel,
    messages,
    outcomes,
    recounted,
    work,
)
from tests.semantics.deleting import DISTINCT, delete_users, ledger, memberships, sent, tombstone, unread


async def test_delete_users_leaves_a_tombstone_the_id_and_deleted_at(database: Database) -> None:
    """... and erases name, custom, teams, image and memberships."""
    about = {"language": "en", "image_url": "http://x/y", "teams": ["red"], "custom": {"a": 1}, "role": "vip"}
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": "ann", "name": "Ann", "deactivated": True, **about}])
    await add_users(database, ["bob"])
    await add_channel(database, "team:red", ["ann", "bob"])
    assert await delete_users(database, "ann") == ["ann"]
    found = await tombstone(database, "ann")
    assert found.deleted_at is not None
    assert found == User(
        id="ann", created_at=found.deleted_at, updated_at=found.deleted_at, deleted_at=found.deleted_at
    )
    assert sorted((await channel(database, "team:red"))[1]) == ["bob"]
    await recounted(database)


async def test_users_that_do_not_exist_are_no_error(database: Database) -> None:
    await add_users(database, ["ann", "bob"])
    assert await delete_users(database, "ann") == ["ann"]
    assert await delete_users(database, "ann", "nobody", "bob", "bob") == ["bob"]


@pytest.mark.parametrize(
    ("user_ids", "code", "path"),
    [
        ([], "INVALID_INPUT", ("user_ids",)),
        (["u"] * 1_001, "LIMIT_EXCEEDED", ("user_ids",)),
        (["a", "a b"], "INVALID_INPUT", ("user_ids", "1")),
    ],
)
async def test_1_to_1_000_users_a_call(
    database: Database, user_ids: list[str], code: str, path: tuple[str, ...]
) -> None:
    with pytest.raises(AppError) as failure:
        await delete_users(database, *user_ids)
    assert (failure.value.code, failure.value.path) == (code, path)


async def test_the_ledger_keeps_the_id_and_the_outcome(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    campaign = await sent(database, user_ids=["ann", "bob"])
    await delete_users(database, "ann")
    assert await outcomes(database, campaign) == {"ann": "SENT", "bob": "SENT"}
    assert (await books(database, campaign)).messages == 2
    assert len(await messages(database)) == 2


async def test_deleted_since_skipped_user_deactivated(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await campaigning.create(database, user_ids=["ann", "bob"])
    await campaigning.start(database)
    await delete_users(database, "ann")
    campaign = await work(database)
    assert await outcomes(database, campaign) == {"ann": "SKIPPED USER_DEACTIVATED", "bob": "SENT"}


async def test_a_deleted_sender_pauses_the_campaign_with_sender_missing(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await campaigning.create(database, user_ids=["ann"])
    await campaigning.start(database)
    await delete_users(database, "sender")
    campaign = await work(database)
    assert (campaign.status, campaign.status_reason) == ("PAUSED", "SENDER_MISSING")


async def test_erase_messages_erases_those_sent_to_them_in_distinct_channels(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    private = await sent(database, "private", channel_template=DISTINCT, user_ids=["ann", "bob"])
    public = await sent(database, "public", user_ids=["ann"])
    await delete_users(database, "ann", erase_messages=True)
    distinct = cid_of("messaging", distinct_id(["sender", "ann"]))
    assert sorted(message.cid for message in await messages(database)) == sorted(
        [cid_of("messaging", distinct_id(["sender", "bob"])), "messaging:ann-news"]
    )
    row = await ledger(database, private, "ann")
    assert (row.status, row.message_id, row.detail) == (RecipientStatus.SENT, None, MESSAGE_DELETED)
    assert row.cid == distinct
    assert (await ledger(database, private, "bob")).detail is None
    counted = await books(database, private)
    assert (counted.sent, counted.messages, counted.erased) == (2, 1, 1)
    assert (await books(database, public)).erased == 0
    assert sorted((await channel(database, distinct))[1]) == ["sender"]
    await recounted(database)


async def test_what_they_wrote_themselves_stays(database: Database) -> None:
    await add_users(database, ["ann", "bob"])
    await sent(database, "hers", sender_id="ann", channel_template=DISTINCT, user_ids=["bob"])
    await sent(database, "his", sender_id="bob", channel_template=DISTINCT, user_ids=["ann"])
    await delete_users(database, "ann", erase_messages=True)
    assert [message.sender_id for message in await messages(database)] == ["ann"]


async def test_unread_counts_are_exact_where_messages_were_erased(database: Database) -> None:
    """In a group of three: two messages to ann are gone, those of ann to the others are left."""
    await add_users(database, ["sender", "ann", "bob"])
    template = {"type": "support", "members": ["bob"]}
    cid = cid_of("support", distinct_id(["sender", "ann", "bob"]))
    await sent(database, "one", channel_template=template, user_ids=["ann"])
    back = {"type": "support", "members": ["sender"]}
    await sent(database, "two", sender_id="ann", channel_template=back, user_ids=["bob"])
    async with database.transaction() as session:
        await reading.mark_read(session, cid, "sender")
    await sent(database, "three", channel_template=template, user_ids=["ann"])
    await sent(database, "four", sender_id="ann", channel_template=back, user_ids=["bob"])
    assert await unread(database, cid, "sender", "bob") == [1, 4]
    await delete_users(database, "ann", erase_messages=True)
    assert [message.seq for message in await messages(database)] == [2, 4]
    assert await unread(database, cid, "sender", "bob") == [1, 2]
    async with database.transaction() as session:
        await reading.mark_read(session, cid, "bob")
    assert await unread(database, cid, "bob") == [0]


async def test_delete_channels_removes_channel_members_and_messages(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    campaign = await sent(database, user_ids=["ann", "bob"])
    gone = "messaging:ann-news"
    assert await delete_channels(database, [gone, "messaging:no-such", gone]) == [gone]
    assert await delete_channels(database, [gone]) == []
    assert await memberships(database, "ann") == []
    assert [message.cid for message in await messages(database)] == ["messaging:bob-news"]
    row = await ledger(database, campaign, "ann")
    assert (row.status, row.message_id, row.detail) == (RecipientStatus.SENT, None, MESSAGE_DELETED)
    counted = await books(database, campaign)
    assert (counted.sent, counted.messages, counted.erased) == (2, 1, 1)
    await recounted(database)


async def test_a_channel_that_is_created_again_is_a_new_one(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    first = await sent(database, "first", user_ids=["ann"])
    await delete_channels(database, ["messaging:ann-news"])
    second = await sent(database, "second", user_ids=["ann"])
    assert [message.seq for message in await messages(database)] == [1]
    assert [(await books(database, each)).erased for each in (first, second)] == [1, 0]


@pytest.mark.parametrize(
    ("cids", "code", "path"),
    [
        ([], "INVALID_INPUT", ("cids",)),
        (["t:c"] * 1_001, "LIMIT_EXCEEDED", ("cids",)),
        (["t:c", "no-colon", ":c"], "INVALID_INPUT", ("cids", "1")),
    ],
)
async def test_1_to_1_000_channels_a_call(
    database: Database, cids: list[str], code: str, path: tuple[str, ...]
) -> None:
    with pytest.raises((AppError, Invalid)) as failure:
        await delete_channels(database, cids)
    first = failure.value.errors[0] if isinstance(failure.value, Invalid) else failure.value
    assert isinstance(first, AppError)
    assert (first.code, first.path) == (code, path)


@pytest.mark.usefixtures("small_chunks")
async def test_a_channel_with_very_many_messages_and_members_is_emptied_in_chunks(database: Database) -> None:
    people = [f"u{number:02}" for number in range(10)]
    await add_users(database, ["sender", *people])
    template = {"type": "team", "id": "{{ receiver.id[:1] }}"}
    campaign = await sent(database, channel_template=template, user_ids=people)
    assert len(await messages(database)) == 10
    assert await delete_channels(database, ["team:u"]) == ["team:u"]
    assert await messages(database) == []
    assert (await books(database, campaign)).erased == 10
    await recounted(database)


@pytest.mark.usefixtures("small_chunks")
async def test_a_deletion_that_was_interrupted_leaves_exact_counts(
    database: Database,
) -> None:
    people = [f"u{number:02}" for number in range(10)]
    await add_users(database, ["sender", *people])
    template = {"type": "team", "id": "{{ receiver.id[:1] }}"}
    campaign = await sent(database, channel_template=template, user_ids=people)
    assert await erasing._empty_some(database, ["team:u"])
    assert len(await messages(database)) == 7
    assert (await books(database, campaign)).erased == 3
    assert await unread(database, "team:u", "sender", "u00") == [0, 7]
    while await erasing._empty_some(database, ["team:u"]):
        await recounted(database)
    assert await unread(database, "team:u", "u09") == [1]


async def test_only_what_says_itself_that_it_was_deleted_is_excused(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob", "cid"])
    campaign = await sent(database, user_ids=["ann", "bob", "cid"])
    await delete_channels(database, ["messaging:ann-news"])
    for target_id, values, sentence in (
        ("bob", {"message_id": None}, "1 SENT targets have no message of their own"),
        ("bob", {"message_id": None, "detail": "gone"}, "1 SENT targets have no message of their own"),
        ("bob", {"message_id": None, "detail": MESSAGE_DELETED}, "3 targets are SENT, 2 messages exist"),
        (
            "ann",
            {"message_id": "m"},
            "1 SENT targets have no message of their own",
        ),
        ("ann", {"message_id": None, "detail": None}, "3 targets are SENT, 2 messages exist, 0 were deleted"),
    ):
        found = await audited_with(database, campaign, target_id, values)
        assert any(sentence in problem for problem in found.problems), (values, found.problems)
    await books(database, campaign)


async def audited_with(
    database: Database, campaign: Campaign, target_id: str, values: dict[str, Any]
) -> Books:
    """The books with this ledger row falsified for a moment."""

    class Undone(Exception):
        pass

    found: list[Books] = []
    with pytest.raises(Undone):
        async with database.transaction() as session:
            await session.execute(
                update(Recipient)
                .where(
                    col(Recipient.campaign_no) == campaign.campaign_no, col(Recipient.target_id) == target_id
                )
                .values(**values)
            )
            found.append(await audit(session, campaign.campaign_no))
            raise Undone
    return found[0]

"""Reading what was sent: channels, their members and their messages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from app.channels.models import Channel, Member
from app.database import Database
from app.graphql.nodes import encode_id
from app.ids import message_ids
from app.messages.models import Message
from app.users.service import upsert_users
from tests.api.conftest import Client

AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
IDS = message_ids(5)


@pytest.fixture
async def stored(database: Database) -> None:
    """Anna's channel with Rex, five messages in it, and two empty channels."""
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": "anna", "name": "Anna"}, {"user_id": "rex", "name": "Rex"}])
        await session.execute(
            insert(Channel), [a_channel("one", 5), a_channel("two", 0), a_channel("three", 0)]
        )
        await session.execute(insert(Member), [a_member("anna", 5), a_member("rex", 1), a_member("gone", 0)])
        await session.execute(insert(Message), [a_message(seq) for seq in range(1, 6)])


def a_channel(name: str, messages: int) -> dict[str, Any]:
    return {
        "cid": f"messaging:{name}",
        "type": "messaging",
        "channel_id": name,
        "name": name.title(),
        "custom": {"topic": name},
        "created_by_id": "anna",
        "member_count": 3 if messages else 0,
        "last_seq": messages,
        "last_message_at": AT + timedelta(seconds=messages) if messages else None,
        "created_at": AT + timedelta(minutes=len(name)),
        "updated_at": AT,
    }


def a_member(user_id: str, read_seq: int) -> dict[str, Any]:
    member = {"cid": "messaging:one", "user_id": user_id, "custom": {"since": 1}, "read_seq": read_seq}
    return {**member, "last_read_at": AT if read_seq else None, "created_at": AT}


def a_message(seq: int) -> dict[str, Any]:
    of_campaign = seq < 5
    return {
        "id": IDS[seq - 1],
        "cid": "messaging:one",
        "seq": seq,
        "sender_id": "anna",
        "text": f"Hello {seq}",
        "attachments": [{"title": "tea"}],
        "custom": {"campaign_id": "spring"} if of_campaign else {"campaign_id": "not really"},
        "poll_id": "poll-1",
        "campaign_no": 7 if of_campaign else None,
        "created_at": AT + timedelta(seconds=seq),
    }


CHANNEL = """query ($cid: String!) { channel(cid: $cid) {
  id cid type channelId name team custom frozen memberCount createdAt lastMessageAt createdBy { userId }
  members { totalCount nodes {
    userId channelRole custom hidden archived muted unreadCount lastReadAt user { name }
  } }
  messages(first: 2) { totalCount pageInfo { hasNextPage endCursor } nodes {
    id messageId cid type text attachments custom pollId campaignId createdAt senderId
    sender { name } channel { cid }
  } }
} }"""


@pytest.mark.usefixtures("stored")
async def test_a_channel_with_its_members_and_messages(viewer: Client) -> None:
    channel = (await viewer.data(CHANNEL, cid="messaging:one"))["channel"]
    members, messages = channel.pop("members"), channel.pop("messages")
    assert channel == {
        "id": encode_id("Channel", "messaging:one"),
        "cid": "messaging:one",
        "type": "messaging",
        "channelId": "one",
        "name": "One",
        "team": None,
        "custom": {"topic": "one"},
        "frozen": False,
        "memberCount": 3,
        "createdAt": "2026-01-31T09:33:00.000000Z",
        "lastMessageAt": "2026-01-31T09:30:05.000000Z",
        "createdBy": {"userId": "anna"},
    }
    assert members["totalCount"] == 3
    assert [(m["userId"], m["unreadCount"], m["user"]) for m in members["nodes"]] == [
        ("anna", 0, {"name": "Anna"}),
        ("gone", 5, None),
        ("rex", 4, {"name": "Rex"}),
    ]
    assert (
        members["nodes"][2].items()
        >= {
            "channelRole": "channel_member",
            "custom": {"since": 1},
            "hidden": False,
            "archived": False,
            "muted": False,
            "lastReadAt": "2026-01-31T09:30:00.000000Z",
        }.items()
    )
    assert messages["totalCount"] == 5
    assert messages["pageInfo"]["hasNextPage"] is True
    assert messages["nodes"][0] == {
        "id": encode_id("Message", IDS[0]),
        "messageId": IDS[0],
        "cid": "messaging:one",
        "type": "regular",
        "text": "Hello 1",
        "attachments": [{"title": "tea"}],
        "custom": {"campaign_id": "spring"},
        "pollId": "poll-1",
        "campaignId": "spring",
        "createdAt": "2026-01-31T09:30:01.000000Z",
        "senderId": "anna",
        "sender": {"name": "Anna"},
        "channel": {"cid": "messaging:one"},
    }


PAGE = """query ($first: Int, $after: String, $last: Int, $before: String) {
  channel(cid: "messaging:one") { messages(first: $first, after: $after, last: $last, before: $before) {
    nodes { text campaignId } pageInfo { startCursor endCursor }
  } }
}"""


@pytest.mark.usefixtures("stored")
async def test_messages_are_paged_oldest_first_both_ways(viewer: Client) -> None:
    async def page(**arguments: Any) -> tuple[list[str], dict[str, str]]:
        found = (await viewer.data(PAGE, **arguments))["channel"]["messages"]
        return [node["text"] for node in found["nodes"]], found["pageInfo"]

    texts, info = await page(first=2)
    assert texts == ["Hello 1", "Hello 2"]
    assert (await page(first=9, after=info["endCursor"]))[0] == ["Hello 3", "Hello 4", "Hello 5"]
    texts, info = await page(last=2)
    assert texts == ["Hello 4", "Hello 5"]
    assert (await page(last=1, before=info["startCursor"]))[0] == ["Hello 3"]


@pytest.mark.usefixtures("stored")
async def test_only_what_a_campaign_sent_has_its_id(viewer: Client) -> None:
    nodes = (await viewer.data(PAGE, last=2))["channel"]["messages"]["nodes"]
    assert [node["campaignId"] for node in nodes] == ["spring", None]


LIST = """query ($filter: JSON, $sort: [ChannelSort!], $first: Int, $after: String) {
  channels(filter: $filter, sort: $sort, first: $first, after: $after) {
    totalCount nodes { channelId } pageInfo { endCursor }
  }
}"""


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["one", "three", "two"]),
        ({"filter": {}}, ["one", "three", "two"]),
        ({"filter": {"topic": {"$in": ["two", "three"]}}}, ["three", "two"]),
        ({"filter": {"members": {"$in": ["rex"]}}}, ["one"]),
        ({"sort": [{"field": "CID", "direction": "DESC"}]}, ["two", "three", "one"]),
        ({"sort": [{"field": "CREATED_AT"}]}, ["one", "two", "three"]),
        (
            {"sort": [{"field": "MEMBER_COUNT", "direction": "DESC"}, {"field": "CID"}]},
            ["one", "three", "two"],
        ),
        ({"sort": [{"field": "LAST_MESSAGE_AT", "direction": "DESC"}]}, ["one", "two", "three"]),
        ({"sort": [{"field": "LAST_MESSAGE_AT"}, {"field": "LAST_MESSAGE_AT"}]}, ["one", "three", "two"]),
    ],
)
async def test_channels_are_filtered_sorted_and_paged(
    viewer: Client, arguments: dict[str, Any], expected: list[str]
) -> None:
    found: list[str] = []
    after = None
    for _ in expected:
        page = (await viewer.data(LIST, first=1, after=after, **arguments))["channels"]
        assert page["totalCount"] == len(expected)
        found += [node["channelId"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert found == expected


async def test_mistakes_have_codes(viewer: Client) -> None:
    error = await viewer.error(LIST, filter={"cid": {"$near": 1}})
    assert error["extensions"]["code"] == "INVALID_INPUT"
    error = await viewer.error(LIST, first=1_001)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    error = await viewer.error("query ($id: ID!) { node(id: $id) { id } }", id=encode_id("Member", "one"))
    assert error["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.usefixtures("stored")
async def test_everything_is_found_by_its_global_id(viewer: Client) -> None:
    keys = {"Channel": "messaging:one", "Member": "messaging:one rex", "Message": IDS[2]}
    ids = [encode_id(kind, key) for kind, key in keys.items()]
    absent = [encode_id("Channel", "x:y"), encode_id("Member", "x:y z"), encode_id("Message", "x")]
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }"
    nodes = (await viewer.data(query, ids=ids + absent))["nodes"]
    assert [node and node["__typename"] for node in nodes] == [*keys, None, None, None]
    assert [node["id"] for node in nodes[:3]] == ids


async def test_no_such_channel(viewer: Client) -> None:
    assert await viewer.data('{ channel(cid: "no such:channel") { cid } }') == {"channel": None}

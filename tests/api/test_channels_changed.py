"""Channels and members changed, read and deleted over GraphQL, and every refusal with its place."""

from typing import Any

import pytest

from app.database import Database
from app.graphql.nodes import encode_id
from app.users.service import upsert_users
from tests.api.campaigns import Campaigns, send_everything
from tests.api.conftest import Client

ERRORS = "errors { code message path details }"
CHANNEL = """id cid type channelId name team custom frozen memberCount createdBy { userId }
  members { nodes { userId hidden archived muted unreadCount lastReadAt } }"""
NAMES = ["ann", "bob", "cid", "sender"]


class Channels:
    """What these tests do with channels and users, through the API."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def change(self, mutation: str, wanted: str, **given: Any) -> Any:
        """The payload of a mutation."""
        kind = f"{mutation[0].upper()}{mutation[1:]}Input"
        document = f"mutation ($input: {kind}!) {{ {mutation}(input: $input) {{ {wanted} {ERRORS} }} }}"
        return (await self.client.data(document, input=given))[mutation]

    async def done(self, mutation: str, **given: Any) -> Any:
        """The channel after a mutation that has to succeed."""
        payload = await self.change(mutation, f"channel {{ {CHANNEL} }}", **given)
        assert payload["errors"] == []
        return payload["channel"]

    async def upsert(self, *channels: dict[str, Any]) -> Any:
        """The payload of upsertChannels."""
        return await self.change("upsertChannels", f"channels {{ {CHANNEL} }}", channels=channels)

    async def made(self, *channels: dict[str, Any]) -> Any:
        """The channels of an upsert that has to succeed."""
        payload = await self.upsert(*channels)
        assert payload["errors"] == []
        return payload["channels"]

    async def refused(self, mutation: str, **given: Any) -> list[tuple[str, list[str]]]:
        """Code and path of the errors of a mutation of one channel that has to fail."""
        payload = await self.change(mutation, "channel { cid }", **given)
        assert payload["channel"] is None
        return [(error["code"], error["path"]) for error in payload["errors"]]

    async def delete(self, mutation: str, **given: Any) -> Any:
        """The payload of a deletion."""
        return await self.change(mutation, "deletedIds", **given)


@pytest.fixture
async def channels(client: Client, database: Database) -> Channels:
    """Four users, and nothing else."""
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": name, "name": name.title()} for name in NAMES])
    return Channels(client)


def people(channel: Any) -> list[str]:
    return [member["userId"] for member in channel["members"]["nodes"]]


async def test_channels_are_created_changed_and_found(channels: Channels) -> None:
    said = {"type": "team", "channelId": "red", "name": "Red", "team": "r", "custom": {"a": {"b": 1}}}
    first, pair = await channels.made(
        {**said, "createdById": "ann", "frozen": True, "members": ["bob", "ann"]},
        {"type": "messaging", "members": ["ann", "bob"]},
    )
    assert {name: first[name] for name in said} == said
    assert (first["createdBy"], first["frozen"], first["memberCount"]) == ({"userId": "ann"}, True, 2)
    assert people(first) == people(pair) == ["ann", "bob"]
    [again] = await channels.made({"type": "messaging", "members": ["bob", "ann"], "name": "Pair"})
    assert (again["cid"], again["name"]) == (pair["cid"], "Pair")
    [changed] = await channels.made({"type": "team", "channelId": "red", "name": None, "frozen": None})
    assert (changed["name"], changed["frozen"], changed["team"], people(changed)) == (
        None,
        False,
        "r",
        ["ann", "bob"],
    )
    found = await channels.client.data('{ channel(cid: "team:red") { id } }')
    assert found == {"channel": {"id": first["id"]}}


async def test_refusals_name_the_place_and_nothing_is_stored(channels: Channels) -> None:
    fine = {"type": "team", "channelId": "fine"}
    payload = await channels.upsert(
        fine, {"type": "t t", "channelId": "a b", "custom": {"created_at": 1}}, {"type": "team"}
    )
    assert payload["channels"] == []
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", ["channels", "1", "type"]),
        ("INVALID_INPUT", ["channels", "1", "channelId"]),
        ("INVALID_INPUT", ["channels", "1", "custom", "created_at"]),
        ("INVALID_INPUT", ["channels", "2", "members"]),
    ]
    payload = await channels.upsert(fine, {**fine, "channelId": "x", "members": ["ann", "no"]})
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", ["channels", "1", "members", "1"])
    ]
    payload = await channels.upsert({**fine, "createdById": "no"})
    assert [error["path"] for error in payload["errors"]] == [["channels", "0", "createdById"]]
    payload = await channels.upsert(*[fine] * 1_001)
    assert payload["errors"][0]["details"] == {"limit": 1_000, "given": 1_001}
    assert await channels.client.data("{ channels { totalCount } }") == {"channels": {"totalCount": 0}}


async def test_members_come_change_and_go(channels: Channels) -> None:
    await channels.made({"type": "team", "channelId": "red"})
    cid = {"cid": "team:red"}
    channel = await channels.done("addChannelMembers", **cid, userIds=["ann", "bob", "ann"])
    assert (channel["memberCount"], people(channel)) == (2, ["ann", "bob"])
    channel = await channels.done("updateChannelMember", **cid, userId="ann", hidden=True, muted=True)
    ann = channel["members"]["nodes"][0]
    assert (ann["hidden"], ann["archived"], ann["muted"]) == (True, False, True)
    channel = await channels.done("updateChannelMember", **cid, userId="ann", archived=True, hidden=None)
    ann = channel["members"]["nodes"][0]
    assert (ann["hidden"], ann["archived"], ann["muted"]) == (False, True, True)
    channel = await channels.done("removeChannelMembers", **cid, userIds=["ann", "nobody"])
    assert people(channel) == ["bob"]
    assert people((await channels.made({"type": "team", "channelId": "red", "members": ["cid"]}))[0]) == [
        "cid"
    ]


async def test_what_is_not_there_is_not_found(channels: Channels) -> None:
    await channels.made({"type": "team", "channelId": "red"})
    absent = [("NOT_FOUND", ["cid"])]
    for mutation, given in (
        ("addChannelMembers", {"userIds": ["ann"]}),
        ("removeChannelMembers", {"userIds": ["ann"]}),
        ("updateChannelMember", {"userId": "ann"}),
        ("markChannelRead", {"userId": "ann"}),
    ):
        assert await channels.refused(mutation, cid="team:blue", **given) == absent
    for mutation in ("updateChannelMember", "markChannelRead"):
        refused = await channels.refused(mutation, cid="team:red", userId="ann")
        assert refused == [("NOT_FOUND", ["userId"])]
    refused = await channels.refused("addChannelMembers", cid="team:blue", userIds=["ann", "no", "no no"])
    assert refused == [("INVALID_INPUT", ["userIds", "2"])]
    refused = await channels.refused("addChannelMembers", cid="team:blue", userIds=["ann", "no"])
    assert refused == [("INVALID_INPUT", ["userIds", "1"]), *absent]


@pytest.fixture
async def sent(channels: Channels, database: Database, valkey_url: str) -> Channels:
    """A campaign in the distinct channels of ann and bob with the sender."""
    campaigns = Campaigns(channels.client)
    template = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
    await campaigns.draft("c", userIds=["ann", "bob"], **template)
    await campaigns.done("start", campaignId="c")
    await send_everything(database, valkey_url)
    return channels


async def channel_of(client: Client, user_id: str) -> Any:
    document = f"query ($id: String!) {{ user(userId: $id) {{ channels {{ nodes {{ {CHANNEL} }} }} }} }}"
    return (await client.data(document, id=user_id))["user"]["channels"]["nodes"][0]


RECIPIENTS = """{ campaign(campaignId: "c") { stats { sent usersSent usersRead } recipients { nodes {
  targetId status detail messageId readAt message { text } channel { cid } user { name } } } } }"""
WATCH = """subscription { campaignUpdated(campaignId: "c", follow: true) { stats { usersRead } } }"""


async def test_what_was_read_is_not_unread_and_counts(sent: Channels) -> None:
    cid = (await channel_of(sent.client, "ann"))["cid"]
    channel = await channel_of(sent.client, "ann")
    assert [member["unreadCount"] for member in channel["members"]["nodes"]] == [1, 0]
    channel = await sent.done("markChannelRead", cid=cid, userId="ann")
    ann = channel["members"]["nodes"][0]
    assert (ann["unreadCount"], ann["lastReadAt"] is not None) == (0, True)
    campaign = (await sent.client.data(RECIPIENTS))["campaign"]
    assert campaign["stats"] == {"sent": 2, "usersSent": 2, "usersRead": 1}
    assert [each["readAt"] == ann["lastReadAt"] for each in campaign["recipients"]["nodes"]] == [True, False]


async def test_one_document_sees_what_its_own_mutations_did(sent: Channels) -> None:
    cid = (await channel_of(sent.client, "ann"))["cid"]
    mark = f"channel {{ {CHANNEL} }}"
    document = f"""mutation ($cid: String!) {{
      before: updateChannelMember(input: {{cid: $cid, userId: "ann"}}) {{ {mark} }}
      after: markChannelRead(input: {{cid: $cid, userId: "ann"}}) {{ {mark} }} }}"""
    answer = await sent.client.data(document, cid=cid)
    counts = [answer[name]["channel"]["members"]["nodes"][0]["unreadCount"] for name in ("before", "after")]
    assert counts == [1, 0]


async def test_who_watches_a_campaign_sees_it_read(sent: Channels) -> None:
    cid = (await channel_of(sent.client, "ann"))["cid"]
    async with sent.client.subscribed(WATCH) as watched:
        assert (await watched.next())["campaignUpdated"]["stats"] == {"usersRead": 0}
        await sent.done("markChannelRead", cid=cid, userId="ann")
        assert (await watched.next())["campaignUpdated"]["stats"] == {"usersRead": 1}


async def test_deleted_channels_are_gone_and_the_ledger_says_so(sent: Channels) -> None:
    channel = await channel_of(sent.client, "ann")
    cids = [channel["cid"], "team:no-such"]
    assert await sent.delete("deleteChannels", cids=cids) == {"deletedIds": [channel["id"]], "errors": []}
    assert await sent.delete("deleteChannels", cids=cids) == {"deletedIds": [], "errors": []}
    ann, bob = (await sent.client.data(RECIPIENTS))["campaign"]["recipients"]["nodes"]
    assert ann == {
        "targetId": "ann",
        "status": "SENT",
        "detail": "The message was deleted.",
        "messageId": None,
        "readAt": None,
        "message": None,
        "channel": None,
        "user": {"name": "Ann"},
    }
    assert (bob["detail"], bob["message"]) == (None, {"text": "Hello Bob"})
    payload = await sent.delete("deleteChannels", cids=["team:red", "team"])
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [
        ("INVALID_INPUT", ["cids", "1"])
    ]


async def test_deleted_users_are_members_of_nothing_and_the_ledger_knows_them(sent: Channels) -> None:
    channel = await channel_of(sent.client, "ann")
    ids = {"userIds": ["ann", "nobody"], "eraseMessages": True}
    ann_id = encode_id("User", "ann")
    assert await sent.delete("deleteUsers", **ids) == {"deletedIds": [ann_id], "errors": []}
    assert await sent.delete("deleteUsers", **ids) == {"deletedIds": [ann_id], "errors": []}
    assert await sent.delete("deleteUsers", userIds=["ann"]) == {"deletedIds": [], "errors": []}
    found = await sent.client.data(
        f"""query ($id: ID!, $cid: String!) {{ user(userId: "ann") {{ id }} node(id: $id) {{ id }}
        users {{ nodes {{ userId }} }} channel(cid: $cid) {{ {CHANNEL} messages {{ totalCount }} }} }}""",
        id=ann_id,
        cid=channel["cid"],
    )
    assert (found["user"], found["node"]) == (None, None)
    assert found["users"]["nodes"] == [{"userId": name} for name in ("bob", "cid", "sender")]
    assert (found["channel"]["memberCount"], people(found["channel"])) == (1, ["sender"])
    assert found["channel"]["members"]["nodes"][0]["unreadCount"] == 0
    assert found["channel"]["messages"] == {"totalCount": 0}
    ann = (await sent.client.data(RECIPIENTS))["campaign"]["recipients"]["nodes"][0]
    assert (ann["targetId"], ann["status"], ann["messageId"], ann["user"]) == ("ann", "SENT", None, None)
    payload = await sent.delete("deleteUsers", userIds=[])
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [("INVALID_INPUT", ["userIds"])]


async def test_a_viewer_changes_nothing(channels: Channels, viewer: Client) -> None:
    for mutation, given in (
        ("upsertChannels", {"channels": [{"type": "t", "channelId": "c"}]}),
        ("deleteChannels", {"cids": ["t:c"]}),
        ("deleteUsers", {"userIds": ["ann"]}),
        ("markChannelRead", {"cid": "t:c", "userId": "ann"}),
    ):
        kind = f"{mutation[0].upper()}{mutation[1:]}Input"
        document = f"mutation ($input: {kind}!) {{ {mutation}(input: $input) {{ errors {{ code }} }} }}"
        error = await viewer.error(document, input=given)
        assert error["extensions"]["code"] == "FORBIDDEN"
    assert await viewer.data("{ users { totalCount } }") == {"users": {"totalCount": 4}}


async def test_a_segment_of_channels_by_their_members(channels: Channels) -> None:
    await channels.made(
        *({"type": "team", "channelId": name, "members": ["ann", name]} for name in ("bob", "cid")),
        {"type": "team", "channelId": "none"},
    )
    wanted = {"members": {"$in": ["ann"]}, "id": {"$ne": "cid"}}
    document = """mutation ($filter: JSON!) {
      createSegment(input: {segmentId: "s", type: CHANNEL, filter: $filter}) { errors { code }
        segment { targets { nodes { targetId channel { memberCount } user { userId } } }
          yes: targetExists(targetId: "team:bob") no: targetExists(targetId: "team:cid") } } }"""
    payload = (await channels.client.data(document, filter=wanted))["createSegment"]
    target = {"targetId": "team:bob", "channel": {"memberCount": 2}, "user": None}
    assert payload == {"errors": [], "segment": {"targets": {"nodes": [target]}, "yes": True, "no": False}}
    listed = await channels.client.data(
        "query ($filter: JSON) { channels(filter: $filter) { nodes { cid } } }", filter=wanted
    )
    assert listed == {"channels": {"nodes": [{"cid": "team:bob"}]}}

"""Campaigns over GraphQL: drafts, what may be said in them, how they change, and their list."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.campaigns.models import Campaign, CampaignTarget
from app.database import Database, now
from app.graphql.nodes import decode_id
from tests.api.campaigns import DRAFT, Campaigns, people
from tests.api.conftest import Client

LIST = """query ($filter: CampaignFilter, $sort: [CampaignSort!], $first: Int, $after: String) {
  campaigns(filter: $filter, sort: $sort, first: $first, after: $after) {
    nodes { campaignId } totalCount pageInfo { hasNextPage endCursor } } }"""
SEGMENT = "mutation ($i: CreateSegmentInput!) { createSegment(input: $i) { errors { message } } }"
DELETE_SEGMENT = 'mutation { deleteSegment(input: {segmentId: "vip"}) { errors { code details } } }'


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    await people(database, 3)
    return Campaigns(client)


async def segment(client: Client, segment_id: str, **given: Any) -> None:
    made = await client.data(SEGMENT, i={"segmentId": segment_id, "type": "USER", **given})
    assert made["createSegment"]["errors"] == []


async def test_a_draft_says_what_it_was_given(campaigns: Campaigns) -> None:
    await segment(campaigns.client, "vip")
    await segment(campaigns.client, "all", allUsers=True)
    given = {
        "name": "Spring",
        "description": "All of it",
        "senderMode": "EXCLUDE",
        "senderVisibility": "ARCHIVED",
        "messageTemplate": {
            "text": "Hi {{ receiver.name }}",
            "attachments": [{"title": "{{ sender.name }}"}],
            "custom": {"n": 1},
            "pollId": "poll",
            "defaults": {"receiver.name": "there"},
        },
        "channelTemplate": {
            "type": "messaging",
            "id": "for-{{ receiver.id }}",
            "team": "red",
            "custom": {"a": {"b": [1, None]}},
            "members": None,
            "membersTemplate": [{"userId": "u01", "channelRole": "boss", "custom": {"x": True}}],
        },
        "createChannels": True,
        "showChannels": True,
        "skipPush": True,
        "skipWebhook": True,
        "maxMessagesPerSecond": 50,
    }
    made = await campaigns.draft("spring", segmentIds=["vip", "all"], **given)
    assert {name: made[name] for name in given} == given
    assert decode_id(made["id"])[0] == "Campaign"
    assert [each["segmentId"] for each in made["segments"]] == ["vip", "all"]
    assert (made["status"], made["statusReason"], made["statusMessage"]) == ("DRAFT", None, None)
    assert made["sender"] == {"userId": "sender"}
    assert made["targets"] == {"nodes": [], "totalCount": 0}
    assert made["audienceEstimate"] is None  # nobody has counted all users yet
    assert made["allowedActions"] == ["START", "EDIT", "DELETE"]
    assert made["stats"]["targets"] == 0
    assert made["stats"]["planned"] is False
    again = await campaigns.read("spring")
    made["stats"].pop("asOf")
    again["stats"].pop("asOf")
    assert again == made


async def test_the_least_that_makes_a_draft(campaigns: Campaigns) -> None:
    made = await campaigns.done("create", **DRAFT)
    assert made["campaignId"].count("-") == 4
    assert made["messageTemplate"]["defaults"] == {}
    assert made["channelTemplate"] is None
    assert made["createChannels"] is False
    assert made["audienceEstimate"] == 0


async def test_named_users_need_not_exist(campaigns: Campaigns) -> None:
    made = await campaigns.draft("c", userIds=["u01", "nobody", "u01"])
    assert made["targets"] == {"nodes": [{"targetId": "nobody"}, {"targetId": "u01"}], "totalCount": 2}
    assert made["audienceEstimate"] == 2


MISTAKES: list[tuple[Any, Any]] = [
        ({"senderId": "nobody"}, [("INVALID_INPUT", ["senderId"])]),
        (
            {"senderId": "nobody", "segmentIds": ["x", "y"]},
            [
                ("INVALID_INPUT", ["senderId"]),
                ("INVALID_INPUT", ["segmentIds", "0"]),
                ("INVALID_INPUT", ["segmentIds", "1"]),
            ],
        ),
        ({"segmentIds": ["x"], "userIds": ["u00"]}, [("INVALID_INPUT", ["userIds"])]),
        ({"userIds": ["u 0", ""]}, [("INVALID_INPUT", ["userIds", str(n)]) for n in (0, 1)]),
        ({"userIds": ["u"] * 10_001}, [("LIMIT_EXCEEDED", ["userIds"])]),
        ({"segmentIds": ["s"] * 26}, [("LIMIT_EXCEEDED", ["segmentIds"])]),
        ({"campaignId": "a b", "name": "n" * 129}, [
            ("INVALID_INPUT", ["campaignId"]), ("LIMIT_EXCEEDED", ["name"])]),
        ({"messageTemplate": {"text": "{{ oops"}}, [("INVALID_INPUT", ["messageTemplate", "text"])]),
        (
            {"messageTemplate": {"text": "ok", "custom": {"pollId": "{{ nobody.name }}"}}},
            [("INVALID_INPUT", ["messageTemplate", "custom", "pollId"])],
        ),
        (
            {"channelTemplate": {"type": "a b", "id": "same-for-all"}},
            [("INVALID_INPUT", ["channelTemplate", "type"]), ("INVALID_INPUT", ["channelTemplate", "id"])],
        ),
        (
            {"channelTemplate": {"type": "m", "members": ["a"], "membersTemplate": [{"userId": "b"}]}},
            [("INVALID_INPUT", ["channelTemplate", "membersTemplate"])],
        ),
        ({"maxMessagesPerSecond": 0}, [("INVALID_INPUT", ["maxMessagesPerSecond"])]),
    ]  # fmt: skip


async def test_what_a_draft_may_not_say(campaigns: Campaigns) -> None:
    for given, errors in MISTAKES:
        assert await campaigns.refused("create", **{**DRAFT, **given}) == errors, given
    assert (await campaigns.client.data(LIST))["campaigns"]["totalCount"] == 0


async def test_an_id_is_taken_once_even_by_two_at_a_time(campaigns: Campaigns) -> None:
    payloads = await asyncio.gather(
        *(campaigns.change("create", campaignId="same", **DRAFT) for _ in range(4))
    )
    assert sorted(len(payload["errors"]) for payload in payloads) == [0, 1, 1, 1]
    assert {(error["code"], *error["path"]) for payload in payloads for error in payload["errors"]} == {
        ("ALREADY_EXISTS", "campaignId")
    }


async def test_what_is_omitted_stays_and_null_clears(campaigns: Campaigns) -> None:
    await segment(campaigns.client, "vip")
    made = await campaigns.draft(
        "c", name="Old", userIds=["u00"], channelTemplate={"type": "m"}, maxMessagesPerSecond=5
    )
    changed = await campaigns.done("update", campaignId="c", description="New")
    assert changed["updatedAt"] > made["updatedAt"]
    assert {**changed, "description": None, "updatedAt": made["updatedAt"], "stats": made["stats"]} == made

    cleared = await campaigns.done(
        "update",
        campaignId="c",
        name=None,
        channelTemplate=None,
        maxMessagesPerSecond=None,
        userIds=None,
        segmentIds=["vip"],
    )
    assert (cleared["name"], cleared["channelTemplate"], cleared["maxMessagesPerSecond"]) == (None,) * 3
    assert cleared["targets"]["totalCount"] == 0
    assert [each["segmentId"] for each in cleared["segments"]] == ["vip"]
    assert await campaigns.refused("update", campaignId="c", userIds=["u00"]) == [
        ("INVALID_INPUT", ["userIds"])
    ]


async def test_what_cannot_be_cleared(campaigns: Campaigns) -> None:
    await campaigns.draft("c")
    required = {"senderId": None, "messageTemplate": None, "createChannels": None, "skipPush": None}
    assert sorted(await campaigns.refused("update", campaignId="c", **required)) == sorted(
        ("INVALID_INPUT", [name]) for name in required
    )
    assert await campaigns.refused("update", campaignId="nobody", name="x") == [("NOT_FOUND", ["campaignId"])]
    assert await campaigns.refused("update", campaignId="c", senderId="nobody", segmentIds=["no"]) == [
        ("INVALID_INPUT", ["senderId"]),
        ("INVALID_INPUT", ["segmentIds", "0"]),
    ]
    assert (await campaigns.read("c"))["senderId"] == "sender"


async def test_a_deleted_campaign_is_gone_and_its_id_free(campaigns: Campaigns) -> None:
    made = await campaigns.draft("c")
    assert await campaigns.delete("c") == {"deletedIds": [made["id"]], "errors": []}
    assert await campaigns.read("c") is None
    assert (await campaigns.delete("c"))["errors"][0]["code"] == "NOT_FOUND"
    again = await campaigns.draft("c")
    assert again["id"] != made["id"]
    nodes = await campaigns.client.data(
        "query ($ids: [ID!]!) { nodes(ids: $ids) { id ... on Campaign { campaignId stats { pending } } } }",
        ids=[made["id"], again["id"]],
    )
    assert nodes["nodes"] == [None, {"id": again["id"], "campaignId": "c", "stats": {"pending": 0}}]


async def test_segments_stay_visible_through_their_campaigns(campaigns: Campaigns) -> None:
    await segment(campaigns.client, "vip")
    await campaigns.draft("c", segmentIds=["vip"])
    refused = (await campaigns.client.data(DELETE_SEGMENT))["deleteSegment"]
    assert refused["errors"] == [{"code": "CONFLICT", "details": {"campaignIds": ["c"]}}]
    named = await campaigns.client.data(
        '{ segment(segmentId: "vip") { campaigns { totalCount nodes { campaignId stats { sent } } } } }'
    )
    assert named["segment"]["campaigns"] == {
        "totalCount": 1,
        "nodes": [{"campaignId": "c", "stats": {"sent": 0}}],
    }
    await campaigns.draft("other", userIds=["u00"], channelTemplate={"type": "m"}, createChannels=True)
    await campaigns.done("update", campaignId="c", segmentIds=["vip"])
    await campaigns.done("start", campaignId="c")
    await campaigns.done("stop", campaignId="c")
    assert (await campaigns.client.data(DELETE_SEGMENT))["deleteSegment"]["errors"] == []
    assert [each["deletedAt"] is not None for each in (await campaigns.read("c"))["segments"]] == [True]
    found = await campaigns.client.data(LIST, filter={"segmentId": {"eq": "vip"}})
    assert found["campaigns"]["nodes"] == [{"campaignId": "c"}]


async def test_the_estimate_adds_up_counted_segments(campaigns: Campaigns) -> None:
    client = campaigns.client
    await segment(client, "one")
    await segment(client, "two")
    add = """mutation ($ids: [String!]!) {
      addSegmentTargets(input: {segmentId: "one", targetIds: $ids}) { errors { message } } }"""
    await client.data(add, ids=["a", "b", "c"])
    made = await campaigns.draft("c", segmentIds=["one", "two"])
    assert made["audienceEstimate"] == 3


async def test_viewers_read_and_change_nothing(viewer: Client, campaigns: Campaigns) -> None:
    await campaigns.draft("c")
    seen = await viewer.data('{ campaign(campaignId: "c") { status allowedActions } }')
    assert seen["campaign"] == {"status": "DRAFT", "allowedActions": []}
    for mutation in ("start", "stop", "pause", "resume", "unschedule", "delete"):
        error = await viewer.error(
            f'mutation {{ {mutation}Campaign(input: {{campaignId: "c"}}) {{ errors {{ code }} }} }}'
        )
        assert error["extensions"]["code"] == "FORBIDDEN"


@pytest.fixture
async def several(campaigns: Campaigns, database: Database) -> Campaigns:
    """Four campaigns, a to d, created in this order a minute apart."""
    await segment(campaigns.client, "vip")
    await campaigns.draft("a", name="Spring sale", segmentIds=["vip"])
    await campaigns.draft("b", name="Autumn", senderId="u00", userIds=["u01"])
    await campaigns.draft("c", name="spring break", segmentIds=["vip"])
    await campaigns.draft("d", userIds=["u01"])
    async with database.transaction() as session:
        at = await now(session) - timedelta(hours=1)
        for minute, campaign_id in enumerate("abcd"):
            created = at + timedelta(minutes=minute)
            await session.execute(
                update(Campaign)
                .where(Campaign.campaign_id == campaign_id)  # type: ignore[arg-type]
                .values(created_at=created)
            )
    later = "2999-01-01T00:00:00Z"
    await campaigns.done("start", campaignId="d", scheduledFor=later)
    return campaigns


FILTERS: list[tuple[Any, str]] = [
    ({}, "dcba"),
    ({"campaignId": {"in": ["a", "d", "x"]}}, "da"),
    ({"name": {"autocomplete": "SPR"}}, "ca"),
    ({"name": {"exists": False}}, "d"),
    ({"senderId": {"eq": "u00"}}, "b"),
    ({"status": {"in": ["SCHEDULED", "PAUSED"]}}, "d"),
    ({"status": {"eq": "DRAFT"}, "segmentId": {"in": ["vip", "other"]}}, "ca"),
    ({"segmentId": {"eq": "other"}}, ""),
    ({"scheduledFor": {"gt": "2998-01-01T00:00:00Z"}}, "d"),
    ({"scheduledFor": {"exists": False}}, "cba"),
    ({"createdAt": {"gt": "2998-01-01T00:00:00Z"}}, ""),
    ({"or": [{"campaignId": {"eq": "a"}}, {"and": [{"senderId": {"eq": "u00"}}]}]}, "ba"),
]
SORTS: list[tuple[Any, str]] = [
    (None, "dcba"),
    ([{"field": "CREATED_AT"}], "abcd"),
    ([{"field": "NAME"}], "bacd"),
    ([{"field": "NAME", "direction": "DESC"}], "cabd"),
    ([{"field": "SCHEDULED_FOR"}, {"field": "CREATED_AT", "direction": "DESC"}], "dcba"),
    ([{"field": "UPDATED_AT"}], "abcd"),
]
REFUSED: list[tuple[Any, str]] = [
    ({"name": None}, "INVALID_INPUT"),
    ({"segmentId": {"eq": None}}, "INVALID_INPUT"),
    ({"or": []}, "INVALID_INPUT"),
    ({"campaignId": {"in": ["x"] * 1_001}}, "LIMIT_EXCEEDED"),
    ({"segmentId": {"in": ["x"] * 1_001}}, "LIMIT_EXCEEDED"),
]


async def test_the_list_is_filtered_sorted_and_paged(several: Campaigns) -> None:
    for filter, found in FILTERS:
        listed = (await several.client.data(LIST, filter=filter))["campaigns"]
        assert "".join(node["campaignId"] for node in listed["nodes"]) == found, filter
        assert listed["totalCount"] == len(found), filter
    for sort, found in SORTS:
        assert await _one_by_one(several.client, sort) == found, sort


async def _one_by_one(client: Client, sort: Any) -> str:
    found, after = "", None
    while True:
        listed = (await client.data(LIST, sort=sort, first=1, after=after))["campaigns"]
        found += "".join(node["campaignId"] for node in listed["nodes"])
        if not listed["pageInfo"]["hasNextPage"]:
            return found
        after = listed["pageInfo"]["endCursor"]


async def test_filters_that_mean_nothing_are_refused(client: Client) -> None:
    for filter, code in REFUSED:
        assert (await client.error(LIST, filter=filter))["extensions"]["code"] == code, filter


async def test_a_page_has_at_most_a_hundred(client: Client) -> None:
    assert (await client.error(LIST, first=101))["extensions"]["code"] == "LIMIT_EXCEEDED"


async def test_a_failed_creation_leaves_nothing(campaigns: Campaigns, database: Database) -> None:
    await campaigns.refused("create", **{**DRAFT, "senderId": "nobody"}, userIds=["u00", "u01"])
    async with database.read() as session:
        assert (await session.execute(select(CampaignTarget))).all() == []

"""Idempotency-Key: whatever dies, wherever it dies, the repeat does what was not done and only that."""

from itertools import count
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import SQLModel
from strawberry.types.base import get_object_definition

from app.database import Database, now
from app.graphql import outcomes
from app.keys.roles import Role
from app.schema import schema
from app.webhooks.models import Delivery, Endpoint
from tests.api.campaigns import ERRORS, people, send_everything
from tests.api.conftest import Client, new_key
from tests.api.idempotency import CREATE, LIST, SENDER, TEMPLATE, End, Sender, ending, let_leases_run_out


@pytest.fixture
async def sender(client: Client, database: Database) -> Sender:
    await people(database, 5)
    return Sender(client)


@pytest.mark.parametrize("end", End)
async def test_the_end_may_come_at_any_statement(sender: Sender, database: Database, end: End) -> None:
    """At each statement and commit of three changes: the repeat does what was not done, and only that."""
    await sender.send(None, LIST)
    for number in count():
        name = f"n{number:03}"
        with ending(number, end) as life:
            await sender.several(name, name)
        await let_leases_run_out(database)
        repeat = await sender.several(name, name)
        data = repeat.body["data"]
        assert data["first"]["campaign"] == {**data["first"]["campaign"], "name": name, "sender": SENDER}
        assert data["taken"]["errors"][0]["code"] == "ALREADY_EXISTS"
        assert data["third"]["segment"]["size"] == 2
        new = Client(sender.client.http, sender.client.address, data["second"]["secret"])
        assert await new.data("{ viewer { name } }") == {"viewer": {"name": name}}
        assert (await sender.several(name, name)).text == repeat.text
        if not life.ended:
            break
    assert repeat.replayed and number > 20
    names = [f"n{each:03}" for each in range(number + 1)]
    assert await sender.names() == names
    keys = await sender.client.data("{ apiKeys { name role } }")
    assert [key["name"] for key in keys["apiKeys"] if key["role"] == "VIEWER"] == names


async def test_a_refusal_before_a_commit_stays_one(sender: Sender, database: Database) -> None:
    """Asked again after the second field, the first would be granted: but it came first."""
    await sender.create(None, "taken", campaignId="c")
    document = f"""mutation ($draft: CreateCampaignInput!) {{
      createCampaign(input: $draft) {{ {ERRORS} }}
      deleteCampaign(input: {{campaignId: "c"}}) {{ deletedIds {ERRORS} }} }}"""
    draft = {"draft": {"campaignId": "c", "senderId": "sender", "messageTemplate": TEMPLATE}}
    with ending("UPDATE idempotency_keys SET leased_until"):
        first = await sender.send("k", document, variables=draft)
    await let_leases_run_out(database)
    again = await sender.send("k", document, variables=draft)
    assert again.body == first.body and again.replayed
    assert again.body["data"]["createCampaign"]["errors"][0]["code"] == "ALREADY_EXISTS"
    assert len(again.body["data"]["deleteCampaign"]["deletedIds"]) == 1
    assert await sender.names() == []


# Every mutation: what it is asked, and what of its answer can be read twice.
CAMPAIGN, CHANNEL, DELETED = (
    "campaign { campaignId name status }",
    "channel { cid memberCount }",
    "deletedIds",
)
ENDPOINT = "endpoint { endpointId url eventTypes enabled batchSize createdAt }"
DELIVERY = "delivery { deliveryId status eventType nextAttemptAt payload }"
STORIES: dict[str, tuple[dict[str, Any], str]] = {
    "addChannelMembers": ({"cid": "team:t", "userIds": ["u03"]}, CHANNEL),
    "addSegmentTargets": ({"segmentId": "list", "targetIds": ["a"]}, "segment { segmentId size }"),
    "createApiKey": ({"name": "new", "role": "VIEWER"}, "secret apiKey { keyId name role createdAt }"),
    "createCampaign": (
        {"name": "c", "senderId": "sender", "messageTemplate": TEMPLATE},
        "campaign { id name }",
    ),
    "createSegment": ({"type": "USER"}, "segment { id segmentId size }"),
    "createWebhookEndpoint": ({"url": "https://new.example.com"}, f"secret {ENDPOINT}"),
    "deleteCampaign": ({"campaignId": "draft"}, DELETED),
    "deleteChannels": ({"cids": ["team:t", "team:none"]}, DELETED),
    "deleteSegment": ({"segmentId": "list"}, DELETED),
    "deleteWebhookEndpoint": ({"endpointId": "hook"}, DELETED),
    "deleteUsers": ({"userIds": ["u04", "nobody"], "eraseMessages": True}, DELETED),
    "duplicateCampaign": ({"campaignId": "done"}, "campaign { campaignId name status }"),
    "markChannelRead": ({"cid": "team:t", "userId": "u01"}, CHANNEL),
    "pauseCampaign": ({"campaignId": "running"}, CAMPAIGN),
    "redeliverWebhook": ({"deliveryId": "delivery"}, DELIVERY),
    "removeChannelMembers": ({"cid": "team:t", "userIds": ["u01"]}, CHANNEL),
    "removeSegmentTargets": ({"segmentId": "list", "targetIds": ["b"]}, "segment { segmentId size }"),
    "resumeCampaign": ({"campaignId": "paused"}, CAMPAIGN),
    "retryRecipients": ({"campaignId": "done", "reasons": ["UNKNOWN_USER"]}, CAMPAIGN),
    "revokeApiKey": ({"keyId": "spare"}, "apiKey { keyId revokedAt }"),
    "rotateWebhookSecret": ({"endpointId": "hook"}, f"secret {ENDPOINT}"),
    "startCampaign": ({"campaignId": "draft"}, CAMPAIGN),
    "stopCampaign": ({"campaignId": "running"}, CAMPAIGN),
    "testCampaign": (
        {"campaignId": "draft", "userIds": ["u00", "nobody"]},
        "results { userId messageId cid reason detail }",
    ),
    "testWebhookEndpoint": ({"endpointId": "hook"}, DELIVERY),
    "unscheduleCampaign": ({"campaignId": "scheduled"}, CAMPAIGN),
    "updateCampaign": ({"campaignId": "draft", "name": "renamed"}, CAMPAIGN),
    "updateChannelMember": ({"cid": "team:t", "userId": "u01", "muted": True}, CHANNEL),
    "updateSegment": ({"segmentId": "list", "name": "renamed"}, "segment { segmentId name }"),
    "updateWebhookEndpoint": ({"endpointId": "hook", "enabled": False, "batchSize": 5}, ENDPOINT),
    "upsertChannels": (
        {"channels": [{"type": "team", "channelId": "new", "members": ["u00", "u01"]}]},
        "channels { cid memberCount }",
    ),
    "upsertUsers": (
        {"users": [{"userId": "new"}, {"userId": "u00", "name": "Zero"}]},
        "users { userId name }",
    ),
}


def test_every_mutation_has_its_story() -> None:
    definition = get_object_definition(schema.mutation, strict=True)
    assert {schema.config.name_converter.from_field(field) for field in definition.fields} == set(STORIES)


async def world(sender: Sender, database: Database, valkey_url: str) -> None:
    """Campaigns of every status, a list, a channel, a key to spare, and an endpoint that got a post."""
    direct = {"createChannels": True, "channelTemplate": {"type": "messaging"}, "userIds": ["u00", "nobody"]}
    audience = {"senderId": "sender", "messageTemplate": TEMPLATE, **direct}
    await sender.client.data(
        f"""mutation ($channels: [ChannelInput!]!) {{
          createSegment(input: {{segmentId: "list", type: USER}}) {{ {ERRORS} }}
          addSegmentTargets(input: {{segmentId: "list", targetIds: ["b", "c"]}}) {{ {ERRORS} }}
          upsertChannels(input: {{channels: $channels}}) {{ {ERRORS} }} }}""",
        channels=[{"type": "team", "channelId": "t", "members": ["u01", "u02", "u04"]}],
    )
    for campaign_id in ("done", "draft", "scheduled", "running", "paused"):
        given = {"campaignId": campaign_id, **audience}
        await sender.send(None, CREATE, variables={"input": given})
        when = ', scheduledFor: "2999-01-01T00:00:00Z"' if campaign_id == "scheduled" else ""
        if campaign_id != "draft":
            start = (
                f'mutation {{ startCampaign(input: {{campaignId: "{campaign_id}"{when}}}) {{ {ERRORS} }} }}'
            )
            await sender.client.data(start)
        if campaign_id == "done":
            await send_everything(database, valkey_url)
    await sender.client.data(f'mutation {{ pauseCampaign(input: {{campaignId: "paused"}}) {{ {ERRORS} }} }}')
    await new_key(database, Role.VIEWER)
    async with database.transaction() as session:
        keys = SQLModel.metadata.tables["api_keys"]
        await session.execute(update(keys).where(keys.c.role == "VIEWER").values(key_id="spare"))
    await delivered(database)


async def delivered(database: Database) -> None:
    """A webhook endpoint `hook` and its `delivery`."""
    async with database.transaction() as session:
        at = await now(session)
        session.add(Endpoint(endpoint_id="hook", url="https://a.example.com", secret="whsec_", created_at=at))
        delivery = {"id": "delivery", "seq": 1, "event_type": "campaign.paused", "status": 1}
        holds: list[Any] = [["pruned", 0, 1]]
        more = {"endpoint_id": "hook", "holds": holds, "size": 1, "created_at": at, "gives_up_at": at}
        session.add(Delivery(**delivery, **more))


async def everything(database: Database) -> dict[str, list[str]]:
    """Every row of every table, except for what repeats are remembered by and when keys were used."""
    found = {}
    async with database.read() as session:
        for name, table in SQLModel.metadata.tables.items():
            if name != "idempotency_keys":
                columns = [column for column in table.columns if column.name != "last_used_at"]
                found[name] = sorted(map(repr, await session.execute(select(*columns))))
    return found


@pytest.mark.parametrize("name", sorted(STORIES))
async def test_every_mutation_is_repeated_from_its_outcome(
    sender: Sender, database: Database, valkey_url: str, name: str
) -> None:
    """It dies between its commit and its answer: the repeat changes nothing, and answers the same."""
    await world(sender, database, valkey_url)
    given, selection = STORIES[name]
    kind = f"{name[0].upper()}{name[1:]}Input"
    document = f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ {selection} {ERRORS} }} }}"
    before = await everything(database)
    with ending("UPDATE idempotency_keys SET leased_until"):
        first = await sender.send("k", document, variables={"input": given})
    assert first.body["data"][name]["errors"] == []
    after = await everything(database)
    assert after != before
    await let_leases_run_out(database)

    again = await sender.send("k", document, variables={"input": given})

    assert again.body == first.body and again.replayed
    assert await everything(database) == after
    assert (await sender.send("k", document, variables={"input": given})).replayed


def test_every_payload_can_be_built_again() -> None:
    """Its own fields hold values, lists of them, or objects with ids: nothing that a resolver has to find."""
    for mutation in get_object_definition(schema.mutation, strict=True).fields:
        payload = get_object_definition(outcomes._bare(mutation.type), strict=True)
        assert set(outcomes._plain(payload)) == {each.python_name for each in payload.fields}, mutation.name

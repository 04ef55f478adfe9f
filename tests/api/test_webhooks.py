"""Webhook endpoints and their deliveries by GraphQL."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlmodel import col

from app.database import Database
from app.ids import message_ids
from app.webhooks import api, expanding, service
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint
from tests.api.campaigns import ERRORS, Campaigns, people
from tests.api.conftest import Client
from tests.api.counting import statements
from tests.integration.campaigning import work
from tests.integration.hearing import deliveries, dispatch, expand

README = Path(__file__).parents[2] / "README.md"
URL = "https://hooks.example.com/in?token=abc"
ENDPOINT = "endpoint { id endpointId url eventTypes enabled disabledReason batchSize createdAt }"
DELIVERY = """id deliveryId status eventType attempts statusCode error deliveredAt nextAttemptAt createdAt
  payload"""
LIST = f"""query ($id: String!, $filter: WebhookDeliveryFilter, $first: Int, $after: String) {{
  webhookEndpoint(endpointId: $id) {{ deliveries(filter: $filter, first: $first, after: $after) {{
    totalCount pageInfo {{ endCursor hasNextPage }} nodes {{ {DELIVERY} }} }} }} }}"""


class Webhooks:
    """Mutations of webhooks."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def do(self, name: str, selection: str = ENDPOINT, **given: Any) -> dict[str, Any]:
        """The payload of a mutation."""
        kind = f"{name[0].upper()}{name[1:]}Input"
        document = f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ {selection} {ERRORS} }} }}"
        payload: dict[str, Any] = (await self.client.data(document, input=given))[name]
        return payload

    async def create(self, **given: Any) -> dict[str, Any]:
        """A new endpoint."""
        made = await self.do("createWebhookEndpoint", f"secret {ENDPOINT}", **{"url": URL, **given})
        assert made["errors"] == []
        return {**made["endpoint"], "secret": made["secret"]}

    async def list(self, endpoint_id: str, **given: Any) -> dict[str, Any]:
        """A page of deliveries."""
        found = await self.client.data(LIST, id=endpoint_id, **given)
        page: dict[str, Any] = found["webhookEndpoint"]["deliveries"]
        return page


@pytest.fixture
def webhooks(client: Client) -> Webhooks:
    return Webhooks(client)


async def row_of(database: Database, endpoint_id: str) -> Endpoint:
    async with database.read() as session:
        return (
            await session.execute(select(Endpoint).where(col(Endpoint.endpoint_id) == endpoint_id))
        ).scalar_one()


async def test_an_endpoint_and_its_secret_which_is_shown_once(webhooks: Webhooks, database: Database) -> None:
    made = await webhooks.create(eventTypes=["message.new", "campaign.started", "message.new"], batchSize=20)
    prefix, _, encoded = made["secret"].partition("_")
    assert (prefix, len(base64.b64decode(encoded))) == ("whsec", 32)
    assert (made["url"], made["enabled"], made["batchSize"]) == (URL, True, 20)
    assert made["eventTypes"] == ["message.new", "campaign.started"]
    other = await webhooks.create()
    assert (other["eventTypes"], other["batchSize"], other["disabledReason"]) == ([], 1, None)
    data = await webhooks.client.data(
        f"""query ($id: ID!, $endpoint: String!) {{
          webhookEndpoints {{ {ENDPOINT[11:-2]} }} node(id: $id) {{ ... on WebhookEndpoint {{ url }} }}
          webhookEndpoint(endpointId: $endpoint) {{ url }}
          none: webhookEndpoint(endpointId: "x") {{ url }} }}""",
        id=made["id"],
        endpoint=made["endpointId"],
    )
    assert [each["endpointId"] for each in data["webhookEndpoints"]] == [
        made["endpointId"],
        other["endpointId"],
    ]
    assert (data["node"], data["webhookEndpoint"], data["none"]) == ({"url": URL}, {"url": URL}, None)
    changed = await webhooks.do("updateWebhookEndpoint", f"secret {ENDPOINT}", endpointId=made["endpointId"])
    assert changed["secret"] is None and made["secret"] not in str(data)
    row = await row_of(database, made["endpointId"])
    assert row.secret == made["secret"] and row.secret not in repr(row)


@pytest.mark.parametrize(
    ("given", "code", "path", "words"),
    [
        ({"url": "http://example.com"}, "INVALID_INPUT", ["url"], "https"),
        ({"url": "https://127.0.0.1/x"}, "INVALID_INPUT", ["url"], "loopback"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "INVALID_INPUT", ["url"], "private"),
        ({"url": "not a url"}, "INVALID_INPUT", ["url"], "URL"),
        ({"url": ""}, "INVALID_INPUT", ["url"], "empty"),
        ({"url": "https://example.com/" + "x" * 2_048}, "LIMIT_EXCEEDED", ["url"], "2,048"),
        (
            {"eventTypes": ["message.new", "message.old"]},
            "INVALID_INPUT",
            ["eventTypes", "1"],
            "channel.created",
        ),
        ({"eventTypes": ["webhook_endpoint.test"]}, "INVALID_INPUT", ["eventTypes", "0"], "no type of event"),
        ({"batchSize": 0}, "INVALID_INPUT", ["batchSize"], "from 1"),
        ({"batchSize": 501}, "LIMIT_EXCEEDED", ["batchSize"], "500"),
    ],
)
async def test_what_is_refused(
    webhooks: Webhooks, given: dict[str, Any], code: str, path: list[str], words: str
) -> None:
    """With the place and what is allowed, by creation and by change."""
    made = await webhooks.create()
    for name, identity in (
        ("createWebhookEndpoint", {"url": URL}),
        ("updateWebhookEndpoint", {"endpointId": made["endpointId"]}),
    ):
        (error,) = (await webhooks.do(name, **{**identity, **given}))["errors"]
        assert (error["code"], error["path"]) == (code, path)
        assert words in error["message"]
    assert len((await webhooks.client.data("{ webhookEndpoints { url } }"))["webhookEndpoints"]) == 1


async def test_every_problem_at_once_and_no_endpoint_that_is_not_there(webhooks: Webhooks) -> None:
    refused = await webhooks.do("createWebhookEndpoint", url="ftp://x", eventTypes=["x"], batchSize=-1)
    assert [error["path"] for error in refused["errors"]] == [["url"], ["eventTypes", "0"], ["batchSize"]]
    nulls: dict[str, Any] = {"url": None, "enabled": None, "batchSize": None}
    refused = await webhooks.do("updateWebhookEndpoint", endpointId="x", **nulls)
    assert [error["path"] for error in refused["errors"]] == [
        ["url"],
        ["enabled"],
        ["batchSize"],
        ["endpointId"],
    ]
    for name in ("rotateWebhookSecret", "updateWebhookEndpoint"):
        assert (await webhooks.do(name, endpointId="x"))["errors"][0]["code"] == "NOT_FOUND"
    for name, selection, given in (
        ("deleteWebhookEndpoint", "deletedIds", {"endpointId": "x"}),
        ("testWebhookEndpoint", "delivery { id }", {"endpointId": "x"}),
        ("redeliverWebhook", "delivery { id }", {"deliveryId": "x"}),
    ):
        assert (await webhooks.do(name, selection, **given))["errors"][0]["code"] == "NOT_FOUND"


async def test_fifty_are_allowed(webhooks: Webhooks) -> None:
    for _ in range(50):
        made = await webhooks.create()
    (error,) = (await webhooks.do("createWebhookEndpoint", url=URL))["errors"]
    assert (error["code"], error["details"]) == ("LIMIT_EXCEEDED", {"limit": 50, "given": 51})
    await webhooks.do("deleteWebhookEndpoint", "deletedIds", endpointId=made["endpointId"])
    await webhooks.create()


async def test_a_rotation_keeps_the_old_secret_beside_the_new_one(
    webhooks: Webhooks, database: Database
) -> None:
    made = await webhooks.create()
    rotated = await webhooks.do("rotateWebhookSecret", f"secret {ENDPOINT}", endpointId=made["endpointId"])
    assert rotated["secret"] not in (None, made["secret"])
    row = await row_of(database, made["endpointId"])
    assert (row.secret, row.previous_secret) == (rotated["secret"], made["secret"])
    assert row.previous_secret_until is not None


async def test_changes_and_what_they_leave_alone(webhooks: Webhooks, database: Database) -> None:
    made = await webhooks.create(eventTypes=["message.new"], batchSize=7)
    async with database.transaction() as session:
        await service.disable(session, made["endpointId"], "It answered 410 Gone.")
    identity = {"endpointId": made["endpointId"]}
    same = (await webhooks.do("updateWebhookEndpoint", **identity))["endpoint"]
    assert (same["enabled"], same["disabledReason"]) == (False, "It answered 410 Gone.")
    assert (same["eventTypes"], same["batchSize"], same["url"]) == (["message.new"], 7, URL)
    enabled = (await webhooks.do("updateWebhookEndpoint", enabled=True, eventTypes=None, **identity))[
        "endpoint"
    ]
    assert (enabled["enabled"], enabled["disabledReason"], enabled["eventTypes"]) == (True, None, [])
    refused = await webhooks.do("updateWebhookEndpoint", enabled=False, url="https://10.1.2.3", **identity)
    assert refused["errors"][0]["path"] == ["url"]
    assert (await row_of(database, made["endpointId"])).enabled


async def test_a_deleted_endpoint_is_gone_with_its_deliveries(webhooks: Webhooks) -> None:
    made = await webhooks.create()
    test = await webhooks.do(
        "testWebhookEndpoint", f"delivery {{ {DELIVERY} }}", endpointId=made["endpointId"]
    )
    deleted = await webhooks.do("deleteWebhookEndpoint", "deletedIds", endpointId=made["endpointId"])
    assert deleted["deletedIds"] == [made["id"]]
    gone = await webhooks.client.data(
        f'{{ webhookEndpoints {{ url }} nodes(ids: ["{made["id"]}", "{test["delivery"]["id"]}"]) {{ id }} }}'
    )
    assert gone == {"webhookEndpoints": [], "nodes": [None, None]}


async def test_a_test_is_a_delivery_like_any_other(webhooks: Webhooks) -> None:
    made = await webhooks.create(eventTypes=["message.new"])
    test = await webhooks.do(
        "testWebhookEndpoint", f"delivery {{ {DELIVERY} }}", endpointId=made["endpointId"]
    )
    delivery = test["delivery"]
    assert (delivery["status"], delivery["attempts"], delivery["error"]) == ("PENDING", 0, None)
    assert delivery["nextAttemptAt"] == delivery["createdAt"]
    assert delivery["eventType"] == delivery["payload"]["type"] == "webhook_endpoint.test"
    assert delivery["payload"]["webhook_endpoint"]["endpoint_id"] == made["endpointId"]
    assert (await webhooks.list(made["endpointId"]))["nodes"] == [delivery]
    again = await webhooks.do(
        "redeliverWebhook", "delivery { id deliveryId }", deliveryId=delivery["deliveryId"]
    )
    assert again["delivery"] == {"id": delivery["id"], "deliveryId": delivery["deliveryId"]}
    await webhooks.do("updateWebhookEndpoint", endpointId=made["endpointId"], enabled=False)
    for name, given in (
        ("testWebhookEndpoint", {"endpointId": made["endpointId"]}),
        ("redeliverWebhook", {"deliveryId": delivery["deliveryId"]}),
    ):
        (error,) = (await webhooks.do(name, "delivery { id }", **given))["errors"]
        assert (error["code"], error["path"]) == ("CONFLICT", list(given))


async def test_deliveries_are_listed_newest_first_by_status_and_type(
    webhooks: Webhooks, database: Database
) -> None:
    made = await webhooks.create()
    await people(database, 3)
    campaigns = Campaigns(webhooks.client)
    direct = {"createChannels": True, "channelTemplate": {"type": "messaging"}}
    await campaigns.draft("news", senderId="sender", userIds=["u00", "u01"], **direct)
    await campaigns.done("start", campaignId="news")
    await work(database)
    endpoint = await row_of(database, made["endpointId"])
    await dispatch(database)
    await expand(database, endpoint)
    page = await webhooks.list(made["endpointId"])
    kinds = [node["eventType"] for node in page["nodes"]]
    assert kinds == [
        "campaign.completed",
        "message.new",
        "message.new",
        "channel.created",
        "channel.created",
        "campaign.started",
    ]
    assert page["totalCount"] == 6
    assert [node["payload"]["type"] for node in page["nodes"]] == kinds
    assert page["nodes"][0]["payload"]["campaign"]["stats"]["sent"] == 2
    for wanted, count in (
        ({"status": "PENDING"}, 6),
        ({"status": "DELIVERED"}, 0),
        ({"eventType": "message.new"}, 2),
        ({"eventType": "message.new", "status": "FAILED"}, 0),
        ({"eventType": "nothing"}, 0),
        ({}, 6),
    ):
        found = await webhooks.list(made["endpointId"], filter=wanted)
        assert (found["totalCount"], len(found["nodes"])) == (count, count)
    first = await webhooks.list(made["endpointId"], first=4)
    rest = await webhooks.list(made["endpointId"], first=4, after=first["pageInfo"]["endCursor"])
    assert first["nodes"] + rest["nodes"] == page["nodes"]


async def test_who_is_on_call_sees_the_newest_that_wait(webhooks: Webhooks, database: Database) -> None:
    """By the words of the README's table."""
    (asked,) = re.findall(r"`(deliveries\(.*?)`", README.read_text())
    made = await webhooks.create()
    for _ in range(8):
        await webhooks.do("testWebhookEndpoint", "delivery { id }", endpointId=made["endpointId"])
    newest = [each.id for each in await deliveries(database, await row_of(database, made["endpointId"]))][
        ::-1
    ]
    async with database.transaction() as session:
        done = update(Delivery).where(col(Delivery.id).in_(newest[:2]))
        await session.execute(done.values(status=DeliveryStatus.DELIVERED, next_attempt_at=None))
    document = f"{{ webhookEndpoints {{ {asked.replace('nodes {', 'nodes { deliveryId')} }} }}"
    (endpoint,) = (await webhooks.client.data(document))["webhookEndpoints"]
    shown = endpoint["deliveries"]["nodes"]
    assert [node["deliveryId"] for node in shown] == newest[2:7]
    assert shown[0].keys() >= {"error", "nextAttemptAt"}


async def test_payloads_of_a_page_are_read_together(webhooks: Webhooks, database: Database) -> None:
    made = await webhooks.create()
    for _ in range(12):
        await webhooks.do("testWebhookEndpoint", "delivery { id }", endpointId=made["endpointId"])
    costs = []
    for first in (2, 12):
        with statements() as asked:
            assert len((await webhooks.list(made["endpointId"], first=first))["nodes"]) == first
        costs.append(len(asked))
    assert costs[0] == costs[1] <= 7  # endpoint, page, count, deliveries, events; clocks


async def test_more_events_than_can_be_read_at_once(
    webhooks: Webhooks, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of whole batches is refused with a word what to do, and a smaller one is not."""
    monkeypatch.setattr(api, "MAX_EVENTS_READ", 3)
    made = await webhooks.create()
    for _ in range(4):
        await webhooks.do("testWebhookEndpoint", "delivery { id }", endpointId=made["endpointId"])
    error = await webhooks.client.error(LIST, id=made["endpointId"])
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED" and "fewer" in error["message"]
    assert len((await webhooks.list(made["endpointId"], first=3))["nodes"]) == 3


async def test_what_nothing_is_left_of_says_its_type(webhooks: Webhooks, database: Database) -> None:
    made = await webhooks.create()
    endpoint = await row_of(database, made["endpointId"])
    async with database.transaction() as session:
        at = endpoint.created_at
        gone = {"holds": [["gone", 0, 1]], "size": 1, "created_at": at, "gives_up_at": at}
        values = {"id": message_ids(1)[0], "endpoint_id": endpoint.endpoint_id, "seq": 1, **gone}
        await session.execute(
            insert(Delivery).values(event_type="message.new", status=1, attempts=1, **values)
        )
    (node,) = (await webhooks.list(made["endpointId"]))["nodes"]
    assert node["payload"] == {"type": "message.new"}
    assert len(await deliveries(database, endpoint)) == 1
    assert expanding.MAX_BATCH * 10 == api.MAX_EVENTS_READ


async def test_viewers_see_everything_but_secrets_and_change_nothing(
    webhooks: Webhooks, viewer: Client
) -> None:
    made = await webhooks.create()
    await webhooks.do("testWebhookEndpoint", "delivery { id }", endpointId=made["endpointId"])
    assert len((await Webhooks(viewer).list(made["endpointId"]))["nodes"]) == 1
    error = await viewer.error(
        f'mutation {{ rotateWebhookSecret(input: {{endpointId: "{made["endpointId"]}"}}) {{ secret }} }}'
    )
    assert error["extensions"]["code"] == "FORBIDDEN"

"""Idempotency-Key: a mutation that is sent again is not done again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col
from structlog.testing import capture_logs

from app.campaigns import service as campaigns
from app.database import Database, now
from app.graphql import repeats
from app.idempotency import attempts, service
from app.idempotency.models import IdempotencyKey
from app.idempotency.sealing import Part, Seal
from app.keys.roles import Role
from tests.api.campaigns import people
from tests.api.conftest import Client, new_key
from tests.api.idempotency import (
    CREATE,
    DELETE,
    LIST,
    NEW_KEY,
    RENAME,
    TEMPLATE,
    Reply,
    Sender,
    ending,
    let_leases_run_out,
    rows,
)


@pytest.fixture
async def sender(client: Client, database: Database) -> Sender:
    await people(database, 5)
    return Sender(client)


async def test_a_repeat_gets_the_first_answer(sender: Sender) -> None:
    first = await sender.create("k")
    assert first.status == 200 and not first.replayed
    campaign = first.body["data"]["createCampaign"]["campaign"]
    await sender.send(
        None, RENAME, variables={"input": {"campaignId": campaign["campaignId"], "name": "later"}}
    )

    again = await sender.create("k")

    assert (again.status, again.text, again.replayed) == (200, first.text, True)
    assert await sender.names() == ["later"]


async def test_without_a_key_twice_is_twice(sender: Sender) -> None:
    await sender.create(None)
    await sender.create(None)
    assert await sender.names() == ["news", "news"]


async def test_another_key_is_another_request(sender: Sender) -> None:
    await sender.create("k")
    await sender.create("K")
    assert await sender.names() == ["news", "news"]


async def test_twenty_at_once_make_one_campaign(sender: Sender) -> None:
    replies = await asyncio.gather(*(sender.create("k") for _ in range(20)))
    assert len({reply.text for reply in replies}) == 1
    assert [reply.status for reply in replies] == [200] * 20
    assert sum(not reply.replayed for reply in replies) == 1
    assert await sender.names() == ["news"]


@pytest.mark.parametrize("accept", ["application/graphql-response+json", "application/json"])
async def test_the_answer_is_the_same_in_every_media_type(sender: Sender, accept: str) -> None:
    first = await sender.send("k", NEW_KEY)
    again = await sender.send("k", NEW_KEY, accept)
    assert (again.status, again.text) == (first.status, first.text)


async def test_an_event_stream_repeats_as_well(sender: Sender) -> None:
    first = await sender.send("k", NEW_KEY, "text/event-stream")
    again = await sender.send("k", NEW_KEY, "text/event-stream")
    assert again.text == first.text and "car_" in first.text
    other = await sender.send("k", NEW_KEY.replace('"n"', '"m"'), "text/event-stream")
    assert '"code":"CONFLICT"' in other.text
    assert (await sender.send("k", NEW_KEY)).text in first.text


@pytest.mark.parametrize(
    "changed",
    [
        {"query": CREATE + " "},
        {"query": CREATE.replace("status", "")},
        {"variables": {"input": {"senderId": "sender", "messageTemplate": TEMPLATE, "name": "other"}}},
        {"query": f"{CREATE} query Other {{ viewer {{ name }} }}", "operationName": "Create"},
    ],
    ids=["a space", "a field", "a variable", "an operation"],
)
async def test_another_body_is_a_conflict(sender: Sender, changed: dict[str, Any]) -> None:
    given = {"input": {"senderId": "sender", "messageTemplate": TEMPLATE, "name": "news"}}
    assert (await sender.send("k", CREATE, variables=given)).status == 200
    request = {"query": CREATE, "variables": given, **changed}
    reply = await sender.send("k", request.pop("query"), **request)
    assert reply.status == 409
    assert reply.error["extensions"]["code"] == "CONFLICT"
    assert reply.error["message"].startswith("This Idempotency-Key was used for another request.")
    assert await sender.names() == ["news"]


async def test_another_operation_of_the_same_document_is_another_body(sender: Sender) -> None:
    document = 'mutation A { a: createApiKey(input: {name: "a", role: VIEWER}) { secret } } ' + CREATE
    variables = {"input": {"senderId": "sender", "messageTemplate": TEMPLATE}}
    assert (await sender.send("k", document, operationName="A", variables=variables)).status == 200
    assert (await sender.send("k", document, operationName="Create", variables=variables)).status == 409


async def test_the_order_of_the_variables_keys_is_no_difference(sender: Sender) -> None:
    given = {"senderId": "sender", "messageTemplate": TEMPLATE, "name": "news"}
    first = await sender.send("k", CREATE, variables={"input": given})
    turned = {"input": dict(reversed(given.items()))}
    again = await sender.send("k", CREATE, variables=turned, operationName="", extensions={"client": "2"})
    assert (again.text, again.replayed) == (first.text, True)


@pytest.mark.parametrize(
    "key",
    ["", "k" * 256, "a\tb", "\x85".encode("latin-1").decode("latin-1"), "é" * 256, "\u200b"],
    ids=["empty", "long", "a tab", "a control character", "long in characters", "invisible"],
)
async def test_what_is_no_key_is_refused(sender: Sender, key: str) -> None:
    reply = await sender.create(key)
    assert reply.status == 400
    assert reply.error["extensions"]["code"] == "INVALID_INPUT"
    assert reply.error["message"] == "Send one Idempotency-Key of 1 to 255 printable characters."
    assert await sender.names() == []


@pytest.mark.parametrize("key", ["k", "k" * 255, "ü" * 255, "a key, with spaces", '"8e03978e-40d5"'])
async def test_what_is_a_key(sender: Sender, key: str) -> None:
    first = await sender.create(key)
    assert (await sender.create(key)).text == first.text
    assert await sender.names() == ["news"]


async def test_two_headers_are_no_key(sender: Sender) -> None:
    headers = [*sender.client.headers.items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
    body = {"query": "mutation { __typename }"}
    async with sender.client.http.post(sender.client.url, json=body, headers=headers) as response:
        assert response.status == 400


async def test_the_same_string_of_another_api_key_is_another_key(sender: Sender, database: Database) -> None:
    other = Sender(Client(sender.client.http, sender.client.address, await new_key(database, Role.ADMIN)))
    first, second = await sender.create("k"), await other.create("k")
    assert first.text != second.text and not second.replayed
    assert (await other.create("k")).text == second.text
    assert await sender.names() == ["news", "news"]


async def test_after_a_day_the_key_is_free(sender: Sender, database: Database) -> None:
    await sender.create("k", "first")
    await sender.create("young", "second")
    async with database.transaction() as session:
        (named,) = [row.name for row in await rows(database) if row.name == Seal(sender.client.key, "k").name]
        before = await now(session) - service.KEPT
        one = update(IdempotencyKey).where(col(IdempotencyKey.name) == named)
        await session.execute(one.values(created_at=before))

    third = await sender.create("k", "third")

    assert not third.replayed and (await sender.create("k", "third")).text == third.text
    assert (await sender.create("young", "second")).replayed
    assert await sender.names() == ["first", "second", "third"]


async def test_queries_ignore_the_header(sender: Sender, database: Database) -> None:
    for key in ("k", ""):
        assert "data" in (await sender.send(key, "{ viewer { name } }")).body
    assert await rows(database) == []


async def test_who_may_change_nothing_stores_nothing(viewer: Client, database: Database) -> None:
    await people(database, 0)
    reply = await Sender(viewer).create("k")
    assert reply.error["extensions"]["code"] == "FORBIDDEN"
    assert await rows(database) == []


async def test_a_refusal_is_an_answer(sender: Sender) -> None:
    first = await sender.create("k", senderId="late")
    assert first.body["data"]["createCampaign"]["errors"][0]["code"] in ("NOT_FOUND", "INVALID_INPUT")
    user = 'mutation { upsertUsers(input: {users: [{userId: "late"}]}) { errors { message } } }'
    await sender.send(None, user)
    again = await sender.create("k", senderId="late")
    assert (again.text, again.replayed) == (first.text, True)
    assert await sender.names() == []


async def test_a_fault_is_none(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, capture_logs():
        patched.setattr(campaigns, "create", broken)
        failed = await sender.create("k")
    assert failed.error["extensions"]["code"] == "INTERNAL"
    again = await sender.create("k")
    assert again.body["data"]["createCampaign"]["campaign"]["name"] == "news" and not again.replayed
    assert (await sender.create("k")).replayed
    assert await sender.names() == ["news"]


async def test_a_request_that_was_not_executed_frees_its_key(sender: Sender, database: Database) -> None:
    for given in ({"input": {"name": "no sender"}}, {}):
        reply = await sender.send("k", CREATE, variables=given)
        assert reply.body["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
    assert await rows(database) == []
    assert not (await sender.create("k")).replayed


async def test_several_fields_are_done_once_each(sender: Sender) -> None:
    await sender.send(None, LIST)
    first = await sender.several("k", "news")
    again = await sender.several("k", "news")
    assert (again.text, again.replayed) == (first.text, True)
    data = first.body["data"]
    assert data["taken"]["errors"][0]["code"] == "ALREADY_EXISTS"
    assert data["third"]["segment"]["size"] == 2
    assert await sender.names() == ["news"]


async def test_a_repeat_waits_for_the_lease_of_an_execution_that_died(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LEASE", timedelta(seconds=0.5))
    with ending("INSERT INTO campaigns"):
        await sender.create("k")
    again = await sender.create("k")
    assert again.body["data"]["createCampaign"]["campaign"]["name"] == "news"
    assert await sender.names() == ["news"]


async def test_an_execution_that_takes_long_is_waited_for_only_so_long(
    sender: Sender, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "SECONDS_TO_WAIT", 0.1)
    fields = {"senderId": "sender", "messageTemplate": TEMPLATE, "name": "news"}
    seal = Seal(sender.client.key, "k")
    meaning = repeats._meaning(repeats.Request(CREATE, {"input": fields}, None))
    async with database.transaction() as session:
        await service.claim(session, seal.name, seal.digest(meaning))
    reply = await sender.create("k")
    assert reply.status == 409
    assert reply.error["extensions"] == {"code": "CONFLICT", "details": {"retryAfterSeconds": 1}}
    assert reply.error["message"].startswith("This request is still being executed.")
    await let_leases_run_out(database)
    assert (await sender.create("k")).status == 200


async def test_an_execution_whose_claim_was_taken_over_changes_nothing(
    sender: Sender, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was only slow: a repeat came, took over and finished before it could commit."""
    create, overtaking = campaigns.create, list[asyncio.Task[Reply]]()

    async def slow(*given: Any) -> Any:
        monkeypatch.setattr(campaigns, "create", create)
        if database.dialect == "postgresql":  # on SQLite nobody can take over while it writes
            made = await create(*given)
            await let_leases_run_out(database)
            overtaking.append(asyncio.create_task(sender.create("k")))
            await overtaking[0]
            return made
        return await create(*given)

    monkeypatch.setattr(campaigns, "create", slow)
    reply = await sender.create("k")
    if overtaking:
        assert reply.status == 409
        assert overtaking[0].result().body["data"]["createCampaign"]["campaign"]["name"] == "news"
        assert (await sender.create("k")).text == overtaking[0].result().text
    assert await sender.names() == ["news"]


async def test_an_answer_too_large_to_keep_is_built_again(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAX_RESPONSE_BYTES", 50)
    first = await sender.create("k")
    again = await sender.create("k")
    assert again.body == first.body and not first.replayed and again.replayed
    assert await sender.names() == ["news"]


async def test_an_object_that_is_gone_since_is_null(sender: Sender, database: Database) -> None:
    with ending("UPDATE idempotency_keys SET leased_until"):
        await sender.create("k", campaignId="c")
    await sender.send(None, DELETE, variables={"input": {"campaignId": "c"}})
    await let_leases_run_out(database)
    again = await sender.create("k", campaignId="c")
    assert again.body == {"data": {"createCampaign": {"campaign": None, "errors": []}}}
    assert await sender.names() == []


async def test_without_the_header_nothing_is_asked_or_stored(sender: Sender) -> None:
    with ending(-1) as life:
        assert (await sender.create(None)).status == 200
    assert life.reached and not any("idempotency" in statement for statement in life.reached)


async def test_what_is_stored_cannot_be_read(sender: Sender, database: Database) -> None:
    reply = await sender.send("my key", NEW_KEY)
    secret = reply.body["data"]["createApiKey"]["secret"]
    stored = repr([row.model_dump() for row in await rows(database)])
    assert not any(text in stored for text in (secret, sender.client.key, "my key", "createApiKey"))
    sealed = Seal(sender.client.key, "my key")
    (row,) = await rows(database)
    assert row.response is not None
    assert sealed.row(row.request_hash).open(row.response, Part.ANSWER).decode() == reply.text


async def test_what_was_tampered_with_is_a_fault_and_nothing_is_done_again(
    sender: Sender, database: Database
) -> None:
    first, second = await sender.create("k", "one"), await sender.create("l", "two")
    assert first.status == second.status == 200
    mine = Seal(sender.client.key, "k").name
    (other,) = [row.response for row in await rows(database) if row.name != mine]
    async with database.transaction() as session:
        one = update(IdempotencyKey).where(col(IdempotencyKey.name) == mine)
        await session.execute(one.values(response=other))
    with capture_logs() as logs:
        again = await sender.create("k", "one")
    assert again.status == 500 and again.error["extensions"]["code"] == "INTERNAL"
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["fault"]
    assert await sender.names() == ["one", "two"]

"""graphql-transport-ws and graphql-sse: the protocols' rules, and that nothing outlives its connection."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import strawberry
from strawberry.schema.config import StrawberryConfig

from app import wire
from app.graphql.context import Info
from app.graphql.execution import Admitted, CarillonSchema
from app.graphql.fields import query, subscription
from app.graphql.loaders import Loader
from app.graphql.scalars import SCALARS
from app.settings import Settings
from tests.api.conftest import PATIENCE, Client, eventually, serving
from tests.api.raw import PING, PONG, Raw, connected, frame, text, upgraded

reads: list[str] = []
ended: list[str] = []
flooded: Counter[str] = Counter()


async def read(_: object, keys: Any) -> dict[str, str]:
    reads.extend(keys)
    return {key: f"read {len(reads)} times" for key in keys}


loader = Loader(read)


@strawberry.type
class Tick:
    number: int

    @query(description="What the loader has.")
    async def loaded(self, info: Info) -> str | None:
        return await loader.load(info, "key")


@strawberry.type
class Query:
    @query(description="Yes.")
    async def alive(self, info: Info) -> bool:
        return True


@strawberry.type
class Subscription:
    @subscription(description="Counts.")
    async def count(self, info: Info, to: int) -> AsyncGenerator[Tick, None]:
        for number in range(to):
            yield Tick(number=number)

    @subscription(description="One, and then silence.")
    async def silence(self, info: Info, name: str) -> AsyncGenerator[Tick, None]:
        try:
            yield Tick(number=1)
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    @subscription(description="As much as is taken.")
    async def flood(self, info: Info, name: str) -> AsyncGenerator[str, None]:
        try:
            while True:
                flooded[name] += 10_000
                yield "x" * 10_000
        finally:
            ended.append(name)

    @subscription(description="One, and then a fault.")
    async def fault(self, info: Info) -> AsyncGenerator[Tick, None]:
        yield Tick(number=1)
        raise RuntimeError("a detail of ours")


@pytest.fixture(autouse=True)
def a_schema_that_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = CarillonSchema(
        query=Query,
        subscription=Subscription,
        extensions=[Admitted],
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    )
    monkeypatch.setattr("app.main.schema", schema)
    reads.clear()
    ended.clear()


@pytest.fixture
async def socket(client: Client) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket whose key was accepted."""
    async with client.socket() as socket:
        payload = {"AUTHORIZATION": f"Bearer {client.key}"}
        await socket.send_json({"type": "connection_init", "payload": payload})
        assert await socket.receive_json() == {"type": "connection_ack"}
        yield socket


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int:
    """The code that the server closes with, next."""
    message = await socket.receive(timeout=PATIENCE)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    code: int = message.data
    return code


def subscribe(document: str, name: str = "1", **variables: Any) -> dict[str, Any]:
    return {"id": name, "type": "subscribe", "payload": {"query": document, "variables": variables}}


async def test_a_subscription_counts_and_completes(client: Client) -> None:
    async with client.subscribed(
        "subscription ($to: Int!) { count(to: $to) { number loaded } }", to=3
    ) as ticks:
        for number in range(3):
            tick = (await ticks.next())["count"]
            assert tick == {"number": number, "loaded": f"read {number + 1} times"}  # nothing is kept
        assert await ticks.message() == {"id": "1", "type": "complete"}


async def test_queries_go_over_the_socket_too(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json(subscribe("{ alive }"))
    assert await socket.receive_json() == {"id": "1", "type": "next", "payload": {"data": {"alive": True}}}
    assert await socket.receive_json() == {"id": "1", "type": "complete"}
    await socket.send_json({"type": "ping", "payload": {"a": 1}})
    assert await socket.receive_json() == {"type": "pong", "payload": {"a": 1}}


@pytest.mark.parametrize(
    "document", ["{", "{ nothing }", "subscription { count(to: $x) { number } }", "{ a: alive } { b: alive }"]
)
async def test_a_refused_operation_leaves_the_others_alone(
    socket: aiohttp.ClientWebSocketResponse, document: str
) -> None:
    await socket.send_json(subscribe(document))
    message = await socket.receive_json()
    assert (message["id"], message["type"]) == ("1", "error")
    assert message["payload"][0]["extensions"]["code"] == "INVALID_INPUT"
    await socket.send_json(subscribe("{ alive }"))  # the id is free again
    assert (await socket.receive_json())["type"] == "next"


async def test_wrong_variables_are_an_error_of_the_operation(socket: aiohttp.ClientWebSocketResponse) -> None:
    document = "subscription ($to: Int!) { count(to: $to) { number } }"
    for variables, code in (({"to": "x"}, "INVALID_INPUT"), ({"to": "\0"}, "INVALID_INPUT")):
        await socket.send_json(subscribe(document, **variables))
        message = await socket.receive_json()
        assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", code)


async def test_a_fault_is_masked(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json(subscribe("subscription { fault { number } }"))
    assert (await socket.receive_json())["payload"] == {"data": {"fault": {"number": 1}}}
    failed = await socket.receive_json()
    assert "detail" not in json.dumps(failed)
    assert "INTERNAL" in json.dumps(failed)


async def test_complete_ends_an_operation(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json(subscribe('subscription { silence(name: "a") { number } }'))
    assert (await socket.receive_json())["type"] == "next"
    await socket.send_json({"id": "1", "type": "complete"})
    await eventually(lambda: has_ended("a"))
    await socket.send_json({"id": "nobody", "type": "complete"})
    await socket.send_json(subscribe("{ alive }"))
    assert (await socket.receive_json())["type"] == "next"


async def has_begun(name: str) -> bool:
    return flooded[name] > 0


@contextlib.asynccontextmanager
async def flooded_socket(address: str, key: str, name: str) -> AsyncIterator[Raw]:
    async with upgraded(address, authorization=f"Bearer {key}") as raw:
        await raw.send(text({"type": "connection_init"}))
        await raw.send(text(subscribe(f'subscription {{ flood(name: "{name}") }}')))
        yield raw


@contextlib.asynccontextmanager
async def flooded_stream(address: str, key: str, name: str) -> AsyncIterator[Raw]:
    query = quote(f'subscription {{ flood(name: "{name}") }}')
    async with connected(address) as raw:
        lines = [f"GET /graphql?query={query} HTTP/1.1", "host: x", f"authorization: Bearer {key}"]
        await raw.send("\r\n".join([*lines, "accept: text/event-stream", "", ""]).encode())
        yield raw


async def has_ended(name: str) -> bool:
    return name in ended


async def test_a_lost_connection_ends_its_operations(client: Client) -> None:
    async with client.subscribed('subscription { silence(name: "b") { number } }') as ticks:
        await ticks.next()
    await eventually(lambda: has_ended("b"))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("x", 4400),
        ("[]", 4400),
        ("1", 4400),
        ("{}", 4400),
        ('{"type": 1}', 4400),
        ('{"type": "nonsense"}', 4400),
        ('{"type": "ping", "payload": 1}', 4400),
        ('{"type": "ping", "payload": {"a": "\\ud800"}}', 4400),
        ('{"type": "ping", "payload": {"a": 1000000000000000000000000000000}}', 4400),
        ('{"type": "complete", "id": "\\ud800"}', 4400),
        ('{"type": "complete"}', 4400),
        ('{"type": "subscribe"}', 4400),
        ('{"type": "subscribe", "id": ""}', 4400),
        ('{"type": "subscribe", "id": 1, "payload": {"query": "{ alive }"}}', 4400),
        ('{"type": "subscribe", "id": "1"}', 4400),
        ('{"type": "subscribe", "id": "1", "payload": {"query": 1}}', 4400),
        ("[" * 10_000, 4400),
        ('{"type": "connection_init"}', 4429),
    ],
)
async def test_misshapen_messages_close_with_a_code(
    socket: aiohttp.ClientWebSocketResponse, sent: str, code: int
) -> None:
    await socket.send_str(sent)
    assert await closed(socket) == code


async def test_binary_messages_are_refused(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_bytes(b"{}")
    assert await closed(socket) == 4400


async def test_an_id_in_use_is_refused(socket: aiohttp.ClientWebSocketResponse) -> None:
    for _ in range(2):
        await socket.send_json(subscribe('subscription { silence(name: "c") { number } }'))
    assert (await socket.receive_json())["type"] == "next"
    assert await closed(socket) == 4409


async def test_before_the_key_nothing_runs(client: Client) -> None:
    async with client.socket() as socket:
        await socket.send_json(subscribe("{ alive }"))
        assert await closed(socket) == 4401


@pytest.mark.parametrize("payload", [None, {}, {"Authorization": "Bearer no"}, {"authorization": 1}])
async def test_a_wrong_key_is_forbidden(client: Client, payload: Any) -> None:
    async with client.socket() as socket:
        await socket.send_json({"type": "connection_init", "payload": payload})
        assert await closed(socket) == 4403


async def test_the_key_may_come_in_the_handshake(client: Client) -> None:
    async with client.socket(authorization=f"Bearer {client.key}") as socket:
        await socket.send_json({"type": "connection_init"})
        assert await socket.receive_json() == {"type": "connection_ack"}


async def test_before_the_key_messages_are_small(client: Client) -> None:
    for size, code in ((15_945, 4403), (16_000, 1009)):
        async with client.socket() as socket:
            await socket.send_json({"type": "connection_init", "payload": {"x": "x" * size}})
            assert await closed(socket) == code


async def test_who_says_nothing_is_closed(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession
) -> None:
    assert settings.websocket_init_seconds == 10
    hasty = settings.model_copy(update={"websocket_init_seconds": 0.1})
    async with serving(hasty, valkey_url) as address, Client(http, address, "").socket() as socket:
        assert await closed(socket) == 4408


async def test_other_protocols_are_refused(client: Client) -> None:
    for protocols in ([], ["graphql-ws"]):
        async with client.http.ws_connect(client.url, protocols=protocols) as socket:
            assert await closed(socket) == 4406


async def test_pages_of_foreign_origins_may_not_connect(client: Client) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with client.socket(origin=origin):
                pass
        assert refused.value.status == 403
    for origin in ("https://dashboard.example", client.address):
        async with client.socket(origin=origin) as socket:
            assert socket.protocol == "graphql-transport-ws"


async def test_connections_and_operations_are_limited(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession, admin_key: str
) -> None:
    few = settings.model_copy(update={"max_connections_per_key": 1, "max_subscriptions_per_connection": 1})
    async with serving(few, valkey_url) as address:
        client = Client(http, address, admin_key)
        silence = 'subscription { silence(name: "d") { number } }'
        async with client.subscribed(silence) as first:
            await first.next()
            await first.socket.send_json(subscribe("{ alive }", "2"))
            refused = await first.message()
            assert refused["payload"][0]["extensions"]["details"] == {"limit": 1, "given": 2}
            async with client.socket(authorization=f"Bearer {admin_key}") as second:
                await second.send_json({"type": "connection_init"})
                assert await closed(second) == 4429
        await eventually(lambda: has_ended("d"))
        async with client.subscribed(silence) as third:
            await third.next()


async def test_connections_and_subscriptions_of_a_key_are_counted_together(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession, admin_key: str
) -> None:
    """A WebSocket counts as its operations; what is over, however it ended, is counted no more."""
    three = settings.model_copy(update={"max_connections_per_key": 3})
    async with serving(three, valkey_url) as address:
        client = Client(http, address, admin_key)
        silence = 'subscription { silence(name: "f") { number } }'
        for _ in range(3):
            ended.clear()
            async with client.subscribed(silence) as ticks:
                await ticks.next()
                for name in ("2", "3"):
                    await ticks.socket.send_json(subscribe(silence, name))
                    await ticks.next()
                await ticks.socket.send_json(subscribe(silence, "4"))
                refused = (await ticks.message())["payload"][0]["extensions"]
                assert refused == {"code": "LIMIT_EXCEEDED", "details": {"limit": 3, "given": 4}}
                async with await open_stream(client, silence) as stream:
                    assert "LIMIT_EXCEEDED" in await stream.text()
                await ticks.socket.send_json({"id": "2", "type": "complete"})
                await eventually(lambda: has_ended("f"))
                async with await open_stream(client, silence) as stream:
                    assert await stream.content.readline() == b"event: next\n"
            await eventually(lambda: all_ended(4))


async def all_ended(number: int) -> bool:
    return len(ended) == number


async def test_abandoned_subscriptions_leave_no_tasks(client: Client) -> None:
    silence = 'subscription { silence(name: "g") { number } }'
    await client.data("{ alive }")
    before = len(asyncio.all_tasks())
    for turn in range(10):
        async with client.subscribed(silence) as ticks:
            await ticks.next()
            if turn % 2:
                await ticks.socket.send_json({"id": "1", "type": "complete"})
        async with await open_stream(client, silence) as stream:
            await stream.content.readline()
    await eventually(lambda: all_ended(20))

    async def as_before() -> bool:
        return len(asyncio.all_tasks()) <= before

    await eventually(as_before)


async def test_stopping_ends_open_streams_at_once(
    settings: Settings,
    valkey_url: str,
    http: aiohttp.ClientSession,
    admin_key: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Open connections get a second; streams are not among those that have to be cut after it, which is said
    in the log."""
    assert wire.SECONDS_FOR_OPEN_CONNECTIONS == 1
    monkeypatch.setattr(wire, "SECONDS_FOR_OPEN_CONNECTIONS", PATIENCE)
    async with serving(settings, valkey_url) as address:
        client = Client(http, address, admin_key)
        socket = await http.ws_connect(
            client.url, protocols=["graphql-transport-ws"], headers={"authorization": f"Bearer {admin_key}"}
        )
        await socket.send_json({"type": "connection_init"})
        await socket.send_json(subscribe('subscription { silence(name: "ws") { number } }'))
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["connection_ack", "next"]
        stream = await open_stream(client, 'subscription { silence(name: "sse") { number } }')
        assert await stream.content.readline() == b"event: next\n"
    assert sorted(ended) == ["sse", "ws"]
    assert await closed(socket) == 1012  # clients come back after this one
    assert b"complete" not in await stream.read()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    await socket.close()
    stream.close()


async def open_stream(client: Client, document: str) -> aiohttp.ClientResponse:
    headers = {"accept": "text/event-stream", **client.headers}
    return await client.http.post(client.url, json={"query": document}, headers=headers)


async def test_event_streams_subscribe(client: Client) -> None:
    async with await open_stream(client, "subscription { count(to: 2) { number loaded } }") as stream:
        body = await stream.text()
    results = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]
    ticks = [result["data"]["count"] for result in results]
    assert ticks == [{"number": 0, "loaded": "read 1 times"}, {"number": 1, "loaded": "read 2 times"}]
    assert body.endswith("event: complete\ndata:\n\n")


async def test_silent_streams_have_heartbeats_and_end_with_their_reader(
    settings: Settings, valkey_url: str, http: aiohttp.ClientSession, admin_key: str
) -> None:
    """No proxy that waits for longer cuts them: comments in event streams, WebSocket's own pings there."""
    assert settings.heartbeat_seconds == 12
    quick = settings.model_copy(update={"heartbeat_seconds": 0.05})
    async with serving(quick, valkey_url) as address:
        stream = await open_stream(
            Client(http, address, admin_key), 'subscription { silence(name: "e") { number } }'
        )
        lines = [await stream.content.readline() for _ in range(5)]
        assert lines[0] == b"event: next\n"
        assert lines[3] == b":\n"
        stream.close()
        await eventually(lambda: has_ended("e"))
        async with upgraded(address) as raw:
            for _ in range(3):
                first, size = await raw.reader.readexactly(2)
                assert first == 0x80 | PING
                await raw.send(frame(PONG, await raw.reader.readexactly(size)))


async def test_a_reader_that_stops_is_cut_off(settings: Settings, valkey_url: str, admin_key: str) -> None:
    """Its subscription stops as soon as the buffers are full, and ends with it; nothing piles up."""
    impatient = settings.model_copy(update={"stalled_seconds": 0.3})
    async with serving(impatient, valkey_url) as address:
        for name, opened in (("flood-ws", flooded_socket), ("flood-sse", flooded_stream)):
            flooded.clear()
            async with opened(address, admin_key, name) as raw:
                await eventually(lambda: has_begun(name))  # noqa: B023
                assert isinstance(raw.writer.transport, asyncio.ReadTransport)
                raw.writer.transport.pause_reading()
                await eventually(lambda: has_ended(name))  # noqa: B023
            assert flooded[name] < 30_000_000  # what the kernel's buffers took


async def test_subscriptions_need_a_stream(client: Client) -> None:
    body = {"query": "subscription { count(to: 1) { number } }"}
    async with client.http.post(client.url, json=body, headers=client.headers) as response:
        assert response.status == 400
        assert "text/event-stream" in (await response.json())["errors"][0]["message"]

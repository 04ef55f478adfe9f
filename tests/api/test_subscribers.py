"""Many subscribers: one execution for all who ask the same, and no harm from those who do not read."""

import ast
import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import app
from app import wire
from app.campaigns import stats
from app.database import Database
from app.graphql import execution
from app.graphql.sharing import Sharing
from app.keys import queries
from app.keys import service as keys
from app.keys.roles import Role
from app.keys.secrets import hash_of
from app.settings import Settings
from tests.api.campaigns import STATS, Campaigns, people, send_everything
from tests.api.conftest import PATIENCE, Client, Subscription, eventually, new_key, serving

ONE = f"""subscription ($id: String!) {{
  campaignUpdated(campaignId: $id) {{ campaignId name status allowedActions {STATS} }} }}"""
ALL = f"subscription {{ campaignsChanged {{ deletedId campaign {{ campaignId name status {STATS} }} }} }}"
COMPLETE = {"id": "1", "type": "complete"}
MANY = 12


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    await people(database, 5)
    campaigns = Campaigns(client)
    audience = {"userIds": [f"u{number:02}" for number in range(5)], "createChannels": True}
    await campaigns.draft("c", **audience, channelTemplate={"type": "messaging"})
    return campaigns


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what was executed, by what it says."""
    counted: Counter[str] = Counter()
    answer = execution.answer

    def counting(result: Any) -> dict[str, Any]:
        told = answer(result)
        found = (told.get("data") or {}).get("campaignUpdated")
        if found is not None:
            counted[found["name"] or found["status"]] += 1
        return told

    monkeypatch.setattr(execution, "answer", counting)
    return counted


@pytest.fixture
def sharings(monkeypatch: pytest.MonkeyPatch) -> list[Sharing]:
    """Those of the processes under test."""
    made: list[Sharing] = []

    class Noted(Sharing):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(execution, "Sharing", Noted)
    return made


@contextlib.asynccontextmanager
async def subscribed(clients: list[Client], query: str = ONE, **variables: Any) -> AsyncIterator[list[Any]]:
    """A subscription of each."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(each.subscribed(query, **variables)) for each in clients]


def another(client: Client, key: str) -> Client:
    """The same client with another key."""
    return Client(client.http, client.url.removesuffix("/graphql"), key)


async def state(watched: Subscription) -> Any:
    return (await watched.next())["campaignUpdated"]


async def states(watched: Subscription) -> list[Any]:
    """What still comes, up to the end."""
    found = []
    while (message := await watched.message())["type"] == "next":
        found.append(message["payload"]["data"]["campaignUpdated"])
    assert message == COMPLETE
    return found


async def nothing_left(sharings: list[Sharing]) -> None:
    async def gone() -> bool:
        return not any(each._runs for each in sharings)

    await eventually(gone)


async def test_many_are_served_by_one_execution_of_each_update(
    sharings: list[Sharing], client: Client, campaigns: Campaigns, executed: Counter[str], database: Database
) -> None:
    other_key = another(client, await new_key(database, Role.ADMIN))
    clients = [client, other_key] * (MANY // 2)
    async with subscribed(clients, id="c") as watching:
        for each in watching:
            assert (await state(each))["status"] == "DRAFT"
        for name in ("one", "two"):
            await campaigns.done("update", campaignId="c", name=name)
            assert {(await state(each))["name"] for each in watching} == {name}
    assert (executed["one"], executed["two"]) == (1, 1)
    await nothing_left(sharings)


async def test_event_streams_and_websockets_share(
    client: Client, campaigns: Campaigns, executed: Counter[str]
) -> None:
    body = {"query": ONE, "variables": {"id": "c"}}
    headers = {**client.headers, "accept": "text/event-stream"}
    async with (
        client.subscribed(ONE, id="c") as watched,
        client.http.post(client.url, json=body, headers=headers) as stream,
    ):
        await state(watched)
        assert b"DRAFT" in await _event(stream)
        await campaigns.done("update", campaignId="c", name="both")
        assert (await state(watched))["name"] == "both"
        assert b'"both"' in await _event(stream)
        await campaigns.delete("c")
        assert await watched.message() == COMPLETE
        assert await _event(stream) == b"event: complete\ndata:\n\n"
    assert executed["both"] == 1


async def _event(stream: Any) -> bytes:
    event: bytes = await asyncio.wait_for(stream.content.readuntil(b"\n\n"), PATIENCE)
    return event


async def test_roles_and_questions_are_kept_apart(
    sharings: list[Sharing], client: Client, viewer: Client, campaigns: Campaigns
) -> None:
    await campaigns.draft("d")
    async with (
        subscribed([client, viewer], id="c") as (admins, viewers),
        client.subscribed(ONE.replace("name status", "status"), id="c") as shorter,
        client.subscribed(ONE, id="d") as other,
    ):
        assert "START" in (await state(admins))["allowedActions"]
        assert (await state(viewers))["allowedActions"] == []
        assert "name" not in await state(shorter)
        assert (await state(other))["campaignId"] == "d"
        (shared,) = sharings
        assert len(shared._runs) == 4
        await campaigns.done("start", campaignId="c")
        assert "PAUSE" in (await state(admins))["allowedActions"]
        assert (await state(viewers))["allowedActions"] == []


def _reads_of_the_viewer(path: Path) -> Iterator[str]:
    """What this file takes from a viewer: `viewer.x`, also by another name for it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            if owner == "viewer":
                yield node.attr


def test_fields_depend_on_the_role_and_on_nothing_else_of_a_key() -> None:
    """Those of campaigns, and of everything that can be reached from them. `viewer` itself is a query."""
    root = Path(app.__file__).parent
    reads = {
        str(path.relative_to(root)): found
        for path in root.rglob("*.py")
        if "api" in path.relative_to(root).as_posix() and (found := set(_reads_of_the_viewer(path)))
    }
    assert reads == {"keys/api.py": {"name", "role"}, "campaigns/api/campaign.py": {"role"}}


async def test_many_may_come_back_at_once_with_one_key(
    client: Client, campaigns: Campaigns, database: Database
) -> None:
    """They are one guess."""
    fresh = another(client, await new_key(database, Role.VIEWER))
    async with asyncio.TaskGroup() as group:
        for _ in range(4 * MANY):
            group.create_task(_one_state(fresh))


async def _one_state(client: Client) -> None:
    async with client.subscribed(ONE, id="c") as watched:
        await state(watched)


async def test_who_comes_late_is_shown_how_things_are_now(client: Client, campaigns: Campaigns) -> None:
    async with client.subscribed(ONE, id="c") as early:
        first = await state(early)
        for _ in range(3):
            asked = datetime.now(UTC).isoformat()
            async with client.subscribed(ONE, id="c") as late:
                assert asked < (await state(late))["stats"]["asOf"]
        await campaigns.done("update", campaignId="c", name="next")
        assert (await state(early))["name"] == "next"  # and was not told again what it knew
        assert first["name"] is None


async def test_everybody_sees_the_end_of_a_whole_campaign(
    sharings: list[Sharing], client: Client, campaigns: Campaigns, database: Database, valkey_url: str
) -> None:
    async with subscribed([client] * MANY, id="c") as watching, client.subscribed(ALL) as overview:
        for each in watching:
            await state(each)
        await campaigns.done("start", campaignId="c")
        await send_everything(database, valkey_url)
        endings = [(await states(each))[-1] for each in watching]
        last: Any = {"status": None}
        while last["status"] != "COMPLETED":
            last = (await overview.next())["campaignsChanged"]["campaign"]
    assert all(each == endings[0] for each in endings)
    assert (endings[0]["status"], endings[0]["stats"]["sent"]) == ("COMPLETED", 5)
    assert {**last["stats"], "asOf": None} == {**endings[0]["stats"], "asOf": None}
    await nothing_left(sharings)


async def test_who_comes_while_it_ends_sees_the_end(client: Client, campaigns: Campaigns) -> None:
    await campaigns.done("start", campaignId="c")

    async def seen() -> list[Any]:
        async with client.subscribed(ONE, id="c") as watched:
            return await states(watched)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(seen()) for _ in range(MANY)]
        await campaigns.done("stop", campaignId="c")
        readers += [group.create_task(seen()) for _ in range(MANY)]
    assert {reader.result()[-1]["status"] for reader in readers} == {"STOPPED"}


async def test_deletion_ends_all(sharings: list[Sharing], client: Client, campaigns: Campaigns) -> None:
    async with subscribed([client] * MANY, id="c") as watching:
        for each in watching:
            await state(each)
        await campaigns.delete("c")
        for each in watching:
            assert await states(each) == []
    await nothing_left(sharings)


async def test_a_refusal_is_everybodys_own_error(client: Client, campaigns: Campaigns) -> None:
    async with client.socket() as ws:
        await ws.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {client.key}"}})
        await ws.receive_json()
        for name in ("x", "y"):
            payload = {"query": ONE, "variables": {"id": "nobody"}}
            await ws.send_json({"id": name, "type": "subscribe", "payload": payload})
        told = [json.loads(await ws.receive_str(timeout=PATIENCE)) for _ in range(2)]
    assert {message["id"] for message in told} == {"x", "y"}
    for message in told:
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert [each["extensions"]["code"] for each in errors] == ["NOT_FOUND"]


async def test_a_fault_ends_all_and_is_over(
    client: Client, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("a detail of ours")

    async with subscribed([client] * MANY, id="c") as watching:
        for each in watching:
            await state(each)
        with monkeypatch.context() as patched:
            patched.setattr(stats, "snapshots", broken)
            for each in watching:
                message = await each.message()
                assert message["type"] in ("error", "next")
                assert "INTERNAL" in json.dumps(message) and "detail" not in json.dumps(message)
    async with client.subscribed(ONE, id="c") as again:
        assert (await state(again))["status"] == "DRAFT"


async def test_leaving_frees_everything_and_leaves_the_others_alone(
    sharings: list[Sharing], client: Client, campaigns: Campaigns
) -> None:
    async with client.subscribed(ONE, id="c") as stays:
        await state(stays)
        async with subscribed([client] * MANY, id="c") as watching:
            for each in watching:
                await state(each)
            for each in watching[::2]:
                each.socket._response.close()  # without a word
        await campaigns.done("update", campaignId="c", name="still here")
        assert (await state(stays))["name"] == "still here"
        (run,) = sharings[0]._runs.values()

        async def alone() -> bool:
            return len(run._members) == 1

        await eventually(alone)
    await nothing_left(sharings)


async def test_a_revoked_key_ends_its_own_subscriptions_only(
    client: Client, campaigns: Campaigns, database: Database
) -> None:
    other = another(client, await new_key(database, Role.ADMIN))
    async with subscribed([client, other], id="c") as (mine, others):
        for each in (mine, others):
            await state(each)
        async with database.transaction() as session:
            key = await queries.by_hash(session, hash_of(other.key))
            assert key is not None
            await keys.revoke(session, key.key_id)
        assert (await others.socket.receive(timeout=PATIENCE)).data == 4403
        await campaigns.done("update", campaignId="c", name="on")
        assert (await state(mine))["name"] == "on"


async def test_without_the_queue_everybody_looks_by_themselves(
    settings: Settings,
    database: Database,
    admin_key: str,
    client: Client,
    campaigns: Campaigns,
    tmp_path: Path,
) -> None:
    async with serving(settings, f"unix://{tmp_path}/nobody.sock") as deaf:
        lonely = Client(client.http, deaf, admin_key)
        async with subscribed([lonely] * MANY, id="c") as watching, lonely.subscribed(ALL) as overview:
            for each in watching:
                await state(each)
            await campaigns.done("start", campaignId="c")
            for each in watching:
                assert (await state(each))["status"] == "IN_PROGRESS"
            change = (await overview.next())["campaignsChanged"]
            assert change["campaign"]["status"] == "IN_PROGRESS"


async def test_two_processes_show_the_same(
    settings: Settings,
    database: Database,
    admin_key: str,
    client: Client,
    campaigns: Campaigns,
    valkey_url: str,
) -> None:
    async with serving(settings, valkey_url) as second:
        other = Client(client.http, second, admin_key)
        async with subscribed([client, other] * 3, id="c") as watching:
            for each in watching:
                await state(each)
            await campaigns.done("start", campaignId="c")
            await send_everything(database, valkey_url)
            endings = [(await states(each))[-1] for each in watching]
    numbers = [{**each["stats"], "asOf": None} for each in endings]
    assert all(each == numbers[0] for each in numbers)


class Deaf:
    """A WebSocket that subscribes, reads one state and then no more, with a small buffer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.socket.setblocking(False)

    async def begin(self, variables: Any, query: str) -> None:
        loop = asyncio.get_running_loop()
        port = int(self.client.url.rpartition(":")[2].partition("/")[0])
        await loop.sock_connect(self.socket, ("127.0.0.1", port))
        head = (
            "GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        await loop.sock_sendall(self.socket, head.encode())
        await self._until(b"101 Switching")
        given = {"Authorization": f"Bearer {self.client.key}", "padding": "." * 126}
        await self._send({"type": "connection_init", "payload": given})
        await self._until(b"ack")
        await self._send(
            {"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}}
        )
        await self._until(b'"next"')

    async def _send(self, message: Any) -> None:
        body = json.dumps(message).encode()
        assert len(body) >= 126
        frame = b"\x81\xfe" + len(body).to_bytes(2, "big") + b"\0" * 4 + body
        await asyncio.get_running_loop().sock_sendall(self.socket, frame)

    async def _until(self, expected: bytes) -> None:
        received, loop = b"", asyncio.get_running_loop()
        while expected not in received:
            received += await asyncio.wait_for(loop.sock_recv(self.socket, 1_000), PATIENCE)


async def test_who_stops_reading_costs_no_memory_and_is_cut_off(
    sharings: list[Sharing],
    client: Client,
    campaigns: Campaigns,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections: list[wire.WebSocket] = []
    handle = wire.WebSocket.handle_connect

    def noted(self: wire.WebSocket, event: Any) -> None:
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        connections.append(self)
        handle(self, event)

    monkeypatch.setattr(wire.WebSocket, "handle_connect", noted)
    text = " ".join(f"a{n}: messageTemplate {{ text }}" for n in range(20))
    query = f"subscription ($id: String!) {{ campaignUpdated(campaignId: $id) {{ name {text} }} }}"
    await campaigns.done("update", campaignId="c", messageTemplate={"text": "x" * 4_000})
    deaf = Deaf(client)
    await deaf.begin({"id": "c"}, query)
    async with client.subscribed(query, id="c") as reads:
        await reads.next()
        waiting = []
        for name in map(str, range(8)):
            await campaigns.done("update", campaignId="c", name=name)
            assert (await state(reads))["name"] == name  # nobody waits for who does not read
            waiting.append(connections[0].transport.get_write_buffer_size())
            (run,) = sharings[0]._runs.values()
            assert all(len(member._waiting) <= 1 for member in run._members.values())
        assert 0 < max(waiting) < 100_000  # one message of 80 kB, whatever comes after it
        connections[0]._reader._seconds = 0.05
        connections[0]._reader.relax()
        connections[0]._reader.expect()
        await eventually(lambda: _is(lambda: connections[0].disconnected))
        await eventually(lambda: _is(lambda: len(run._members) == 1))
    deaf.socket.close()


async def _is(happened: Any) -> bool:
    return bool(happened())

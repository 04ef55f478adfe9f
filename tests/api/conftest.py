"""A whole API over HTTP: the application on a real port, an admin key, and a client that speaks GraphQL."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette

from app import valkey
from app.database import Database
from app.instance import knowing_its_protocol
from app.keys import service
from app.keys.roles import Role
from app.main import create_app
from app.server import Server
from app.settings import Settings, load
from app.wire import Config

PATIENCE = 60.0  # for what a busy machine delays, and no test is about


@pytest.fixture(scope="session")
def valkey_url(short_tmp: Path) -> Iterator[str]:
    """A real Valkey for this test run."""
    server = valkey.start(short_tmp / "valkey")
    yield server.url
    server.stop()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """The settings of the API under test; override this fixture to test others."""
    return load(database_url=database_url, data_dir=tmp_path, cors_origins="https://dashboard.example")


@pytest.fixture
async def admin_key(database: Database) -> str:
    """The secret of a key with the role ADMIN."""
    return await new_key(database, Role.ADMIN)


@pytest.fixture
async def viewer_key(database: Database) -> str:
    """The secret of a key with the role VIEWER."""
    return await new_key(database, Role.VIEWER)


async def new_key(database: Database, role: Role) -> str:
    """The secret of a new key."""
    async with database.transaction() as session:
        _, secret = await service.create(session, f"a key for {role.value}", role)
    return secret


class Served(Server):
    """Ends when it is told; uvicorn would look ten times a second whether it was."""

    def __init__(self, app: Starlette, config: uvicorn.Config) -> None:
        super().__init__(app, config)
        self.told = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told.wait()


@contextlib.asynccontextmanager
async def serving(settings: Settings, redis_url: str) -> AsyncIterator[str]:
    """The application on a free port; gives its address, and stops it as SIGTERM would."""
    with knowing_its_protocol(socket.create_server(("127.0.0.1", 0))) as listening:
        app = create_app(settings, redis_url)
        server = Served(app, Config(app, settings))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            assert not running.done(), "the application did not start"
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.told.set()
            await running


@pytest.fixture
async def address(settings: Settings, valkey_url: str) -> AsyncIterator[str]:
    """Where the API under test is."""
    async with serving(settings, valkey_url) as address:
        yield address


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client for anything that is not an ordinary operation."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        yield session


async def eventually(check: Callable[[], Awaitable[bool]], within: float = PATIENCE) -> None:
    """Waits until `check` holds."""
    async with asyncio.timeout(within):
        while True:
            if await check():
                return
            await asyncio.sleep(0.01)


class Client:
    """A GraphQL client with a key."""

    def __init__(self, http: aiohttp.ClientSession, address: str, key: str) -> None:
        self.http = http
        self.address = address
        self.url = f"{address}/graphql"
        self.headers = {"authorization": f"Bearer {key}"}
        self.key = key

    async def execute(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole answer, errors included."""
        body = {"query": query, "variables": variables}
        async with self.http.post(self.url, json=body, headers=self.headers) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
        return answer

    async def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an operation that has to succeed."""
        answer = await self.execute(query, **variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    async def error(self, query: str, **variables: Any) -> dict[str, Any]:
        """The one error of an operation that has to fail at the top level."""
        answer = await self.execute(query, **variables)
        assert len(answer.get("errors", [])) == 1, answer
        error: dict[str, Any] = answer["errors"][0]
        return error

    @contextlib.asynccontextmanager
    async def subscribed(self, query: str, **variables: Any) -> AsyncIterator["Subscription"]:
        """A subscription over a WebSocket of its own."""
        async with self.socket() as socket:
            await socket.send_json(
                {"type": "connection_init", "payload": {"Authorization": f"Bearer {self.key}"}}
            )
            assert (await socket.receive_json())["type"] == "connection_ack"
            payload = {"query": query, "variables": variables}
            await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
            yield Subscription(socket)

    @contextlib.asynccontextmanager
    async def socket(self, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A bare WebSocket."""
        async with self.http.ws_connect(
            self.url, protocols=["graphql-transport-ws"], headers=headers
        ) as socket:
            yield socket


class Subscription:
    """What comes over a WebSocket for one operation."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def message(self, within: float = PATIENCE) -> dict[str, Any]:
        """The next message, whatever it is."""
        message: dict[str, Any] = json.loads(await self.socket.receive_str(timeout=within))
        return message

    async def next(self, within: float = PATIENCE) -> dict[str, Any]:
        """The data of the next result."""
        message = await self.message(within)
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        data: dict[str, Any] = message["payload"]["data"]
        return data


@pytest.fixture
async def client(http: aiohttp.ClientSession, address: str, admin_key: str) -> Client:
    """A client that may do everything."""
    return Client(http, address, admin_key)


@pytest.fixture
async def viewer(http: aiohttp.ClientSession, address: str, viewer_key: str) -> Client:
    """A client that may only read."""
    return Client(http, address, viewer_key)

"""A small GraphQL client: HTTP for queries and mutations, graphql-transport-ws for subscriptions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import orjson

Json = dict[str, Any]


class Refused(Exception):
    """The server answered with errors: the sentences it gave."""


class Client:
    """A client of one Carillon with one key."""

    def __init__(self, address: str, key: str) -> None:
        self._url = f"{address}/graphql"
        self._key = key
        self._session = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def answer(self, document: str, variables: Mapping[str, Any] | None = None) -> Json:
        """The whole answer, errors and all."""
        body = orjson.dumps({"query": document, "variables": variables or {}})
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            answer: Json = orjson.loads(await response.read())
            return answer

    async def execute(self, document: str, variables: Mapping[str, Any] | None = None) -> Json:
        """The data. Raises `Refused` for any error, a mutation's `errors` too."""
        return _data(await self.answer(document, variables))

    @asynccontextmanager
    async def subscription(
        self, document: str, variables: Mapping[str, Any] | None = None
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """The data of every event, until the server completes. Raises `Refused` for an error."""
        async with self._session.ws_connect(
            self._url.replace("http", "ws", 1), protocols=["graphql-transport-ws"], max_msg_size=0
        ) as socket:
            await socket.send_json(
                {"type": "connection_init", "payload": {"Authorization": f"Bearer {self._key}"}}
            )
            payload = {"query": document, "variables": variables or {}}
            yield _events(socket, payload)


async def _events(socket: aiohttp.ClientWebSocketResponse, payload: Json) -> AsyncIterator[Json]:
    async for frame in socket:
        message = orjson.loads(frame.data)
        match message["type"]:
            case "connection_ack":
                await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
            case "ping":
                await socket.send_json({"type": "pong"})
            case "next":
                yield _data(message["payload"])
            case "error":
                raise Refused(_sentences(message["payload"]))
            case "complete":
                return
    raise ConnectionResetError(f"the server closed the connection with code {socket.close_code}")


def _data(answer: Json) -> Json:
    if answer.get("errors"):
        raise Refused(_sentences(answer["errors"]))
    data: Json = answer["data"]
    problems = [
        error for field in data.values() if isinstance(field, dict) for error in field.get("errors") or ()
    ]
    if problems:
        raise Refused(_sentences(problems))
    return data


def _sentences(errors: list[Json]) -> str:
    return "; ".join(str(error["message"]) for error in errors)

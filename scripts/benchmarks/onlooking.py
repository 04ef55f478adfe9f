"""Thousands of subscribers in one process, as cheap as can be: `python -m scripts.benchmarks.onlooking`.

Reads a line of JSON (see `Asked`), subscribes so often, prints a line when everybody has got a first state,
and a second line, what they saw, when everybody has been told of the end. Of messages it reads the frame and
the instant of `asOf`, nothing else.
"""

import asyncio
import gc
import resource
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import orjson

AT_ONCE = 50  # that connect at the same time
_FIN_TEXT, _PING, _CLOSE = 0x81, 0x89, 0x88
_AS_OF = b'"asOf":"'
_ENDED = b'"status":"COMPLETED"'


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. `stopped` of the subscribers read no more once they have a first state. `completes`:
    the server says that nothing comes any more."""

    ports: list[int]
    secret: str
    count: int
    stopped: int
    sse: bool
    completes: bool
    query: str


class Tally:
    """What all of them saw."""

    def __init__(self, count: int) -> None:
        self.left_to_greet = count
        self.left_to_end = count
        self.greeted = asyncio.Event()
        self.ended = asyncio.Event()
        self.seconds = array("d")  # from asOf to receipt, of updates
        self.first = array("d")  # from asking to the first state
        self.stale = 0  # first states that are older than the asking
        self.instants: dict[bytes, float] = {}

    def greet(self) -> None:
        """One more has a first state."""
        self.left_to_greet -= 1
        if not self.left_to_greet:
            self.greeted.set()

    def end(self) -> None:
        """One more has been told of the end."""
        self.left_to_end -= 1
        if not self.left_to_end:
            self.ended.set()

    def instant(self, text: bytes) -> float:
        """Seconds since the epoch; the same few come again and again."""
        found = self.instants.get(text)
        if found is None:
            found = self.instants[text] = datetime.fromisoformat(text.decode()).timestamp()
        return found


class Onlooker(asyncio.Protocol):
    """One subscriber. What comes by an event stream and by a WebSocket differs below."""

    asked: ClassVar[Asked]
    tally: ClassVar[Tally]

    def __init__(self, port: int, *, stops: bool) -> None:
        self.port = port
        self.stops = stops
        self.updates = 0
        self.last = b""
        self.asked_at = 0.0
        self.is_over = False
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.begin()

    def begin(self) -> None:
        """Sends what comes first."""
        raise NotImplementedError

    def update(self, message: bytes) -> None:
        """A state."""
        start = message.find(_AS_OF) + len(_AS_OF)
        if start < len(_AS_OF):
            raise SystemExit(f"no asOf in {message[:500]!r}")
        as_of = self.tally.instant(message[start : message.index(b'"', start)])
        now = time.time()
        if not self.last:
            self.tally.first.append(now - self.asked_at)
            self.tally.stale += as_of < self.asked_at
            self.tally.greet()
            if self.stops:
                self.transport.pause_reading()
        else:
            self.updates += 1
            self.tally.seconds.append(now - as_of)
        self.last = message
        if not self.asked.completes and _ENDED in message:
            self.over()

    def over(self) -> None:
        """Nothing comes any more."""
        if not self.is_over:
            self.is_over = True
            self.tally.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over and not self.stops:
            raise SystemExit(f"a connection was lost: {exc!r} after {self.buffer[:300]!r}")


class ByWebSocket(Onlooker):
    """graphql-transport-ws."""

    def begin(self) -> None:
        """Asks for a WebSocket."""
        self.transport.write(
            b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n" % self.port
        )
        self.upgraded = False

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.upgraded:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.upgraded, self.buffer = True, self.buffer[end + 4 :]
            secret = {"Authorization": f"Bearer {self.asked.secret}"}
            self._send(orjson.dumps({"type": "connection_init", "payload": secret}))
        for kind, body in self._frames():
            self._take(kind, body)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self.buffer) >= 2:
            length, head = self.buffer[1], 2
            if length == 126:
                length, head = int.from_bytes(self.buffer[2:4], "big"), 4
            if len(self.buffer) < head + length:
                return
            kind, body = self.buffer[0], self.buffer[head : head + length]
            self.buffer = self.buffer[head + length :]
            yield kind, body

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _PING:
            self._send(body, 0x8A)
        elif kind == _CLOSE:
            raise SystemExit(f"closed with {int.from_bytes(body[:2], 'big')}: {body[2:].decode()}")
        elif b'"type":"next"' in body[:100]:
            self.update(body)
        elif b'"complete"' in body:
            self.over()
        elif b"connection_ack" in body:
            self.asked_at = time.time()
            payload = {"query": self.asked.query}
            self._send(orjson.dumps({"id": f"{id(self):x}", "type": "subscribe", "payload": payload}))
        else:
            raise SystemExit(f"unexpected: {kind:x} {body[:500]!r}")

    def _send(self, body: bytes, kind: int = _FIN_TEXT) -> None:
        """A frame that is masked with zeros."""
        size = bytes((0x80 | len(body),)) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
        self.transport.write(bytes((kind,)) + size + b"\0\0\0\0" + body)


class ByEventStream(Onlooker):
    """graphql-sse, distinct connections."""

    def begin(self) -> None:
        """Asks for a stream."""
        body = orjson.dumps({"query": self.asked.query})
        self.asked_at = time.time()
        self.transport.write(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n"
            b"Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (self.port, self.asked.secret.encode(), len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\n\n")) >= 0:
            event, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
            if b"event: next" in event:
                self.update(event)
            elif b"event: complete" in event:
                self.over()


async def _main() -> None:
    asked = Asked(**orjson.loads(sys.stdin.readline()))
    Onlooker.asked, Onlooker.tally = asked, Tally(asked.count)
    tally, kind = Onlooker.tally, ByEventStream if asked.sse else ByWebSocket
    onlookers = [
        kind(asked.ports[number % len(asked.ports)], stops=number < asked.stopped)
        for number in range(asked.count)
    ]
    tally.left_to_end -= asked.stopped
    loop = asyncio.get_running_loop()
    began = time.time()
    for start in range(0, asked.count, AT_ONCE):
        await asyncio.gather(
            *(
                loop.create_connection(lambda each=each: each, "127.0.0.1", each.port)  # type: ignore[misc]
                for each in onlookers[start : start + AT_ONCE]
            )
        )
    await tally.greeted.wait()
    print(orjson.dumps({"connecting": time.time() - began}).decode(), flush=True)
    await tally.ended.wait()
    print(orjson.dumps(_told(tally, onlookers)).decode(), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def _told(tally: Tally, onlookers: list[Any]) -> dict[str, Any]:
    seconds, first = sorted(tally.seconds), sorted(tally.first)
    readers = [each for each in onlookers if not each.stops]
    updates = sorted(each.updates for each in readers)
    return {
        "updates": [updates[0], updates[len(updates) // 2], updates[-1]],
        "latency": [_quantile(seconds, part) for part in (0.5, 0.99, 1)],
        "first": [_quantile(first, part) for part in (0.5, 0.99, 1)],
        "stale": tally.stale,
        "terminal": sum(_ENDED in each.last for each in readers),
        "endings": sorted({_stats(each.last) for each in readers}),
        "instants": len(tally.instants),
    }


def _quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def _stats(message: bytes) -> str:
    """What the last state says, without its instant."""
    found = orjson.loads(message[message.index(b'{"data"') if b"event: next" in message else 0 :])
    data = found.get("payload", found)["data"]
    campaign = data.get("campaignUpdated") or data["campaignsChanged"]["campaign"]
    campaign["stats"].pop("asOf")
    return orjson.dumps(campaign, option=orjson.OPT_SORT_KEYS).decode()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.disable()
    asyncio.run(_main())

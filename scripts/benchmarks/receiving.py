"""A customer's server for the benchmark, in a process of its own: it verifies signatures and counts ids.

Run as a program it prints its port and serves until its stdin ends. POST /ok/... is answered at once,
/slow/... after a second, /dead/... never; GET /counted tells what has arrived, by path.
"""

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import orjson
from standardwebhooks import Webhook, WebhookVerificationError

SECONDS_OF_SLOWNESS = 1.0
_ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Counted:
    """What has arrived at one path. `late` are first attempts after the first attempt of a later delivery, by
    up to `furthest` places."""

    posts: int = 0
    events: int = 0
    forged: int = 0
    doubled: int = 0
    late: int = 0
    furthest: int = 0
    last_at: float = 0.0
    ids: set[str] = field(default_factory=set, repr=False)
    _newest: list[str] = field(default_factory=list, repr=False)

    def count(self, webhook_id: str, events: int) -> None:
        """One post."""
        self.posts += 1
        self.last_at = time.time()
        if webhook_id in self.ids:
            self.doubled += 1
            return
        self.ids.add(webhook_id)
        self.events += events
        newest = self._newest
        if newest and webhook_id < newest[-1]:  # ids of deliveries ascend with their order
            self.late += 1
            self.furthest = max(self.furthest, sum(webhook_id < each for each in newest[-2_000:]))
        else:
            newest.append(webhook_id)
            del newest[:-4_000]


class Server(asyncio.Protocol):
    """One connection: as much of HTTP as a deliverer speaks, and no more."""

    counted: ClassVar[defaultdict[str, Counted]] = defaultdict(Counted)
    signers: ClassVar[dict[str, Webhook]] = {}

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].decode("latin-1").split("\r\n")
            headers = {}
            for line in head[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", "0"))
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            self._answer(head[0].split(" ")[1], headers, body)

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if path == "/counted":
            told = orjson.dumps({key: _told(value) for key, value in self.counted.items()})
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
        elif path.startswith("/secret/"):
            self.signers["/" + path.removeprefix("/secret/")] = Webhook(body.decode())
            self._transport.write(_ACCEPTED)
        else:
            self._take(path, headers, body)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        counted = self.counted[path]
        try:
            self.signers[path].verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            counted.forged += 1
        counted.count(headers["webhook-id"], body.count(b'"type":"message.new"'))
        if path.startswith("/ok"):
            self._transport.write(_ACCEPTED)
        elif path.startswith("/slow"):
            asyncio.get_running_loop().call_later(SECONDS_OF_SLOWNESS, self._transport.write, _ACCEPTED)


def _told(counted: Counted) -> dict[str, Any]:
    return {key: value for key, value in asdict(counted).items() if key not in ("ids", "_newest")}


class Receiver:
    """The server's process, seen from the benchmark."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.address = f"http://127.0.0.1:{port}"

    def trust(self, path: str, secret: str) -> str:
        """Makes posts to this path be verified by this secret; returns the URL."""
        request = urllib.request.Request(f"{self.address}/secret{path}", data=secret.encode(), method="POST")
        urllib.request.urlopen(request, timeout=5).close()
        return f"{self.address}{path}"

    def counted(self, path: str) -> Counted:
        """What has arrived there."""
        with urllib.request.urlopen(f"{self.address}/counted", timeout=30) as answer:
            return Counted(**json.load(answer).get(path, {}))


@contextmanager
def running() -> Iterator[Receiver]:
    """A receiver; it is gone afterwards, and with this process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.receiving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Receiver(process, int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        server.close()


if __name__ == "__main__":
    gc.disable()  # nothing here has cycles, and the ids of a long run are many
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())

"""An API process to measure: `python -m scripts.benchmarks.serving DATABASE REDIS VARIANT`.

Prints its port and a key, and serves until it is told to stop. Answers tell in headers what they cost, in
seconds: `x-processor`, all threads of the process, and `x-statements`, from asking the driver until it has
all rows.
"""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from graphql import OperationType
from sqlalchemy import Engine, event
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.database import Database
from app.graphql import limits
from app.graphql.context import Context
from app.graphql.execution import Operations
from app.instance import knowing_its_protocol
from app.keys import service
from app.keys.roles import Role
from app.main import create_app
from app.schema import schema
from app.server import Server
from app.settings import load
from app.wire import Config

Variant = Literal["carillon", "stock", "unlimited", "bare"]
_SECONDS_TO_START = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Costs:
    """The application, with what each answer cost in its headers."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._statements = 0.0
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)

    def _before(self, connection: Any, *_: Any) -> None:
        connection.info["asked"] = time.perf_counter()

    def _after(self, connection: Any, *_: Any) -> None:
        self._statements += time.perf_counter() - connection.info["asked"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._statements, began = 0.0, time.process_time()

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                spent = time.process_time() - began
                for name, seconds in ((b"x-processor", spent), (b"x-statements", self._statements)):
                    message["headers"].append((name, str(seconds).encode()))
            await send(message)

        await self._app(scope, receive, sending)


def _vary(variant: Variant) -> None:
    """Takes away from the schema what the variant is without."""
    if variant in ("stock", "bare"):
        schema.execution_context_class = StrawberryGraphQLCoreExecutionContext
    if variant == "unlimited":
        limits.check_text = limits.check_document = lambda *_: None
    if variant == "bare":
        schema.extensions = [ParserCache(), ValidationCache()]
        Operations.admit = lambda self, request, viewer: (  # type: ignore[method-assign]
            Context(self._services, viewer),
            OperationType.QUERY,
        )


async def _key(database_url: str) -> str:
    database = Database(database_url)
    async with database.transaction() as session:
        _, secret = await service.create(session, "bench", Role.ADMIN)
    await database.close()
    return secret


def main(database_url: str, redis_url: str, variant: Variant) -> None:
    """Serves."""
    _vary(variant)
    settings = load(database_url=database_url, data_dir=Path(database_url.removeprefix("sqlite:///")).parent)
    listening = knowing_its_protocol(socket.create_server(("127.0.0.1", 0)))
    app = create_app(settings, redis_url)
    server = Server(app, Config(Costs(app), settings))
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # as `app.server` has it
    print(listening.getsockname()[1], asyncio.run(_key(database_url)), flush=True)
    server.run(sockets=[listening])


class Serving:
    """An API process that serves."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        port, secret = process.stdout.readline().split()
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.headers = {"authorization": f"Bearer {secret}"}

    def processor_seconds(self) -> float:
        """Processor time until now, its own and the kernel's for it."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def serving(database_url: str, redis_url: str, variant: Variant) -> Iterator[Serving]:
    """Such a process; it is gone afterwards."""
    command = [sys.executable, "-m", "scripts.benchmarks.serving", database_url, redis_url, variant]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield Serving(process)
    finally:
        process.terminate()
        process.wait(_SECONDS_TO_START)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]

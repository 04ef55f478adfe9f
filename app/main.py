"""The ASGI application: routes, and what lives as long as the process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from app.auth import Authenticator
from app.campaigns.overview import Overview
from app.campaigns.watching import Watching
from app.database import Database
from app.ending import end
from app.errors import NotFound
from app.graphql.context import Services
from app.graphql.execution import Operations
from app.graphql.explorer import Explorer
from app.graphql.http import HttpTransport
from app.graphql.streams import OpenStreams
from app.graphql.websocket import WebSocketTransport, deny
from app.health import Readiness
from app.progress import Listener, Publisher
from app.queue import Doorbell
from app.schema import schema
from app.settings import Settings

CODES = {404: "NOT_FOUND"}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Carillon</title>
<body style="font: 1rem/1.5 system-ui; max-width: 40rem; margin: 4rem auto; padding: 0 1rem">
<h1>Carillon</h1>
<p>Sends one personalised chat message to a large audience, and proves that everybody got exactly one.</p>
<p>The GraphQL API is at <a href="graphql"><code>/graphql</code></a> (POST, WebSocket with
<code>graphql-transport-ws</code>, event streams). It wants a key: <code>Authorization: Bearer KEY</code>. A
browser gets an explorer there, unless that is turned off.</p>
<p>Health: <a href="/healthz">/healthz</a> (the process lives),
<a href="/readyz">/readyz</a> (it can work).</p>
</body>
</html>
"""


def create_app(settings: Settings, redis_url: str) -> Starlette:
    """The application. Nothing connects before it starts; stopping it closes everything, at once."""
    database, listener = Database(settings.database), Listener(redis_url)
    services = Services(
        database=database,
        settings=settings,
        doorbell=Doorbell(redis_url),
        publisher=Publisher(redis_url),
        listener=listener,
        watching=Watching(database, listener),
        overview=Overview(database, listener),
        readiness=Readiness(database, redis_url),
    )
    authenticator = Authenticator(services.database, settings.max_wrong_keys_per_minute)
    streams = OpenStreams(authenticator, settings.max_connections_per_key)
    operations = Operations(schema, services)
    http = HttpTransport(operations, authenticator, streams, settings)
    websocket = WebSocketTransport(operations, authenticator, streams, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        running = [asyncio.create_task(services.listener.listen()), asyncio.create_task(streams.watch())]
        try:
            yield
        finally:
            await end(*running)
            await authenticator.close()
            await services.readiness.close()
            await services.publisher.close()
            await services.doorbell.close()
            await services.database.close()

    async def ready(_: Request) -> Response:
        missing = await services.readiness.missing()
        if missing:
            return JSONResponse({"status": "not ready", "missing": missing}, status_code=503)
        return JSONResponse({"status": "ready"})

    explorer = Explorer() if settings.explorer else None

    async def graphql(request: Request) -> Response:
        if explorer is not None and explorer.wanted(request):
            return explorer.page()
        return await http.handle(request)

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/healthz", _alive),
            Route("/readyz", ready),
            Route("/graphql", _EveryMethod(graphql)),
            WebSocketRoute("/graphql", websocket.handle),
            WebSocketRoute("/{path:path}", _no_websocket),
            *(explorer.routes() if explorer is not None else ()),
        ],
        middleware=_cors(settings),
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # behind a proxy that ends TLS it would lead to plain HTTP
    app.state.streams = streams
    return app


class _EveryMethod:
    """An endpoint that refuses methods itself: Starlette knows but those that it is told of."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


async def _no_websocket(socket: WebSocket) -> None:
    await deny(socket, 404, NotFound("WebSockets are opened at /graphql."))


def _cors(settings: Settings) -> list[Middleware]:
    """Lets pages of the origins listed in; without any, browsers keep all others out by themselves."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "idempotency-key"],
            expose_headers=["idempotent-replayed"],
            max_age=600,
        )
    ]


async def _refused(_: Request, failure: Exception) -> Response:
    """What no route answers gets JSON too."""
    assert isinstance(failure, HTTPException)
    error = {
        "message": f"{failure.detail}.",
        "extensions": {"code": CODES.get(failure.status_code, "INVALID_INPUT")},
    }
    return JSONResponse({"errors": [error]}, failure.status_code, failure.headers)


async def _page(_: Request) -> Response:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(PAGE, headers={"content-security-policy": policy})


async def _alive(_: Request) -> Response:
    return JSONResponse({"status": "alive"})

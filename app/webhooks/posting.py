"""One POST to a customer's server, from which nothing is trusted but the status of its answer."""

import asyncio
import contextlib
import errno
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from io import BytesIO

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver
from yarl import URL

from app.errors import AppError
from app.settings import Settings
from app.webhooks.addresses import AddressRefused, Guard, check_url
from app.webhooks.schedule import retry_after

log = structlog.get_logger(__name__)

SECONDS_TO_CONNECT = 5.0
# Node and uvicorn close connections that were idle for 5 s; whoever posts into that fails for nothing.
SECONDS_KEPT_OPEN = 4.0
SECONDS_CLOSED_AT_ONCE = 0.5
SECONDS_FOR_THE_REST = 0.5
MOST_IN_ONE_PIECE = 500_000
MAX_ANSWER_BYTES = 16_384
MAX_HEADERS, MAX_HEADER_BYTES = 64, 8_190
MAX_DETAIL = 200
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": "Carillon-Webhooks/1",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended. `error` is None if it was delivered, else a sentence that anybody may read; what
    the receiver asks for by Retry-After is in `retry_after`."""

    status_code: int | None
    error: str | None
    retry_after: timedelta | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.error is None

    @property
    def gone(self) -> bool:
        """Whether the receiver wants nothing any more."""
        return self.status_code == HTTPStatus.GONE


class Poster:
    """Posts, and keeps connections open between posts. Use it as a context manager, in one event loop.

    No redirect is followed, no proxy or password is taken from the environment, no cookie is kept.
    """

    def __init__(self, settings: Settings, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._guard = Guard(settings.webhook_allowed_networks)
        self._urls: dict[str, URL | str] = {}

    async def __aenter__(self) -> "Poster":
        total = self._settings.webhook_timeout_seconds
        connector = aiohttp.TCPConnector(
            limit=0,  # who delivers limits each endpoint by itself; a common limit would let one block others
            resolver=self._resolver,
            keepalive_timeout=SECONDS_KEPT_OPEN,
            socket_factory=self._guard.open,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=total, connect=min(SECONDS_TO_CONNECT, total)),
            headers=_HEADERS,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=MAX_ANSWER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], at: datetime) -> Attempt:
        """One attempt, within the time limit; `at` is the time now. Never raises but when it is cancelled."""
        target = self._target(url)
        if isinstance(target, str):
            return Attempt(None, target)
        try:
            return await self._post_again_if_closed(target, body, headers, at)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Attempt(None, self._sentence(error))
        except Exception:  # whatever a hostile answer makes the client do, it is that endpoint's failure
            log.exception("a post failed in an unknown way", host=target.host)
            return Attempt(
                None, "The post failed in a way that is not known; the log of the deliverer says more."
            )

    def _target(self, url: str) -> URL | str:
        """The URL, or why it is refused: what is allowed may have changed since the endpoint was made."""
        found = self._urls.get(url)
        if found is None:
            if len(self._urls) > 1_000:
                self._urls.clear()
            try:
                found = URL(check_url(url, self._settings))
            except AppError as error:
                found = f"Refused: the URL {error.message}"[:MAX_DETAIL]
            self._urls[url] = found
        return found

    async def _post_again_if_closed(
        self, target: URL, body: bytes, headers: Mapping[str, str], at: datetime
    ) -> Attempt:
        """Once more if the connection was closed at once: that may have been so before, while it was idle."""
        begun = asyncio.get_running_loop().time()
        try:
            return await self._post(target, body, headers, at)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if asyncio.get_running_loop().time() - begun > SECONDS_CLOSED_AT_ONCE:
                raise
        return await self._post(target, body, headers, at)

    async def _post(self, target: URL, body: bytes, headers: Mapping[str, str], at: datetime) -> Attempt:
        # In pieces, if it is large: no other post has to wait until all of it is handed over.
        data = body if len(body) <= MOST_IN_ONE_PIECE else BytesIO(body)
        answer = await self._session.post(target, data=data, headers=headers, allow_redirects=False)
        try:
            await _read_little(answer)
        finally:
            answer.release() if answer.content.at_eof() else answer.close()
        return _judged(answer.status, answer.headers.get("Retry-After"), at)

    def _sentence(self, error: Exception) -> str:
        """What went wrong, without the URL's path or query: they may hold what is secret."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        match error:
            case aiohttp.ClientConnectorDNSError():
                said = "The host's name could not be resolved."
            case aiohttp.ClientConnectorCertificateError():
                said = f"The certificate is not trusted: {_certificate(error.certificate_error)}."
            case aiohttp.ClientConnectorSSLError():
                said = "No secure connection: TLS failed."
            case _ if isinstance(cause, AddressRefused):
                said = str(cause)
            case aiohttp.ConnectionTimeoutError():
                said = f"No connection within {min(SECONDS_TO_CONNECT, self._total):g} s."
            case TimeoutError():
                said = f"No answer within {self._total:g} s."
            case aiohttp.ServerDisconnectedError():
                said = "The connection was closed without an answer."
            case aiohttp.ClientConnectorError():
                said = f"No connection: {_reason(cause)}."
            case OSError():
                said = f"The connection broke: {_reason(error)}."
            case _:
                said = "The answer is not proper HTTP, or its head is too large."
        return said[:MAX_DETAIL]

    @property
    def _total(self) -> float:
        return self._settings.webhook_timeout_seconds


async def _read_little(answer: aiohttp.ClientResponse) -> None:
    """Reads the rest of a small answer, so that its connection can be used again. The status has said all: a
    large, slow or broken body changes nothing, and is not waited for."""
    left = MAX_ANSWER_BYTES
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        if answer.content.at_eof():
            return
        async with asyncio.timeout(SECONDS_FOR_THE_REST):
            while left > 0 and (read := await answer.content.read(left)):
                left -= len(read)


def _judged(status: int, asked: str | None, at: datetime) -> Attempt:
    if 200 <= status < 300:
        return Attempt(status, None)
    if 300 <= status < 400:
        return Attempt(status, f"Answered {_named(status)}; redirects are not followed.")
    return Attempt(status, f"Answered {_named(status)}.", retry_after(asked, at))


def _named(status: int) -> str:
    """The status in our words: the reason in the answer is the receiver's."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _reason(error: BaseException | None) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number in errno.errorcode else "unreachable"


def _certificate(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else "invalid"

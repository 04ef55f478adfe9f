"""One post against servers that are slow, broken or hostile: what is said of it, and what it may cost."""

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks.posting import MAX_ANSWER_BYTES, Attempt, Poster
from tests.integration.receiving import Post, Receiver, allowing, receiving, talking

HEADERS = {"webhook-id": "1", "webhook-timestamp": "2", "webhook-signature": "v1,x"}
REQUEST = b"POST"


async def post(
    url: str, body: bytes = b"{}", resolver: AbstractResolver | None = None, **settings: Any
) -> Attempt:
    """One attempt by a client of its own."""
    async with Poster(allowing(**settings), resolver) as poster:
        return await poster.post(url, body, HEADERS, datetime.now(UTC))


class Resolver(AbstractResolver):
    """Says of every name what it is told to, another address each time; and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The next answer, and the last one ever after."""
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in answer
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (201, None),
        (204, None),
        (299, None),
        (301, "Answered 301 Moved Permanently; redirects are not followed."),
        (302, "Answered 302 Found; redirects are not followed."),
        (307, "Answered 307 Temporary Redirect; redirects are not followed."),
        (308, "Answered 308 Permanent Redirect; redirects are not followed."),
        (400, "Answered 400 Bad Request."),
        (410, "Answered 410 Gone."),
        (418, "Answered 418 I'm a Teapot."),
        (500, "Answered 500 Internal Server Error."),
        (599, "Answered 599."),
    ],
)
async def test_the_status_decides(status: int, error: str | None) -> None:
    async with receiving() as elsewhere, receiving() as receiver:
        receiver.answers(status, headers={"Location": elsewhere.url})
        assert await post(receiver.url) == Attempt(status, error)
        assert (len(receiver.posts), len(elsewhere.posts)) == (1, 0)


async def test_what_arrives_is_a_plain_post_of_json() -> None:
    body = '{"text":"Grüße 😀"}'.encode()
    async with receiving() as receiver:
        await post(receiver.url + "?a=%2F", body)
        arrived = receiver.posts[0]
    assert arrived.body == body
    assert arrived.headers["webhook-id"] == "1"
    assert arrived.headers["Content-Type"] == "application/json"
    assert arrived.headers["Accept-Encoding"] == "identity"
    assert arrived.headers["User-Agent"].startswith("Carillon")
    assert "Cookie" not in arrived.headers and "Authorization" not in arrived.headers


async def test_retry_after_is_read() -> None:
    async with receiving() as receiver:
        receiver.answers(503, headers={"Retry-After": "17"})
        assert (await post(receiver.url)).retry_after == timedelta(seconds=17)
        receiver.answers(429, headers={"Retry-After": "soon"})
        assert (await post(receiver.url)).retry_after is None


async def test_cookies_proxies_and_passwords_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    async with receiving() as receiver, Poster(allowing()) as poster:
        receiver.answers(200, headers={"Set-Cookie": "a=b"})
        for _ in range(2):
            assert (await poster.post(receiver.url, b"{}", HEADERS, datetime.now(UTC))).delivered
    for arrived in receiver.posts:
        assert "Cookie" not in arrived.headers and "Authorization" not in arrived.headers


async def test_connections_are_used_again() -> None:
    connections = set[Any]()

    async def answer(_: Post) -> web.StreamResponse:
        return web.Response(text="thank you " * 100)

    class Counting(Receiver):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            connections.add(request.transport)
            return await super().handle(request)

    async with receiving(Counting(answer)) as receiver, Poster(allowing()) as poster:
        for _ in range(20):
            assert (await poster.post(receiver.url, b"{}", HEADERS, datetime.now(UTC))).delivered
    assert len(connections) == 1


async def test_a_connection_that_was_closed_while_it_rested_costs_no_attempt() -> None:
    answered = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n{}")
        answered += 1
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")  # the next one finds the door closed

    async with talking(once) as url, Poster(allowing()) as poster:
        for _ in range(2):
            assert (await poster.post(url, b"{}", HEADERS, datetime.now(UTC))).delivered
    assert answered == 2


# --- answers that are too much


async def test_of_a_huge_answer_little_is_read() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with talking(flood) as url:
        assert await post(url) == Attempt(200, None)
    assert sent < 100 * MAX_ANSWER_BYTES + 10_000_000  # what fits into the buffers of two sockets


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    async def answer(_: Post) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with receiving(Receiver(answer)) as receiver:
        begun = time.process_time()
        assert (await post(receiver.url)).delivered
        assert time.process_time() - begun < 1


async def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    async with talking(stall) as url:
        assert await post(url) == Attempt(200, None)


HEADS = {
    "a header of a megabyte": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "a hundred thousand headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a status that is none": b"HTTP/1.1 2000 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_head_that_is_not_proper_is_a_failure(head: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(head)
        await writer.drain()
        await reader.read()

    async with talking(say) as url:
        attempt = await post(url)
    assert attempt.error == "The answer is not proper HTTP, or its head is too large."


async def test_who_says_continue_for_ever_is_left_in_time() -> None:
    async def dally(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with talking(dally) as url:
        attempt = await post(url, webhook_timeout_seconds=1)
    assert attempt == Attempt(None, "No answer within 1 s.")


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\nX-"], ids=["nothing", "half a head"])
async def test_who_does_not_answer_is_left_in_time(drip: bytes) -> None:
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(drip)
        await reader.read()

    async with talking(stay) as url:
        attempt = await post(url, webhook_timeout_seconds=1)
    assert attempt == Attempt(None, "No answer within 1 s.")


async def test_who_does_not_take_the_body_is_left_in_time() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async with talking(refuse) as url:
        attempt = await post(url, b"x" * 30_000_000, webhook_timeout_seconds=1)
    assert attempt == Attempt(None, "No answer within 1 s.")


async def test_who_hangs_up_is_told() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")

    async with talking(hang_up) as url:
        assert await post(url) == Attempt(None, "The connection was closed without an answer.")


async def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/token-in-the-path?token=secret"
        assert await post(url) == Attempt(None, "No connection: Connection refused.")


# --- where it leads


async def test_a_name_that_leads_nowhere() -> None:
    attempt = await post("http://nowhere.example/secret", resolver=Resolver([]))
    assert attempt == Attempt(None, "The host's name could not be resolved.")


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["10.0.0.1"], "private"),
        (["169.254.169.254"], "a cloud's metadata service"),
        (["::1"], "loopback"),
        (["::ffff:10.0.0.1"], "private"),
        (["10.0.0.1", "10.0.0.2", "fd00::1"], "private"),
    ],
)
async def test_a_name_that_leads_inside_is_refused(addresses: list[str], kind: str) -> None:
    attempt = await post("http://innocent.example/", resolver=Resolver(addresses))
    assert attempt.error is not None
    assert attempt.error.startswith(f"Refused: the host's address is {kind}")
    assert not any(address in attempt.error for address in addresses)


async def test_a_name_that_is_bound_anew_between_two_posts_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.webhooks.posting.SECONDS_KEPT_OPEN", 0.0)
    resolver = Resolver(["127.0.0.1"], ["10.0.0.1"])
    async with receiving() as receiver, Poster(allowing(), resolver) as poster:
        url = receiver.url.replace("127.0.0.1", "rebound.example")
        receiver.answers(200, headers={"Connection": "close"})
        assert (await poster.post(url, b"{}", HEADERS, datetime.now(UTC))).delivered
        poster._session.connector.clear_dns_cache()  # type: ignore[union-attr]
        attempt = await poster.post(url, b"{}", HEADERS, datetime.now(UTC))
    assert attempt.error is not None and "private" in attempt.error
    assert (resolver.asked, len(receiver.posts)) == (2, 1)


async def test_of_several_addresses_an_allowed_one_is_used() -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "both.example")
        attempt = await post(url, resolver=Resolver(["10.0.0.1", "127.0.0.1"]))
    assert attempt.delivered


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706433", "0x7f.1", "localhost", "[::1]"])
async def test_literal_addresses_are_refused_when_they_are_connected_to(host: str) -> None:
    """However it came into the rows: what was allowed once may be so no more."""
    attempt = await post(f"http://{host}/", webhook_allowed_networks="127.0.0.1/32" if "." in host else "")
    if host in ("0x7f.1",):
        attempt = await post(f"http://{host}/", webhook_allowed_networks="")
    assert attempt.error is not None and attempt.error.startswith("Refused: ")


async def test_http_that_is_not_allowed_any_more_is_refused() -> None:
    attempt = await post("http://127.0.0.1:1/", webhook_allow_http=False)
    assert attempt.error is not None and attempt.error.startswith("Refused: the URL must begin with https://")


# --- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed but itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    at = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    arrived: list[Mapping[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        arrived.append(request.headers)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    attempt = await post(f"https://127.0.0.1:{runner.addresses[0][1]}/")
    await runner.cleanup()
    assert attempt.error is not None and attempt.error.startswith("The certificate is not trusted: ")
    assert arrived == []


async def test_https_to_a_server_without_it_is_a_failure() -> None:
    async with receiving() as receiver:
        attempt = await post(receiver.url.replace("http:", "https:"))
    assert attempt == Attempt(None, "No secure connection: TLS failed.")

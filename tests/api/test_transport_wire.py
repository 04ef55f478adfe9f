"""Peers that do not keep to HTTP or WebSocket, or take their time: what they are told, and that they go."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app import wire
from app.settings import Settings
from tests.api.conftest import PATIENCE, eventually, serving
from tests.api.raw import BINARY, CONTINUATION, PING, TEXT, connected, frame, text, upgraded

HEAD = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
UPGRADE = b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
KEY = b"sec-websocket-key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
CODES = {403: "FORBIDDEN", 404: "NOT_FOUND", 413: "LIMIT_EXCEEDED", 431: "LIMIT_EXCEEDED"}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """Nothing here comes as far as a database of either kind."""
    (tmp_path / "carillon.db").write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path / 'carillon.db'}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Little patience."""
    return settings.model_copy(
        update={"request_timeout_seconds": 0.3, "stalled_seconds": 0.3, "websocket_init_seconds": 0.3}
    )


@pytest.fixture
async def patient(settings: Settings, valkey_url: str) -> AsyncIterator[str]:
    """An API that waits for longer than any test."""
    usual = Settings.model_fields
    names = ("request_timeout_seconds", "stalled_seconds", "websocket_init_seconds")
    update = {name: usual[name].default for name in names}
    async with serving(settings.model_copy(update=update), valkey_url) as address:
        yield address


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na\0b: c\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (HEAD + b"content-length: x\r\n\r\n", 400),
        (HEAD + b"content-length: -1\r\n\r\n", 400),
        (HEAD + b"content-length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", 501),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 17_000, 431),
        (b"GET /" + b"a" * 17_000, 431),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1" * 17_000, 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 17_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b" " * 17_000 + b"b\r\n\r\n", 431),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (HEAD + b"a: " + b"b" * 17_000 + b"\r\ncontent-length: 2\r\n\r\n{}", 431),
        (HEAD + b"content-length: 99999999999999999999\r\nconnection: close\r\n\r\n", 413),
        (UPGRADE + b"sec-websocket-version: 13\r\n\r\n", 400),
        (UPGRADE + b"sec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n\r\n", 400),
        (UPGRADE + b"sec-websocket-key: \xff\xfe\r\nsec-websocket-version: 13\r\n\r\n", 400),
        (UPGRADE + KEY + b"\r\n", 400),
        (UPGRADE + KEY + b"sec-websocket-version: 12\r\n\r\n", 400),
        (UPGRADE + KEY + b"sec-websocket-version: 13\r\nsec-websocket-protocol: ;\r\n\r\n", 400),
        (UPGRADE + KEY + b"content-length: 2\r\n\r\n{}", 400),
        (UPGRADE + KEY + b"transfer-encoding: chunked\r\n\r\n", 400),
        (UPGRADE.replace(b"GET", b"POST") + KEY + b"sec-websocket-version: 13\r\n\r\n", 405),
        (UPGRADE + KEY + b"sec-websocket-version: 13\r\norigin: https://evil.example\r\n\r\n", 403),
        (UPGRADE.replace(b"/graphql", b"/readyz") + KEY + b"sec-websocket-version: 13\r\n\r\n", 404),
        (UPGRADE + KEY + b"a: " + b"b" * 9_000 + b"\r\n\r\n", 431),
        (UPGRADE + KEY + b"a: b\r\n" * 130 + b"\r\n", 431),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else None,
)
async def test_what_is_no_http_is_told_so_in_json(
    patient: str, sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(patient) as raw:
        await raw.send(sent)
        answered, body = await raw.answer()
    assert answered == status
    extensions = body["errors"][0]["extensions"]
    assert extensions["code"] == CODES.get(status, "INVALID_INPUT")
    if extensions["code"] == "LIMIT_EXCEEDED":
        assert extensions["details"]["limit"] < extensions["details"]["given"] < 2**53
    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_head_has_a_size_however_it_comes(patient: str, pieces: int) -> None:
    for size in (16_000, 16_001):
        head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\na: "
        head += b"b" * (size - len(head) - 4) + b"\r\n\r\n"
        async with connected(patient) as raw:
            await raw.send(head[: size // pieces])
            await raw.send(head[size // pieces :])
            status, body = await raw.answer()
        if size == 16_000:
            assert (status, body) == (200, {"status": "alive"})
        else:
            assert status == 431
            assert body["errors"][0]["extensions"]["details"] == {"limit": 16_000, "given": size}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 0),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", 408),
        (HEAD + b"content-length: 10\r\n\r\n{", 408),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
    ],
    ids=["silence", "half a line", "half the headers", "half a body", "half the chunks"],
)
async def test_a_request_that_never_ends_is_given_up(address: str, sent: bytes, status: int) -> None:
    async with connected(address) as raw:
        await raw.send(sent)
        answered, body = await raw.answer()
    assert answered == status
    assert body is None or body["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"


async def test_a_body_that_drips_is_given_up(address: str) -> None:
    async with connected(address) as raw:
        await raw.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        answer = raw.reader._buffer  # type: ignore[attr-defined]
        while not answer:
            await raw.send(b"1\r\n \r\n")
            await asyncio.sleep(0.02)
        assert answer.startswith(b"HTTP/1.1 408")


async def test_a_body_after_the_answer_does_not_keep_the_connection(address: str) -> None:
    async with connected(address) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert (await raw.rest()).startswith(b"HTTP/1.1 200")


async def test_garbage_after_an_answer_is_no_fault_of_ours(
    patient: str, caplog: pytest.LogCaptureFixture
) -> None:
    for sent in (
        GET + b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
    ):
        async with connected(patient) as raw:
            await raw.send(sent)
            assert (await raw.reader.readline()).startswith(b"HTTP/1.1 200")
            await raw.send(b"nonsense\r\n")
            assert await raw.rest()
    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]


async def test_pipelined_requests_are_answered_in_turn(patient: str) -> None:
    async with connected(patient) as raw:
        await raw.send(GET * 200 + GET.replace(b"host", b"connection: close\r\nhost"))
        assert (await raw.rest()).count(b"HTTP/1.1 200") == 201


async def test_a_reader_that_stops_is_cut_off(address: str) -> None:
    """What it is sent fills the buffers of both ends, and no more."""
    async with connected(address) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionError):
                while True:
                    raw.writer.write(GET * 1_000)
                    await raw.writer.drain()


HUGE = {"type": "ping", "payload": {"x": "x" * 20_000}}


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, b"\xff")], 1007),
        ([frame(TEXT, b'{"a": "\xc3', last=False), frame(CONTINUATION, b"(")], 1007),
        ([frame(TEXT, b"{", last=False), *[frame(CONTINUATION, b"", last=False)] * 10_001], 1009),
        ([text(HUGE)], 1009),
        ([frame(TEXT, b" " * 9_000, last=False), frame(CONTINUATION, b" " * 9_000)], 1009),
        ([frame(0x3, b"")], 1002),
        ([frame(CONTINUATION, b"")], 1002),
        ([frame(0xF, b"")], 1002),
        ([frame(PING, b"x" * 126)], 1002),
        ([frame(0x8, b"\x00")], 1002),
        ([frame(0x8, b"\x03\xe8\xff")], 1007),
        ([bytes([0x81, 0x01]) + b"x"], 1002),
        ([bytes([0xF1, 0x80, 0, 0, 0, 0])], 1002),
        ([frame(BINARY, b"{}")], 4400),
        ([frame(BINARY, b"\xff" * 100)], 4400),
        ([frame(TEXT, b"x")], 4400),
        ([frame(TEXT, b"")], 4400),
        ([frame(TEXT, b"[" * 10_000)], 4400),
        ([frame(TEXT, b"\0")], 4400),
        ([text([])], 4400),
        ([text({"type": "nonsense"})], 4400),
        ([text({"type": "subscribe"})], 4400),
        ([text({"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }"}})], 4401),
        ([text({"type": "connection_init"})], 4403),
        ([text({"type": "connection_init", "payload": {"authorization": "Bearer wrong"}})], 4403),
        ([text({"type": "connection_init", "payload": []})], 4400),
    ],
    ids=lambda value: repr(b"".join(value)[:40]) if isinstance(value, list) else None,
)
async def test_frames_before_the_key(
    patient: str, frames: list[bytes], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with upgraded(patient) as raw:
        await raw.send(b"".join(frames))
        assert await raw.closed_with() == code
    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]


@pytest.mark.parametrize(
    "frames",
    [[text({"type": "ping"})] * 50, [text({"type": "complete", "id": "1"})], []],
    ids=["pings", "complete", "nothing"],
)
async def test_who_does_not_come_to_the_key_is_closed(
    address: str, frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with upgraded(address) as raw:
        await raw.send(b"".join(frames))
        assert await raw.closed_with() == 4408
    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]


async def test_with_a_key_messages_may_be_large(patient: str, admin_key: str) -> None:
    async with upgraded(patient, authorization=f"Bearer {admin_key}") as raw:
        await raw.send(text({"type": "connection_init"}))
        assert b"connection_ack" in await raw.reader.readuntil(b"}")
        await raw.send(text(HUGE))
        assert b"x" * 20_000 in await raw.reader.readuntil(b"}}")
        await raw.send(frame(TEXT, b" " * 8_000_001)[:100])
        assert await raw.closed_with() == 1009


@pytest.mark.parametrize(
    "flood", [frame(PING, b"x" * 100) * 500, text(HUGE | {"payload": {"x": "x" * 5_000}}) * 10]
)
async def test_pings_that_nobody_reads_the_answers_of_fill_nothing(
    address: str, admin_key: str, flood: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0

    class Watched(wire.WebSocket):
        def data_received(self, data: bytes) -> None:
            nonlocal largest
            super().data_received(data)
            largest = max(largest, self.transport.get_write_buffer_size())

    monkeypatch.setattr(wire, "WebSocket", Watched)
    async with upgraded(address, authorization=f"Bearer {admin_key}") as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await raw.send(text({"type": "connection_init"}))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionError):
                while True:
                    raw.writer.write(flood)
                    await raw.writer.drain()
    assert largest < 1_000_000


async def test_a_closed_websocket_goes_although_nobody_reads(address: str) -> None:
    async with upgraded(address) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await raw.send(frame(TEXT, b"x"))

        async def gone() -> bool:
            try:
                raw.writer.write(frame(PING, b""))
                await raw.writer.drain()
            except ConnectionError:
                return True
            return False

        await eventually(gone)

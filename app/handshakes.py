"""WebSocket handshakes that are refused, in JSON like every other refusal."""

import email.utils
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from websockets.datastructures import Headers
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

JSON = "application/json; charset=utf-8"
_SENTENCES = {
    400: "This is no WebSocket handshake: it needs Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key that is "
    "16 bytes in base64, each once.",
    403: "No WebSocket may be opened here.",
    405: "WebSockets are opened by GET.",
    426: "WebSockets need Connection: Upgrade and Upgrade: websocket.",
    500: "Internal error.",
}


def errors(code: str, sentence: str, details: Mapping[str, Any] | None = None) -> bytes:
    """The body of an answer that nothing of GraphQL has a part in."""
    extensions = {"code": code, "details": details} if details else {"code": code}
    return orjson.dumps({"errors": [{"message": sentence, "extensions": extensions}]})


def too_large(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, dict[str, int]] | None:
    """What is larger in a request than the WebSocket library reads, as a sentence and as details."""
    lines = [len(name) + len(value) + 4 for name, value in headers]
    longest = max(len(target) + 15, *lines)
    if longest > MAX_LINE_LENGTH:
        sentence = f"A line of a handshake has more than {MAX_LINE_LENGTH:,} bytes, which is the limit."
        return sentence, {"limit": MAX_LINE_LENGTH, "given": longest}
    if len(lines) > MAX_NUM_HEADERS:
        sentence = f"A handshake has more than {MAX_NUM_HEADERS} headers, which is the limit."
        return sentence, {"limit": MAX_NUM_HEADERS, "given": len(lines)}
    return None


class Handshake(ServerProtocol):
    """The library's side of a connection, which refuses in our words."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """The answer that refuses; `text`, the library's sentence, may cite bytes that are no text."""
        status = HTTPStatus(status)
        code = "FORBIDDEN" if status == 403 else "INTERNAL" if status >= 500 else "INVALID_INPUT"
        body = errors(code, _SENTENCES.get(status, _SENTENCES[400]))
        headers = Headers(
            {
                "Date": email.utils.formatdate(usegmt=True),
                "Connection": "close",
                "Content-Length": str(len(body)),
                "Content-Type": JSON,
            }
        )
        return Response(status.value, status.phrase, headers, body)

"""The API explorer: a page of our own at the API's address, for browsers.

It asks nobody but this server, and its policy makes the browser see to that: no script but the files beside
it, none inline, nothing from or to other origins. The reader's key lives in the page (sessionStorage) and
goes out only in the Authorization header and in connection_init.
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.graphql import media

STATIC = Path(__file__).with_name("static")
PATH = "/graphql/explorer"
HTML = "text/html"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": HTML}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Explorer:
    """The page and its files, read once. They lie under a fingerprint of all, so that browsers keep them."""

    def __init__(self) -> None:
        files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in KINDS}
        fingerprint = hashlib.sha256(b"\0".join(files.values())).hexdigest()[:16]
        self._base = f"{PATH}/{fingerprint}"
        relative = self._base.removeprefix("/")  # to the page: a proxy may put a path before both
        self._page = files.pop("index.html").replace(b"{base}", relative.encode())
        self._files = files

    def wanted(self, http: Request) -> bool:
        """Whether a browser wants to show a page here: a GET that likes HTML best."""
        accept = http.headers.get("accept", "")
        return http.method in ("GET", "HEAD") and media.prefers_html(accept)

    def page(self) -> Response:
        """The page."""
        headers = {**HEADERS, "cache-control": "no-cache", "vary": "accept"}
        return Response(self._page, media_type=HTML, headers=headers)

    def routes(self) -> list[Route]:
        """Where its files are."""
        return [
            Route(f"{self._base}/{name}", _served(name, content)) for name, content in self._files.items()
        ]


def _served(name: str, content: bytes) -> Callable[[Request], Awaitable[Response]]:
    async def file(_: Request) -> Response:
        headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
        return Response(content, media_type=KINDS[Path(name).suffix], headers=headers)

    return file

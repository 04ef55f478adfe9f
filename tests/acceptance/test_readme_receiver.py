"""The README's receiver of webhooks in Python, as it stands there, under as many posts as come at once."""

import asyncio
import os
import re
import sqlite3
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from app.webhooks.service import new_secret
from app.webhooks.signing import headers
from tests.acceptance.instances import free_port

ROOT = Path(__file__).parents[2]
SECRET = new_secret()
POSTS, AT_ONCE = 300, 100


def receiver_of_the_readme() -> str:
    section = (ROOT / "README.md").read_text().split("\n## Webhooks\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Where the receiver listens, in a directory of its own. It ends without a word of complaint."""
    port = free_port()
    complaints = tmp_path / "complaints"
    with complaints.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            receiver_of_the_readme(),
            cwd=tmp_path,
            env={**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)},
            stderr=output,
        )
        try:
            await until_it_listens(process, port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    assert "Traceback" not in complaints.read_text()


async def until_it_listens(process: Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            return writer.close()
    raise AssertionError("the receiver ended")


async def post(session: aiohttp.ClientSession, url: str, number: int, secret: str = SECRET) -> int:
    body = f'{{"type":"message.new","number":{number}}}'
    signed = headers(f"delivery-{number}", body, datetime.now(UTC), [secret])
    async with session.post(url, data=body.encode(), headers=signed) as answer:
        return answer.status


async def test_it_stores_every_post_once_however_many_come_at_once(url: str, tmp_path: Path) -> None:
    """While somebody else reads what there is to do."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
    inbox = sqlite3.connect(tmp_path / "inbox.db", isolation_level=None)
    async with aiohttp.ClientSession(connector=connector) as session:
        inbox.execute("BEGIN")
        assert inbox.execute("SELECT id FROM inbox").fetchall() == []
        twice = [post(session, url, number) for number in (*range(POSTS), *range(0, POSTS, 3))]
        assert set(await asyncio.gather(*twice)) == {204}
        assert await post(session, url, POSTS, new_secret()) == 401
    inbox.execute("COMMIT")
    with closing(inbox):
        stored = {row[0] for row in inbox.execute("SELECT id FROM inbox WHERE done = 0")}
    assert stored == {f"delivery-{number}" for number in range(POSTS)}

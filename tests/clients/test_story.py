"""Generated clients against a running server: create, start, watch, page through the ledger."""

import json
from typing import Any

import pytest

from app.campaigns import queries
from app.database import Database
from app.ledger.verification import audit
from tests.acceptance.instances import Carillon
from tests.clients.conftest import Python, TypeScript

READERS = 23


@pytest.fixture(params=["python", "typescript"])
def client(request: pytest.FixtureRequest) -> Python | TypeScript:
    """A generated client in either language."""
    made: Python | TypeScript = request.getfixturevalue(request.param)
    return made


async def test_a_campaign_from_its_users_to_its_last_ledger_row(
    client: Python | TypeScript, server_on_both: Carillon
) -> None:
    server_on_both.start()

    met = json.loads(client.run("story", server_on_both))

    readers = [f"user-{number:02d}" for number in range(READERS)]
    assert met == {
        "refused": what_mistakes_are_answered(),
        "watched": {
            "first": "DRAFT",
            "last": "COMPLETED",
            "balanced": True,
            "sent": READERS,
            "skipped": 1,
            "progress": 1.0,
        },
        "ledger": [
            *([name, "SENT", f"Hello Reader {int(name[-2:])}"] for name in readers),
            ["zoe", "SKIPPED", None],
        ],
        "the same backward": True,
        "left out": ["zoe USER_DEACTIVATED"],
        "looked at": {
            "template": "Hello {{ receiver.name }}",
            "duration known": True,
            "reasons": [["USER_DEACTIVATED", 1]],
            "explained": [True, "USER_DEACTIVATED"],
            "preview": ["Hello Reader 0"],
            "listed": ["news"],
            "on the pro plan": READERS + 1,
        },
    }
    await the_books_say_the_same(server_on_both)


def what_mistakes_are_answered() -> dict[str, Any]:
    """The errors as both clients have to see them: code, path, details."""
    return {
        "users": [["INVALID_INPUT", ["users", "1", "userId"], None]],
        "template": [
            ["INVALID_INPUT", ["messageTemplate", "text"], {"line": 1, "column": 4}],
            ["INVALID_INPUT", ["senderId"], None],
        ],
        "start": [["NOT_FOUND", ["campaignId"], None]],
        "page": "LIMIT_EXCEEDED",
    }


async def the_books_say_the_same(server: Carillon) -> None:
    """Counted row by row in the database."""
    database = Database(server.database_url)
    async with database.read() as session:
        campaign = await queries.by_id(session, "news")
        assert campaign is not None
        books = await audit(session, campaign.campaign_no)
    await database.close()
    assert (books.problems, books.sent, books.skipped) == ((), READERS, 1)

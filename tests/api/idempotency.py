"""What tests of idempotency keys share: requests under keys, and processes that come to their end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

import orjson
from sqlalchemy import event, select, update
from sqlalchemy.engine import Connection, Engine
from structlog.testing import capture_logs

from app.database import Database, now
from app.idempotency.models import IdempotencyKey
from tests.api.campaigns import ERRORS
from tests.api.conftest import Client

TEMPLATE = {"text": "Hello {{ receiver.name }}"}
CREATE = f"""mutation Create($input: CreateCampaignInput!) {{
  createCampaign(input: $input) {{ campaign {{ id campaignId name status createdAt }} {ERRORS} }} }}"""
SEVERAL = f"""mutation Several(
  $campaign: CreateCampaignInput!, $key: CreateApiKeyInput!, $list: CreateSegmentInput!,
  $more: AddSegmentTargetsInput!
) {{
  first: createCampaign(input: $campaign) {{ campaign {{ campaignId name sender {{ userId }} }} {ERRORS} }}
  taken: createSegment(input: $list) {{ segment {{ segmentId }} {ERRORS} }}
  second: createApiKey(input: $key) {{ secret apiKey {{ name role }} {ERRORS} }}
  third: addSegmentTargets(input: $more) {{ segment {{ size }} {ERRORS} }}
}}"""
LIST = f'mutation {{ createSegment(input: {{segmentId: "list", type: USER}}) {{ {ERRORS} }} }}'
RENAME = f"mutation ($input: UpdateCampaignInput!) {{ updateCampaign(input: $input) {{ {ERRORS} }} }}"
DELETE = (
    f"mutation ($input: DeleteCampaignInput!) {{ deleteCampaign(input: $input) {{ deletedIds {ERRORS} }} }}"
)
SENDER = {"userId": "sender"}
NEW_KEY = 'mutation { createApiKey(input: {name: "n", role: VIEWER}) { secret } }'


@dataclass
class Reply:
    """A whole response."""

    status: int
    text: str
    replayed: bool

    @property
    def body(self) -> Any:
        return orjson.loads(self.text)

    @property
    def error(self) -> Any:
        """The one top-level error."""
        (error,) = self.body["errors"]
        return error


class Sender:
    """Sends requests under idempotency keys."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(
        self, key: str | None, document: str, accept: str = "application/json", **more: Any
    ) -> Reply:
        """A POST; `more` is the rest of its body."""
        headers = {**self.client.headers, "accept": accept}
        if key is not None:
            headers["idempotency-key"] = key
        body = {"query": document, **more}
        async with self.client.http.post(self.client.url, json=body, headers=headers) as response:
            replayed = response.headers.get("idempotent-replayed") == "true"
            return Reply(response.status, await response.text(), replayed)

    async def create(self, key: str | None, name: str = "news", **given: Any) -> Reply:
        """Creates a campaign whose id the server chooses: twice makes two."""
        fields = {"senderId": "sender", "messageTemplate": TEMPLATE, "name": name, **given}
        return await self.send(key, CREATE, variables={"input": fields})

    async def several(self, key: str, name: str) -> Reply:
        """Three changes and a refusal."""
        variables = {
            "campaign": {"senderId": "sender", "messageTemplate": TEMPLATE, "name": name},
            "key": {"name": name, "role": "VIEWER"},
            "list": {"segmentId": "list", "type": "USER"},
            "more": {"segmentId": "list", "targetIds": ["x", "y"]},
        }
        return await self.send(key, SEVERAL, variables=variables)

    async def names(self) -> list[str]:
        """The names of all campaigns."""
        data = await self.client.data("{ campaigns(first: 100) { nodes { name } } }")
        return sorted(node["name"] for node in data["campaigns"]["nodes"])


class End(Enum):
    """What becomes of a process."""

    DEATH = "it dies: nothing reaches the database any more"
    FAILURE = "one statement fails, and it goes on"
    LOSS = "one statement fails, and it goes on; a commit succeeds and is taken for failed"


@dataclass
class Life:
    """What a process asked of the database, and whether it came to its end."""

    at: int | str
    end: End
    reached: list[str] = field(default_factory=list)
    ended: bool = False

    def reach(self, statement: str) -> None:
        here = len(self.reached) == self.at if isinstance(self.at, int) else statement.startswith(self.at)
        if self.end is End.DEATH:
            here = here or self.ended
        elif self.ended:
            here = False
        self.ended = self.ended or here
        if here:
            raise RuntimeError("killed")
        self.reached.append(statement)

    def execute(self, *given: Any) -> None:
        self.reach(given[2])

    def commit(self, connection: Connection) -> None:
        try:
            self.reach("COMMIT")
        except RuntimeError:
            if self.end is End.LOSS:
                connection.connection.commit()
            connection.connection.rollback()  # as the database does once its client is gone
            raise


@contextmanager
def ending(at: int | str, end: End = End.DEATH) -> Iterator[Life]:
    """The process ends before its statement number `at` (a commit is one), or before the first that begins
    so."""
    life = Life(at, end)
    event.listen(Engine, "before_cursor_execute", life.execute)
    event.listen(Engine, "commit", life.commit)
    try:
        with capture_logs():  # every fault with a coloured traceback takes a second
            yield life
    finally:
        event.remove(Engine, "before_cursor_execute", life.execute)
        event.remove(Engine, "commit", life.commit)


async def let_leases_run_out(database: Database) -> None:
    async with database.transaction() as session:
        past = await now(session) - timedelta(seconds=1)
        await session.execute(update(IdempotencyKey).values(leased_until=past))


async def rows(database: Database) -> list[IdempotencyKey]:
    async with database.read() as session:
        return list((await session.execute(select(IdempotencyKey))).scalars())

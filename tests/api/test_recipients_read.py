"""Campaign.recipients by whether they have read."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.database import Database
from app.ledger.models import Recipient
from tests.api.campaigns import Campaigns, people, send_everything
from tests.api.conftest import Client

READ_AT = datetime(2026, 11, 3, 10, 0, tzinfo=UTC)
TEMPLATE = {"createChannels": True, "channelTemplate": {"type": "messaging"}}


@pytest.fixture
async def campaigns(client: Client, database: Database, valkey_url: str) -> Campaigns:
    """A campaign that is over: u00 and u02 have read it, u01 and u03 not, and nobody is nobody."""
    await people(database, 4)
    campaigns = Campaigns(client)
    await campaigns.draft("news", userIds=["u00", "u01", "u02", "u03", "nobody"], **TEMPLATE)
    await campaigns.done("start", campaignId="news")
    await send_everything(database, valkey_url)
    async with database.transaction() as session:
        readers = col(Recipient.target_id).in_(["u00", "u02"])
        await session.execute(update(Recipient).where(readers).values(read_at=READ_AT))
    return campaigns


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"read": True}, ["u00", "u02"]),
    ({"read": False}, ["nobody", "u01", "u03"]),
    ({"read": False, "status": {"eq": "SENT"}}, ["u01", "u03"]),
    ({"read": True, "status": {"eq": "SENT"}}, ["u00", "u02"]),
    ({"read": True, "status": {"in": ["SKIPPED", "PENDING"]}}, []),
    ({"read": False, "reason": {"eq": "UNKNOWN_USER"}}, ["nobody"]),
    ({"read": True, "reason": {"eq": "UNKNOWN_USER"}}, []),
    ({"read": True, "targetId": {"gt": "u00"}}, ["u02"]),
    ({"read": False, "targetId": {"in": ["u00", "u01"]}}, ["u01"]),
]


@pytest.mark.parametrize(("chosen", "expected"), CASES)
async def test_who_has_read(campaigns: Campaigns, chosen: dict[str, Any], expected: list[str]) -> None:
    page = await campaigns.recipients("news", filter=chosen)
    assert [node["targetId"] for node in page["nodes"]] == expected
    assert page["totalCount"] == len(expected)


async def test_page_by_page(campaigns: Campaigns) -> None:
    first = await campaigns.recipients("news", "first: 2", filter={"read": False})
    after = first["pageInfo"]["endCursor"]
    second = await campaigns.recipients("news", "first: 2", filter={"read": False}, after=after)
    assert [node["targetId"] for node in [*first["nodes"], *second["nodes"]]] == ["nobody", "u01", "u03"]


async def test_null_is_neither(campaigns: Campaigns) -> None:
    document = """{ campaign(campaignId: "news") { recipients(filter: {read: null}) { totalCount } } }"""
    error = await campaigns.client.error(document)
    assert error["extensions"]["code"] == "INVALID_INPUT"

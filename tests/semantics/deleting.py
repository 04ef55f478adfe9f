"""What tests of deleting users and channels share."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from app.campaigns.models import Campaign
from app.channels.models import Member
from app.database import Database
from app.ledger import forgetting
from app.ledger.models import Recipient
from app.messages.queries import unread_counts
from app.users import queries as users
from app.users.models import User
from app.users.service import upsert_users
from tests.integration import campaigning
from tests.integration.campaigning import (
    books,
    work,
)

DISTINCT = {"type": "messaging"}
AT_ONCE = timedelta(seconds=-60)  # what was deleted until in a minute counts as deleted long ago


async def sent(database: Database, campaign_id: str = "news", **given: Any) -> Campaign:
    """A completed campaign."""
    await campaigning.create(database, campaign_id, **given)
    await campaigning.start(database, campaign_id)
    campaign = await work(database, campaign_id)
    await books(database, campaign)
    return campaign


async def delete_users(database: Database, *user_ids: str, erase_messages: bool = False) -> list[str]:
    return await forgetting.delete_users(database, user_ids, erase_messages=erase_messages)


async def come_back(database: Database, *user_ids: str) -> None:
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": user_id, "name": "Again"} for user_id in user_ids])


async def tombstone(database: Database, user_id: str) -> User:
    async with database.read() as session:
        found = await session.get(User, user_id)
    assert found is not None
    return found


async def memberships(database: Database, user_id: str) -> list[str]:
    async with database.read() as session:
        rows = await session.execute(
            select(col(Member.cid)).where(col(Member.user_id) == user_id).order_by(col(Member.cid))
        )
        return list(rows.scalars())


async def ledger(database: Database, campaign: Campaign, target_id: str) -> Recipient:
    async with database.read() as session:
        found = await session.get(Recipient, (campaign.campaign_no, target_id))
    assert found is not None
    return found


async def erasures(database: Database) -> list[str]:
    async with database.read() as session:
        return await users.erasing(session, "", 1_000)


async def unread(database: Database, cid: str, *user_ids: str) -> list[int]:
    async with database.read() as session:
        counts = await unread_counts(session, [(cid, user_id) for user_id in user_ids])
    return [counts[cid, user_id] for user_id in user_ids]

"""Every statement about API keys."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.keys.models import ApiKey

USE_NOTED_EVERY = timedelta(minutes=1)


async def by_hash(session: AsyncSession, secret_hash: str) -> ApiKey | None:
    """The key with this secret, unless it is revoked."""
    found = await session.execute(
        select(ApiKey).where(col(ApiKey.secret_hash) == secret_hash, col(ApiKey.revoked_at).is_(None))
    )
    return found.scalar_one_or_none()


async def by_hash_even_revoked(session: AsyncSession, secret_hash: str) -> ApiKey | None:
    """The key with this secret, for a change."""
    found = await session.execute(
        select(ApiKey).where(col(ApiKey.secret_hash) == secret_hash).with_for_update()
    )
    return found.scalar_one_or_none()


async def listed(session: AsyncSession) -> Sequence[ApiKey]:
    """Every key, revoked ones too, oldest first."""
    found = await session.execute(select(ApiKey).order_by(col(ApiKey.created_at), col(ApiKey.key_id)))
    return found.scalars().all()


async def by_ids(session: AsyncSession, key_ids: Collection[str]) -> Mapping[str, ApiKey]:
    """The keys with these ids."""
    found = await session.execute(select(ApiKey).where(col(ApiKey.key_id).in_(key_ids)))
    return {key.key_id: key for key in found.scalars()}


async def valid_ids(session: AsyncSession, key_ids: Collection[str]) -> set[str]:
    """Those of `key_ids` that are not revoked."""
    found = await session.execute(
        select(col(ApiKey.key_id)).where(col(ApiKey.key_id).in_(key_ids), col(ApiKey.revoked_at).is_(None))
    )
    return set(found.scalars())


async def any_exists(session: AsyncSession) -> bool:
    """Whether there ever was a key."""
    return (await session.execute(select(col(ApiKey.key_id)).limit(1))).first() is not None


async def locked(session: AsyncSession, key_id: str) -> ApiKey | None:
    """The key with this id, for a change."""
    found = await session.execute(select(ApiKey).where(col(ApiKey.key_id) == key_id).with_for_update())
    return found.scalar_one_or_none()


async def note_use(session: AsyncSession, key_ids: Collection[str], at: datetime) -> None:
    """Writes when the keys were last used, unless that was noted within the last minute."""
    await session.execute(
        update(ApiKey)
        .where(
            col(ApiKey.key_id).in_(key_ids),
            or_(col(ApiKey.last_used_at).is_(None), col(ApiKey.last_used_at) < at - USE_NOTED_EVERY),
        )
        .values(last_used_at=at)
        .execution_options(synchronize_session=False)
    )

"""Making and revoking API keys. A secret is shown once, when it is made; only its hash is kept."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.database import dialect_of, now
from app.errors import AppError, NotFound
from app.ids import new_uuid
from app.keys import queries
from app.keys.models import ApiKey
from app.keys.roles import Role
from app.keys.secrets import hash_of, new_secret
from app.validation import text

MAX_NAME = 128
FIRST = "first"  # the id of the key that the first start makes
CONFIGURED = "configured"  # the id of the key that CARILLON_ADMIN_KEY names


async def create(session: AsyncSession, name: str, role: Role) -> tuple[ApiKey, str]:
    """A new key and its secret. Raises InvalidInput for an empty name, LimitExceeded for a long one."""
    try:
        checked = text(name.strip(), least=1, most=MAX_NAME)
    except AppError as error:
        raise error.under("name") from None
    secret = new_secret()
    key = ApiKey(
        key_id=new_uuid(),
        name=checked,
        role=role.value,
        secret_hash=hash_of(secret),
        created_at=await now(session),
    )
    session.add(key)
    await session.flush()
    return key, secret


async def revoke(session: AsyncSession, key_id: str) -> ApiKey:
    """The key, which no longer opens anything (within ten seconds, for what is connected). Revoking twice
    changes nothing. Raises NotFound."""
    key = await queries.locked(session, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id!r}.", path=("key_id",))
    if key.revoked_at is None:
        key.revoked_at = await now(session)
        await session.flush()
    return key


async def ensure_admin_key(session: AsyncSession, given: str | None) -> str | None:
    """Makes sure that there is a way in.

    With `given`, that secret works as ADMIN and the one given before it no longer does. Without, the first
    start, when there never was a key, makes one and returns its secret, to be shown once.
    """
    if given is not None:
        await _configure(session, given)
        return None
    if await queries.any_exists(session):
        return None
    secret = new_secret()
    return secret if await _add(session, FIRST, "first admin key", secret) else None


async def _configure(session: AsyncSession, given: str) -> None:
    known = await queries.by_hash_even_revoked(session, hash_of(given))
    if known is not None:
        known.role, known.revoked_at = Role.ADMIN.value, None
        earlier = await queries.locked(session, CONFIGURED)
        if earlier is not None and earlier is not known and earlier.revoked_at is None:
            earlier.revoked_at = await now(session)
    elif not await _add(session, CONFIGURED, "CARILLON_ADMIN_KEY", given):
        earlier = await queries.locked(session, CONFIGURED)
        assert earlier is not None
        earlier.secret_hash, earlier.role, earlier.revoked_at = hash_of(given), Role.ADMIN.value, None
    await session.flush()


async def _add(session: AsyncSession, key_id: str, name: str, secret: str) -> bool:
    """Whether this process made the admin key with that id: of two that start at the same time one does."""
    insert = sqlite.insert if dialect_of(session) == "sqlite" else postgresql.insert
    added = await session.execute(
        insert(ApiKey)
        .values(
            key_id=key_id,
            name=name,
            role=Role.ADMIN.value,
            secret_hash=hash_of(secret),
            created_at=await now(session),
        )
        .on_conflict_do_nothing()
        .returning(col(ApiKey.key_id))
    )
    return added.first() is not None

"""Keys in GraphQL: who asks, and the keys there are."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Self

import strawberry

from app.graphql.context import Info
from app.graphql.errors import MutationPayload
from app.graphql.fields import mutation, query
from app.graphql.loaders import Loader
from app.graphql.nodes import Node
from app.keys import models, queries, roles, service

MAX_KEYS_COUNTED = 100

api_keys = Loader(queries.by_ids)


@strawberry.enum(name="Role", description="What a key may do.")
class Role(Enum):
    """The roles of `roles.Role`, described for clients."""

    ADMIN = strawberry.enum_value("ADMIN", description="Everything.")
    VIEWER = strawberry.enum_value("VIEWER", description="Every query and subscription, no mutation.")


@strawberry.type(description="Who a key is.")
class Viewer:
    """The holder of the key that asks."""

    name: str = strawberry.field(description="The key's name.")
    role: Role = strawberry.field(description="What the key may do.")


@strawberry.type(description="A key to this API. Its secret is shown once, on creation.")
class ApiKey(Node):
    """A key without its secret."""

    key_id: str = strawberry.field(description="The key's own id, which revokeApiKey takes.")
    name: str = strawberry.field(description="What it is for.")
    role: Role = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    last_used_at: datetime | None = strawberry.field(description="When it was last used, to the minute.")
    revoked_at: datetime | None = strawberry.field(description="Since when it opens nothing.")

    @classmethod
    def of(cls, row: models.ApiKey) -> Self:
        """The key of a row."""
        return cls(
            id=cls.global_id(row.key_id),
            key_id=row.key_id,
            name=row.name,
            role=Role[row.role],
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence[Self | None]:
        """The keys with these ids."""
        rows = await api_keys.load_many(info, keys)
        return [None if row is None else cls.of(row) for row in rows]


@strawberry.input(description="A key to make.")
class CreateApiKeyInput:
    """A key to make."""

    name: str = strawberry.field(description="What it is for: 1 to 128 characters.")
    role: Role = strawberry.field(description="What it may do.")


@strawberry.input(description="A key to revoke.")
class RevokeApiKeyInput:
    """A key to revoke."""

    key_id: str = strawberry.field(description="The key's id.")


@strawberry.type(description="The key, or why nothing was done.")
class ApiKeyPayload(MutationPayload):
    """What the mutations of keys answer."""

    api_key: ApiKey | None = strawberry.field(default=None, description="The key; null where it failed.")
    secret: str | None = strawberry.field(
        default=None, description="What clients send: shown once, on creation."
    )


@strawberry.type
class Query:
    """Queries about keys."""

    @query(description="Who this key is.")
    def viewer(self, info: Info) -> Viewer:
        """The holder of the key that asks."""
        viewer = info.context.viewer
        return Viewer(name=viewer.name, role=Role[viewer.role.name])

    @query(description="Every key, revoked ones too, oldest first.", max_size=MAX_KEYS_COUNTED)
    async def api_keys(self, info: Info) -> list[ApiKey]:
        """Every key."""
        async with info.context.database.read() as session:
            rows = await queries.listed(session)
        return [ApiKey.of(row) for row in rows]


@strawberry.type
class Mutation:
    """Changes of keys."""

    @mutation(description="Makes a key. Its secret is in the payload and never shown again.")
    async def create_api_key(self, info: Info, input: CreateApiKeyInput) -> ApiKeyPayload | None:
        """A new key and its secret."""
        async with info.context.database.transaction() as session:
            row, secret = await service.create(session, input.name, roles.Role[input.role.name])
        return ApiKeyPayload(api_key=ApiKey.of(row), secret=secret)

    @mutation(description="Revokes a key for good: it opens nothing within ten seconds.")
    async def revoke_api_key(self, info: Info, input: RevokeApiKeyInput) -> ApiKeyPayload | None:
        """The revoked key."""
        async with info.context.database.transaction() as session:
            row = await service.revoke(session, input.key_id)
        return ApiKeyPayload(api_key=ApiKey.of(row))

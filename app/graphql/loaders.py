"""Loaders: what many siblings ask for one by one is read with one statement."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.dataloader import DataLoader

from app.graphql.context import Context, Info

K = TypeVar("K")
V = TypeVar("V")

BATCH = 1_000  # keys of one statement; SQLite takes at most 32,766 bound values


class Loader(Generic[K, V]):
    """Reads values by key, a batch with one statement, each key once an operation.

    Declared once at a module's top: `users = Loader(queries.users_by_id)`, where the query is
    `async def users_by_id(session, ids) -> Mapping[id, User]`; what it leaves out loads as None.
    """

    def __init__(
        self,
        read: Callable[[AsyncSession, Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        batch: int = BATCH,
    ) -> None:
        self._read = read
        self._batch = batch

    async def load(self, info: Info, key: K) -> V | None:
        """The value of `key`, None when there is none."""
        return await self._within(info.context).load(key)

    async def load_many(self, info: Info, keys: Sequence[K]) -> list[V | None]:
        """The values of `keys`, in their order."""
        return await self._within(info.context).load_many(keys)

    def prime(self, info: Info, found: Mapping[K, V]) -> None:
        """Remembers for this operation what was read anyway."""
        self._within(info.context).prime_many(found)

    def _within(self, context: Context) -> DataLoader[K, V | None]:
        loader = context.loaders.get(self)
        if loader is None:
            loader = context.loaders[self] = DataLoader(
                lambda keys: self._load(context, keys), max_batch_size=self._batch
            )
        return loader

    async def _load(self, context: Context, keys: Sequence[K]) -> list[V | None]:
        async with context.database.read() as session:
            found = await self._read(session, keys)
        return [found.get(key) for key in keys]

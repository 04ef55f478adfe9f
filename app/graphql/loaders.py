"""Loaders: what many siblings ask for one by one is read with one statement."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
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
        return _loader(context, self, self._read, self._batch)


async def load_together(
    info: Info,
    name: Hashable,
    read: Callable[[AsyncSession, Sequence[K]], Awaitable[Mapping[K, V]]],
    key: K,
) -> V | None:
    """The value of `key`, read together with what others of this operation ask for under the same `name`; the
    `read` of the first of them reads for all."""
    return await _loader(info.context, name, read, BATCH).load(key)


def _loader(
    context: Context,
    name: Hashable,
    read: Callable[[AsyncSession, Sequence[K]], Awaitable[Mapping[K, V]]],
    batch: int,
) -> DataLoader[K, V | None]:
    async def load(keys: Sequence[K]) -> list[V | None]:
        async with context.database.read() as session:
            found = await read(session, keys)
        return [found.get(key) for key in keys]

    loader = context.loaders.get(name)
    if loader is None:
        loader = context.loaders[name] = DataLoader(load, max_batch_size=batch)
    return loader

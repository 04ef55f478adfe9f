"""Loaders: what many siblings ask for one by one is read with one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.graphql.context import Context, Info

K = TypeVar("K")
V = TypeVar("V")
Read = Callable[[AsyncSession, Sequence[K]], Awaitable[Mapping[K, V]]]

BATCH = 1_000  # keys of one statement; SQLite takes at most 32,766 bound values
MANY = 50_000  # of one that takes all of its keys as one parameter


class Loader(Generic[K, V]):
    """Reads values by key, a batch with one statement, each key once an operation.

    Declared once at a module's top: `users = Loader(queries.users_by_id)`, where the query is
    `async def users_by_id(session, ids) -> Mapping[id, User]`; what it leaves out loads as None.
    """

    def __init__(self, read: Read[K, V], *, batch: int = BATCH) -> None:
        self._read = read
        self._batch = batch

    async def load(self, info: Info, key: K) -> V | None:
        """The value of `key`, None when there is none."""
        return (await self.load_many(info, (key,)))[0]

    async def load_many(self, info: Info, keys: Sequence[K]) -> list[V | None]:
        """The values of `keys`, in their order."""
        return await self._within(info.context).load_many(keys)

    def prime(self, info: Info, found: Mapping[K, V]) -> None:
        """Remembers for this operation what was read anyway."""
        self._within(info.context).prime(found)

    def _within(self, context: Context) -> "Reader[K, V]":
        return _reader(context, self, self._read, self._batch)


async def load_together(info: Info, name: Hashable, read: Read[K, V], key: K) -> V | None:
    """The value of `key`, read together with what others of this operation ask for under the same `name`; the
    `read` of the first of them reads for all."""
    return (await _reader(info.context, name, read, BATCH).load_many((key,)))[0]


async def load_many_together(
    info: Info, name: Hashable, read: Read[K, V], keys: Sequence[K]
) -> list[V | None]:
    """The values of many keys at once, as `load_together` has them. `read` takes them as one parameter."""
    return await _reader(info.context, name, read, MANY).load_many(keys)


def _reader(context: Context, name: Hashable, read: Read[K, V], batch: int) -> "Reader[K, V]":
    reader = context.loaders.get(name)
    if reader is None:
        reader = context.loaders[name] = Reader(context, read, batch)
    return reader


class Reader(Generic[K, V]):
    """What one operation has read of one kind. What is asked for in the same moment is read together: one
    future for all of it, where one for each key cost more than reading did."""

    def __init__(self, context: Context, read: Read[K, V], batch: int) -> None:
        self._context = context
        self._read = read
        self._batch = batch
        self._known: dict[K, V | None] = {}
        self._coming: dict[K, asyncio.Future[None]] = {}
        self._wanted: list[K] = []

    async def load_many(self, keys: Sequence[K]) -> list[V | None]:
        """The values of `keys`, in their order, None where there is none. Raises what reading one raised."""
        known, coming = self._known, self._coming
        missing = [key for key in keys if key not in known] if known else keys
        self._want([key for key in missing if key not in coming] if coming else missing)
        for future in set(map(coming.__getitem__, missing)):
            await asyncio.shield(future)  # others wait for it as well
        return list(map(known.__getitem__, keys))

    def prime(self, found: Mapping[K, V]) -> None:
        """Remembers these, unless they are known."""
        self._known = {**found, **self._known}

    def _want(self, keys: Sequence[K]) -> None:
        """Reads `keys` when everybody who is about to ask has asked."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return
        if not self._wanted:
            loop = asyncio.get_running_loop()
            self._arrival = loop.create_future()
            loop.call_soon(self._begin)
        self._wanted += wanted
        self._coming.update(dict.fromkeys(wanted, self._arrival))

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._arrive())

    async def _arrive(self) -> None:
        wanted, arrival, self._wanted = self._wanted, self._arrival, []
        found: dict[K, V] = {}
        try:
            async with self._context.database.read() as session:
                for start in range(0, len(wanted), self._batch):
                    found.update(await self._read(session, wanted[start : start + self._batch]))
        except Exception as error:
            arrival.set_exception(error)
        else:
            self._known.update(dict.fromkeys(wanted) | found)
            arrival.set_result(None)
        finally:
            arrival.cancel()  # nothing unless this task was
            for key in wanted:
                del self._coming[key]

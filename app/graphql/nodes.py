"""Nodes: everything that has a global id, Relay's base64 of `TypeName:key`."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import InvalidInput
from app.graphql.context import Info
from app.graphql.loaders import load_many_together
from app.graphql.shapes import Shape, encode_ids

MAX_NUMBER = 2**63 - 1


@strawberry.interface(description="Anything that has a global id.")
class Node:
    """A type with a global id. Give instances `id=Type.global_id(key)` and implement `by_keys`."""

    id: strawberry.ID = strawberry.field(description="The global id; opaque, unique over all types.")

    @classmethod
    def global_id(cls, key: str | int) -> strawberry.ID:
        """The global id of this type's node with `key`."""
        return encode_id(cls.__name__, key)

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence[Self | None]:
        """The nodes with these keys, in their order, None where there is none. Goes through a loader."""
        raise NotImplementedError

    @classmethod
    def columns(cls) -> "Columns | None":
        """What can be read of many without making their objects, if anything can."""
        return None


@dataclass(frozen=True, eq=False)
class Columns:
    """Where nodes stand by the column: where no other attributes are needed than those that `shape` knows,
    just their columns are read for a page of references. The key is one of these columns.

    `read(session, keys, columns)` gives the values of these columns by key.
    """

    read: Callable[[AsyncSession, Sequence[Any], Sequence[str]], Awaitable[Mapping[Any, Sequence[Any]]]]
    shape: Shape

    def chosen(self, attributes: Iterable[str]) -> tuple[str, ...] | None:
        """The columns to read for these attributes; None where one of them is not of columns."""
        needed = self.shape.columns(["id", *attributes])
        return None if needed is None else tuple(sorted(needed))

    async def load_many(
        self, info: Info, keys: Sequence[Any], columns: tuple[str, ...]
    ) -> Sequence[Sequence[Any] | None]:
        """The values of `columns` for each key, None where there is no such row."""

        async def read(session: AsyncSession, wanted: Sequence[Any]) -> Mapping[Any, Sequence[Any]]:
            return await self.read(session, wanted, columns)

        return await load_many_together(info, (self, columns), read, keys)


def encode_id(type_name: str, key: str | int) -> strawberry.ID:
    """The global id of `key` within `type_name`."""
    return strawberry.ID(encode_ids(f"{type_name}:", [key])[0])


def decode_id(given: str) -> tuple[str, str]:
    """Type name and key of a global id. Raises InvalidInput for anything else."""
    try:
        type_name, colon, key = base64.b64decode(given.encode(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        raise malformed(given) from None
    if not colon or not type_name or not key or "\0" in key:
        raise malformed(given)
    return type_name, key


def number_key(key: str) -> int:
    """The key of a node whose table has number keys. Raises InvalidInput where it is none."""
    if not key.isascii() or not key.isdigit() or len(key) > 19 or int(key) > MAX_NUMBER:
        raise InvalidInput("This is not an id of this API: its key should be a number.")
    return int(key)


def malformed(given: str) -> InvalidInput:
    """The error for an id that this API never gave out."""
    return InvalidInput(f"{given[:100]!r} is not an id of this API. Use the `id` that a query returned.")

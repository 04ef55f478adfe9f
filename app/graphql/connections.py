"""Connections: every list, by keyset, with first/after/last/before, nodes, edges, pageInfo and totalCount."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar, cast

import strawberry
from graphql.pyutils import Path
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.annotation import StrawberryAnnotation
from strawberry.extensions import FieldExtension
from strawberry.relay import PageInfo
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.field import StrawberryField

from app import keyset
from app.database import microseconds
from app.errors import InvalidInput, LimitExceeded
from app.graphql.context import Info
from app.graphql.cursors import Cursors
from app.graphql.fields import MAX_SIZE, Decorator, field
from app.graphql.loaders import load_together
from app.graphql.nodes import Node
from app.graphql.permissions import IsViewer
from app.graphql.shapes import Shape, Shaped, Unmade
from app.keyset import Bounds, By, Key, Plain
from app.rows import Values

N = TypeVar("N")
Row = TypeVar("Row")
P = TypeVar("P", bound=Hashable)

DEFAULT_SIZE = 30
Fetch: TypeAlias = Callable[[Bounds], Awaitable[Sequence[tuple[Row, Key]]]]


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """What a connection's resolver returns: where its pages come from.

    `fetch(bounds)` gives rows with their keys in the direction walked (backward: the last first), `kinds`
    are the types of a key's parts, `node` makes the GraphQL object of a row, `count` is awaited only when
    totalCount is asked for. With a `shape`, objects of a `Plain` page are made only where they are needed.
    """

    fetch: Fetch[Row]
    kinds: tuple[type, ...]
    node: Callable[[Row], Any]
    count: Callable[[], Awaitable[int]]
    shape: Shape | None = None


def select_listing(
    info: Info,
    statement: Select[Any],
    order: Sequence[By],
    node: Callable[[Any], Any],
    *,
    count: Select[Any] | None = None,
    shape: Shape | None = None,
) -> Listing[Any]:
    """A listing of what `statement` selects, by `order`, which ends in a unique column. `count` is a cheaper
    statement for the number of all, where there is one. With a `shape`, rows are plain."""
    database = info.context.database
    counting = count if count is not None else select(func.count()).select_from(statement.subquery())

    async def fetch(bounds: Bounds) -> Sequence[tuple[Any, Key]]:
        async with database.read() as session:
            return await keyset.page(session, statement, order, bounds, plain=shape is not None)

    async def total() -> int:
        async with database.read() as session:
            return int((await session.execute(counting)).scalar_one())

    return Listing(fetch, keyset.kinds(order), node, total, shape)


@dataclass(frozen=True)
class Family(Generic[P, Row]):
    """The same list of many parents, as siblings in a document have it: their pages are read together, and so
    are their counts. `pages` and `counts` take the keys of the parents; `kinds` is that of `Listing`.
    """

    pages: Callable[[AsyncSession, Sequence[P], Bounds], Awaitable[Mapping[P, Sequence[tuple[Row, Key]]]]]
    counts: Callable[[AsyncSession, Sequence[P]], Awaitable[Mapping[P, int]]]
    kinds: tuple[type, ...]


def select_family(
    of: Callable[[Any], Select[Any]], order: Sequence[By], *, plain: bool = False
) -> Family[Any, Any]:
    """The family of what `of(parent)` selects. `of` takes a value or a column of values; `order` ends in a
    column that is unique within a parent's list. The rows of a single parent may be `plain`."""

    async def pages(session: AsyncSession, parents: Sequence[Any], bounds: Bounds) -> Mapping[Any, Any]:
        return await keyset.pages(session, of, parents, order, bounds, plain=plain)

    async def counts(session: AsyncSession, parents: Sequence[Any]) -> Mapping[Any, int]:
        return await keyset.counts(session, of, parents)

    return Family(pages, counts, keyset.kinds(order))


@dataclass(frozen=True)
class Own:
    """A parent's key and the statement of its own that lists its rows, where a parent's key is not all that
    tells the lists of siblings apart: their targets may be found by filters. All of them select the same
    columns, by orders of the same kinds and directions, each of which ends in a unique column."""

    parent: Hashable
    statement: Select[Any] = dataclass_field(compare=False)
    order: Sequence[By] = dataclass_field(compare=False)

    def family(self) -> Family["Own", Any]:
        """Reads all of them with one statement."""
        return Family(_own_pages, _own_counts, keyset.kinds(self.order))


async def _own_pages(
    session: AsyncSession, owners: Sequence[Own], bounds: Bounds
) -> Mapping[Own, Sequence[tuple[Any, Key]]]:
    return await keyset.pages_of_each(session, {own: (own.statement, own.order) for own in owners}, bounds)


async def _own_counts(session: AsyncSession, owners: Sequence[Own]) -> Mapping[Own, int]:
    return await keyset.counts_of_each(session, {own: own.statement for own in owners})


def nested_listing(
    info: Info,
    family: Family[P, Row],
    parent: P,
    node: Callable[[Row], Any],
    *,
    shape: Shape | None = None,
) -> Listing[Row]:
    """The listing of one parent. What its siblings list is read with it, so that a page of parents costs one
    statement, whatever their number; the family of the first of them reads for all."""
    place = _place(info)

    async def fetch(bounds: Bounds) -> Sequence[tuple[Row, Key]]:
        async def read(session: AsyncSession, parents: Sequence[P]) -> Mapping[P, Sequence[tuple[Row, Key]]]:
            return await family.pages(session, parents, bounds)

        return await load_together(info, (place, bounds), read, parent) or ()

    async def count() -> int:
        return await load_together(info, (place, "count"), family.counts, parent) or 0

    return Listing(fetch, family.kinds, node, count, shape)


def _place(info: Info) -> Hashable:
    """Where in the answer a field stands, whichever item of the lists above it: it is the same field, with
    the same arguments, for all of these."""
    path: Path | None = info.path
    parts: list[tuple[str | None, str]] = []
    while path is not None:
        if isinstance(path.key, str):
            parts.append((path.typename, path.key))
        path = path.prev
    return tuple(parts)


@strawberry.type(description="One item of a page and its place in the list.")
class Edge(Generic[N]):
    """An item and its cursor: an `Entry`."""

    cursor: str = strawberry.field(description="Continue from here with after or before.")
    node: N = strawberry.field(description="The item.")


@dataclass(frozen=True, slots=True)
class Entry:
    """What an edge is made of."""

    node: Any
    cursor: str


class Entries(Unmade):
    """The entries of a page: nodes, the columns of their keys, and what makes cursors if one is asked for."""

    type_name = "Entry"

    def __init__(self, nodes: Sequence[Any], keys: Sequence[Values], cursors: Cursors) -> None:
        self.nodes = nodes
        self._keys = keys
        self._cursors = cursors

    def column(self, attribute: str) -> Sequence[Any] | None:
        """The nodes, or their cursors."""
        return self.nodes if attribute == "node" else self._cursors.of_all(self._keys)

    @cached_property
    def made(self) -> list[Entry]:
        """All entries."""
        return list(map(Entry, self.nodes, self._cursors.of_all(self._keys)))

    def __len__(self) -> int:
        return len(self.nodes)


@strawberry.type(description="A page of a list.")
class Connection(Generic[N]):
    """A page. Cursors are made only when they are asked for."""

    page_info: PageInfo = strawberry.field(description="Where this page lies in the list.")
    entries: strawberry.Private[Entries]
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @field(description="The items with their cursors.")
    def edges(self) -> list[Edge[N]]:
        """The items with their cursors."""
        return cast(list[Edge[N]], self.entries)

    @field(description="The items.")
    def nodes(self) -> list[N]:
        """The items."""
        return cast(list[N], self.entries.nodes)

    @field(description="How many items the whole list has.")
    async def total_count(self) -> int:
        """Counted only when asked for."""
        return await self.count()


def connection(of: Any, *, max_size: int, description: str) -> Decorator:
    """A field that is a connection of `of`; its resolver returns a `Listing` and needs no page arguments."""
    declared: Decorator = strawberry.field(
        graphql_type=Connection[of],
        description=description,
        permission_classes=[IsViewer],
        extensions=[Pages(max_size)],
        metadata={MAX_SIZE: max_size},
    )
    return declared


class Pages(FieldExtension):
    """Makes a page of the resolver's `Listing`."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.description = f"At most {max_size:,}; {min(DEFAULT_SIZE, max_size)} when neither is given."

    def apply(self, field: StrawberryField) -> None:
        """Adds the four arguments."""
        field.arguments = [
            *field.arguments,
            _argument("first", int | None, f"The first so many. {self.description}"),
            _argument("after", str | None, "Only what comes after this cursor."),
            _argument("last", int | None, f"The last so many. {self.description}"),
            _argument("before", str | None, "Only what comes before this cursor."),
        ]

    async def resolve_async(
        self,
        next_: Callable[..., Awaitable[Listing[Any]]],
        source: Any,
        info: Info,
        *,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
        **arguments: Any,
    ) -> Connection[Any]:
        """The page that the arguments ask for."""
        size, backward = self._size(first, last)
        listing: Listing[Any] = await next_(source, info, **arguments)
        cursors = Cursors(_scope(source, info, arguments), listing.kinds)
        bounds = Bounds(
            after=cursors.key(after, "after"),
            before=cursors.key(before, "before"),
            limit=size + 1,
            backward=backward,
        )
        found = await listing.fetch(bounds)
        return _page(listing, cursors, bounds, found)

    def _size(self, first: int | None, last: int | None) -> tuple[int, bool]:
        if first is not None and last is not None:
            raise InvalidInput("Give first or last, not both.")
        size = first if first is not None else last if last is not None else min(DEFAULT_SIZE, self.max_size)
        name = "last" if last is not None else "first"
        if size < 0:
            raise InvalidInput(f"{name} has to be 0 or more.", details={"given": size})
        if size > self.max_size:
            raise LimitExceeded(
                f"{name} may be {self.max_size:,} at most here; page on with after or before.",
                details={"limit": self.max_size, "given": size},
            )
        return size, last is not None


def _argument(name: str, kind: Any, description: str) -> StrawberryArgument:
    return StrawberryArgument(
        python_name=name,
        graphql_name=None,
        type_annotation=StrawberryAnnotation(kind),
        description=description,
        default=strawberry.UNSET,
    )


def _page(
    listing: Listing[Any], cursors: Cursors, bounds: Bounds, found: Sequence[tuple[Any, Key]]
) -> Connection[Any]:
    more = len(found) == bounds.limit
    last = min(len(found), bounds.limit - 1)
    kept = slice(last - 1, None, -1) if bounds.backward and last else slice(last)
    nodes, keys = _nodes(listing, found, kept)
    ends = cursors.of_all([[column[0], column[-1]] for column in keys]) if nodes else [None, None]
    return Connection(
        page_info=PageInfo(
            has_next_page=bounds.before is not None if bounds.backward else more,
            has_previous_page=more if bounds.backward else bounds.after is not None,
            start_cursor=ends[0],
            end_cursor=ends[1],
        ),
        entries=Entries(nodes, keys, cursors),
        count=listing.count,
    )


def _nodes(
    listing: Listing[Any], found: Sequence[tuple[Any, Key]], kept: slice
) -> tuple[Sequence[Any], Sequence[Values]]:
    """The nodes of a page, and the columns of their keys."""
    if isinstance(found, Plain) and listing.shape is not None:
        chosen = found.chosen(kept)
        return Shaped(chosen.rows, listing.node, listing.shape), chosen.keys()
    rows = list(found)[kept]
    keys = [[key[place] for _, key in rows] for place in range(len(listing.kinds))]
    return [listing.node(row) for row, _ in rows], keys


def _scope(source: Any, info: Info, arguments: dict[str, Any]) -> str:
    """What a cursor belongs to: the field, the object it is of, and its filter, sort and other arguments."""
    owner = source.id if isinstance(source, Node) else None
    given = (each for each in arguments.items() if each[1] is not None and each[1] is not strawberry.UNSET)
    canonical = ((name, _canonical(value)) for name, value in given)
    named = sorted(
        (name, json.dumps(value, sort_keys=True)) for name, value in canonical if value not in ({}, [])
    )
    whole = repr((info.path.typename, info.field_name, owner, named))
    return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    """An argument as JSON, alike for all that mean the same: whatever the order of keys, 1.0 as 1."""
    if is_dataclass(value):
        given = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: _canonical(each) for name, each in given.items() if each is not strawberry.UNSET}
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return microseconds(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value

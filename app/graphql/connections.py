"""Connections: every list, by keyset, with first/after/last/before, nodes, edges, pageInfo and totalCount."""

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar, cast

import orjson
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
from app.database import from_microseconds, microseconds
from app.errors import InvalidInput, LimitExceeded
from app.graphql.context import Info
from app.graphql.fields import MAX_SIZE, Decorator, field
from app.graphql.loaders import load_together
from app.graphql.nodes import Node
from app.graphql.permissions import IsViewer
from app.keyset import Bounds, By, Key, KeyPart
from app.validation import MAX_INTEGER, MIN_INTEGER

N = TypeVar("N")
Row = TypeVar("Row")
P = TypeVar("P", bound=Hashable)

DEFAULT_SIZE = 30
URL_SAFE = bytes.maketrans(b"+/", b"-_")
Fetch: TypeAlias = Callable[[Bounds], Awaitable[Sequence[tuple[Row, Key]]]]


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """What a connection's resolver returns: where its pages come from.

    `fetch(bounds)` gives rows with their keys in the direction walked (backward: the last first), `kinds`
    are the types of a key's parts, `node` makes the GraphQL object of a row, `count` is awaited only when
    totalCount is asked for.
    """

    fetch: Fetch[Row]
    kinds: tuple[type, ...]
    node: Callable[[Row], Any]
    count: Callable[[], Awaitable[int]]


def select_listing(
    info: Info,
    statement: Select[Any],
    order: Sequence[By],
    node: Callable[[Any], Any],
    *,
    count: Select[Any] | None = None,
) -> Listing[Any]:
    """A listing of what `statement` selects, by `order`, which ends in a unique column. `count` is a cheaper
    statement for the number of all, where there is one."""
    database = info.context.database
    counting = count if count is not None else select(func.count()).select_from(statement.subquery())

    async def fetch(bounds: Bounds) -> Sequence[tuple[Any, Key]]:
        async with database.read() as session:
            return await keyset.page(session, statement, order, bounds)

    async def total() -> int:
        async with database.read() as session:
            return int((await session.execute(counting)).scalar_one())

    return Listing(fetch=fetch, kinds=keyset.kinds(order), node=node, count=total)


@dataclass(frozen=True)
class Family(Generic[P, Row]):
    """The same list of many parents, as siblings in a document have it: their pages are read together, and so
    are their counts. `pages` and `counts` take the keys of the parents; `kinds` is that of `Listing`.
    """

    pages: Callable[[AsyncSession, Sequence[P], Bounds], Awaitable[Mapping[P, Sequence[tuple[Row, Key]]]]]
    counts: Callable[[AsyncSession, Sequence[P]], Awaitable[Mapping[P, int]]]
    kinds: tuple[type, ...]


def select_family(of: Callable[[Any], Select[Any]], order: Sequence[By]) -> Family[Any, Any]:
    """The family of what `of(parent)` selects. `of` takes a value or a column of values; `order` ends in a
    column that is unique within a parent's list."""

    async def pages(session: AsyncSession, parents: Sequence[Any], bounds: Bounds) -> Mapping[Any, Any]:
        return await keyset.pages(session, of, parents, order, bounds)

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


def nested_listing(info: Info, family: Family[P, Row], parent: P, node: Callable[[Row], Any]) -> Listing[Row]:
    """The listing of one parent. What its siblings list is read with it, so that a page of parents costs one
    statement, whatever their number; the family of the first of them reads for all."""
    place = _place(info)

    async def fetch(bounds: Bounds) -> Sequence[tuple[Row, Key]]:
        async def read(session: AsyncSession, parents: Sequence[P]) -> Mapping[P, Sequence[tuple[Row, Key]]]:
            return await family.pages(session, parents, bounds)

        return await load_together(info, (place, bounds), read, parent) or ()

    async def count() -> int:
        return await load_together(info, (place, "count"), family.counts, parent) or 0

    return Listing(fetch=fetch, kinds=family.kinds, node=node, count=count)


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


class Entry:
    """What an edge is made of: a node, the key of its place, and what makes cursors, if one is asked for."""

    __slots__ = ("_cursor_of", "_key", "node")

    def __init__(self, node: Any, key: Key, cursor_of: Callable[[Key], str]) -> None:
        self.node = node
        self._key = key
        self._cursor_of = cursor_of

    @property
    def cursor(self) -> str:
        """The cursor of the node's place."""
        return self._cursor_of(self._key)


@strawberry.type(description="A page of a list.")
class Connection(Generic[N]):
    """A page. Cursors are made only when they are asked for."""

    page_info: PageInfo = strawberry.field(description="Where this page lies in the list.")
    entries: strawberry.Private[list[Entry]]
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @field(description="The items with their cursors.")
    def edges(self) -> list[Edge[N]]:
        """The items with their cursors."""
        return cast(list[Edge[N]], self.entries)

    @field(description="The items.")
    def nodes(self) -> list[N]:
        """The items."""
        return [entry.node for entry in self.entries]

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
    listing: Listing[Any], cursors: "Cursors", bounds: Bounds, found: Sequence[tuple[Any, Key]]
) -> Connection[Any]:
    node = listing.node
    more = len(found) == bounds.limit
    kept = list(found[: bounds.limit - 1])
    if bounds.backward:
        kept.reverse()
    return Connection(
        page_info=PageInfo(
            has_next_page=bounds.before is not None if bounds.backward else more,
            has_previous_page=more if bounds.backward else bounds.after is not None,
            start_cursor=cursors.of(kept[0][1]) if kept else None,
            end_cursor=cursors.of(kept[-1][1]) if kept else None,
        ),
        entries=[Entry(node(row), key, cursors.of) for row, key in kept],
        count=listing.count,
    )


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


class Cursors:
    """Makes and reads the cursors of one list with one filter and sort; any other's are refused."""

    def __init__(self, scope: str, kinds: tuple[type, ...]) -> None:
        self._scope = scope
        self._kinds = kinds
        self._plain = datetime not in kinds

    def of(self, key: Key) -> str:
        """The cursor of the row with this key."""
        parts = key if self._plain else map(_plain, key)
        return (
            binascii.b2a_base64(orjson.dumps((self._scope, *parts)), newline=False)
            .translate(URL_SAFE)
            .decode()
        )

    def key(self, cursor: str | None, argument: str) -> Key | None:
        """The key in a cursor. Raises InvalidInput unless `of` made it for the same list."""
        if cursor is None:
            return None
        try:
            scope, *parts = orjson.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            if scope != self._scope:
                raise ValueError
            return tuple(_typed(part, kind) for part, kind in zip(parts, self._kinds, strict=True))
        except (binascii.Error, ValueError, TypeError, OverflowError):
            raise InvalidInput(
                f"{argument} is not a cursor of this list. Use one that the same list gave you, with the "
                "same filter and sort."
            ) from None


def _plain(part: KeyPart) -> Any:
    return microseconds(part) if isinstance(part, datetime) else part


def _typed(part: Any, kind: type) -> KeyPart:
    if part is None:
        return None
    if kind is float and type(part) is int:
        return float(part)
    if type(part) is not (int if kind is datetime else kind):
        raise ValueError
    if isinstance(part, str) and "\0" in part:
        raise ValueError
    if isinstance(part, int) and not MIN_INTEGER <= part <= MAX_INTEGER:
        raise ValueError
    return from_microseconds(cast(int, part)) if kind is datetime else cast(KeyPart, part)

"""How fields of a type stand in the columns of its rows, so that a page of them needs no objects.

Objects are made where somebody looks at one: graphql-core, or a resolver that takes `self`.
"""

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from app.rows import Rows, Values


@dataclass(frozen=True)
class Derived:
    """What is made of the values of several columns, or of none. `of` never raises for what can be stored."""

    of: Callable[..., Any]
    columns: tuple[str, ...] = ()

    def column(self, rows: Rows) -> Values:
        """The values for these rows."""
        if not self.columns:
            return [self.of()] * len(rows)
        return list(map(self.of, *map(rows.column, self.columns)))


Source: TypeAlias = str | Derived
NOTHING = Derived(lambda: None)


@dataclass(frozen=True, eq=False)
class Shape:
    """Where the attributes of a GraphQL type's objects come from: `sources` names a column of the row for
    each, or what it is derived from. Global ids are made of `key`, between `before` and `after`."""

    type_name: str
    key: Source
    sources: Mapping[str, Source]
    before: str = ""
    after: str = ""

    def source(self, attribute: str) -> Source | None:
        """Where an attribute comes from; None where only an object knows."""
        return self.key if attribute == "id" else self.sources.get(attribute)

    def columns(self, attributes: Iterable[str]) -> set[str] | None:
        """The columns that these attributes need; None where one of them is not among the sources."""
        needed: set[str] = set()
        for attribute in attributes:
            source = self.source(attribute)
            if source is None:
                return None
            needed.update((source,) if isinstance(source, str) else source.columns)
        return needed

    def column(self, attribute: str, rows: Rows) -> Values | None:
        """The values of an attribute; None where only objects know."""
        source = self.source(attribute)
        if source is None:
            return None
        values = rows.column(source) if isinstance(source, str) else source.column(rows)
        if attribute == "id":
            return encode_ids(f"{self.type_name}:{self.before}", values, self.after)
        return values


class Unmade(Sequence[Any]):
    """Objects of one type that are made when somebody looks at one."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self._rows = rows
        self._make = make

    @property
    def type_name(self) -> str:
        """The GraphQL type of all of them."""
        raise NotImplementedError

    def column(self, attribute: str) -> Sequence[Any] | None:
        """The values of an attribute, perhaps unmade in turn; None where only the objects know."""
        raise NotImplementedError

    @cached_property
    def made(self) -> list[Any]:
        """The objects."""
        return list(map(self._make, self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self.made[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.made)


class Shaped(Unmade):
    """Objects of rows that have a shape."""

    _rows: Rows

    def __init__(self, rows: Rows, make: Callable[[Any], Any], shape: Shape) -> None:
        super().__init__(rows, make)
        self._shape = shape

    @property
    def type_name(self) -> str:
        """That of the shape."""
        return self._shape.type_name

    def column(self, attribute: str) -> Values | None:
        """By the shape."""
        return self._shape.column(attribute, self._rows)


def encode_ids(before: str, keys: Iterable[object], after: str = "") -> list[str]:
    """The global ids of nodes: base64 of each key between these texts."""
    lines = b"".join([b2a_base64(f"{before}{key}{after}".encode()) for key in keys])
    return lines.decode().split("\n")[:-1]

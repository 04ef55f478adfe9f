"""Values completed by the column: what graphql-core does to one value, done to one of each item of a list.

A column is a list of values, one for each item. With whatever is not as it should be (an error, a null where
none may be) its place becomes odd: the caller has that item executed by graphql-core, from the beginning.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter
from types import GeneratorType
from typing import Any, TypeAlias

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLString,
    Undefined,
)
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE

from app.graphql.scalars import format_instant, format_instants
from app.graphql.shapes import Shape, Shaped, Unmade
from app.rows import Rows

Values: TypeAlias = Any  # a list, or the objects of a list that are not made
Odd: TypeAlias = set[int]
NATIVE: Mapping[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool, GraphQLInt: int}
MIN_INT, MAX_INT = -(2**31), 2**31 - 1
NOTHING = type(None)


Info: TypeAlias = Callable[[Any], Any]


class Completer(ABC):
    """Completes columns of one type. `loads` tells whether it may have to wait for something."""

    loads = False

    @abstractmethod
    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """The completed values; what could not be completed is None and `odd`. `info` gives what a resolver
        gets, for the place of its field."""


class NonNull(Completer):
    """Values that may not be null."""

    def __init__(self, of: Completer) -> None:
        self._of = of
        self.loads = of.loads

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """As the type itself; nulls are odd."""
        completed = await self._of.complete(values, odd, info)
        if None in completed:
            odd.update(place for place, value in enumerate(completed) if value is None)
        return completed


class Leaf(Completer):
    """Scalars and enums."""

    def __init__(self, kind: GraphQLLeafType) -> None:
        self._coerce = kind.coerce_output_value
        self._native = {NATIVE[kind], NOTHING} if kind in NATIVE else set()
        self._bounded = kind is GraphQLInt
        self._few = isinstance(kind, GraphQLEnumType)
        definition = kind.extensions.get("strawberry-definition")
        self._instants = getattr(definition, "serialize", None) is format_instant

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """Coerced, unless they are what they are coerced to."""
        kinds = set(map(type, values))
        if kinds <= self._native and (not self._bounded or _within_bounds(values)):
            return values
        if kinds == {NOTHING}:
            return values
        if self._instants and kinds <= {datetime, NOTHING}:
            return format_instants(values)
        if self._few and len(kinds - {NOTHING}) == 1:
            return self._by_value(values, odd)
        return _each(self._coerced, values, odd)

    def _by_value(self, values: Values, odd: Odd) -> Values:
        """Each member of an enum once."""
        try:
            coerced = {value: None if value is None else self._coerced(value) for value in set(values)}
        except Exception:
            return _each(self._coerced, values, odd)
        return [coerced[value] for value in values]

    def _coerced(self, value: Any) -> Any:
        if _is_strange(type(value)):
            raise TypeError
        coerced = self._coerce(value)
        if coerced is None or coerced is Undefined:
            raise TypeError
        return coerced


class Object(Completer):
    """Objects of one type, by the fields selected. `origin` is the class they must be of, if any."""

    def __init__(self, type_name: str, fields: Sequence["Field"], origin: type | None) -> None:
        self._type_name = type_name
        self._fields = fields
        self._origin = origin
        self.loads = any(field.loads for field in fields)

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """A dict for each."""
        if isinstance(values, Unmade) and (self._origin is None or values.type_name == self._type_name):
            return await self._rows(values, odd, info)
        kinds = set(map(type, values))
        if not self._suits(kinds, values):
            kinds.add(NOTHING)
            values = _kept(lambda value: self._suits({type(value)}, (value,)), values, odd)
        if NOTHING in kinds:
            return await _sparsely(self._rows, values, odd, info)
        return await self._rows(values, odd, info)

    def _suits(self, kinds: set[type], values: Sequence[Any]) -> bool:
        """Whether all are of the class, or null. What is cast to another type is not."""
        some = kinds - {NOTHING}
        if any(map(_is_strange, some)):
            return False
        if self._origin is None:
            return True
        return all(issubclass(kind, self._origin) for kind in some) and not any(map(_is_cast, values))

    async def _rows(self, values: Values, odd: Odd, info: Info) -> Values:
        columns = await self._columns(values, odd, info)
        rows: Values = [{} for _ in range(len(values))]
        for field, column in zip(self._fields, columns, strict=True):
            key = field.key
            for row, value in zip(rows, column, strict=True):
                row[key] = value
        return rows

    async def _columns(self, values: Values, odd: Odd, info: Info) -> Sequence[Values]:
        """What is loaded is asked for side by side, so that it is read together."""
        if sum(field.loads for field in self._fields) > 1:
            return await asyncio.gather(*(field.column(values, odd, info) for field in self._fields))
        return [await field.column(values, odd, info) for field in self._fields]


class Narrowed(Completer):
    """Nodes of which only columns were loaded: the rows of these, or None."""

    def __init__(self, of: Completer, shape: Shape, columns: Sequence[str]) -> None:
        self._of = of
        self._shape = shape
        self._columns = columns
        self.loads = of.loads

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """A dict for each row."""
        if None in values:
            return await _sparsely(self._present, values, odd, info)
        return await self._present(values, odd, info)

    async def _present(self, values: Values, odd: Odd, info: Info) -> Values:
        rows = Rows.of(values, self._columns)
        return await self._of.complete(Shaped(rows, _never, self._shape), odd, info)


def _never(_: Any) -> Any:
    raise RuntimeError("there is not enough of a narrowed row to make its object")


class Interface(Completer):
    """Objects of several types, each by its own completer."""

    def __init__(self, completers: Mapping[type, Completer]) -> None:
        self._completers = completers
        self.loads = any(completer.loads for completer in completers.values())

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """By the exact class of each."""
        completed: Values = [None] * len(values)
        for kind in set(map(type, values)) - {NOTHING}:
            places = [place for place, value in enumerate(values) if type(value) is kind]
            if kind in self._completers:
                await _put(self._completers[kind].complete, completed, places, values, odd, info)
            else:
                odd.update(places)
        return completed


class List(Completer):
    """Lists: their items are completed together."""

    def __init__(self, item: Completer) -> None:
        self._item = item
        self.loads = item.loads

    async def complete(self, values: Values, odd: Odd, info: Info) -> Values:
        """A list for each."""
        lists = _kept(lambda value: type(value) in (list, tuple, NOTHING), values, odd)
        wrong: Odd = set()
        items = list(chain.from_iterable(each for each in lists if each is not None))
        completed = await self._item.complete(items, wrong, info)
        found: Values = []
        start = 0
        for place, each in enumerate(lists):
            end = start + len(each or ())
            found.append(None if each is None else completed[start:end])
            if wrong and not wrong.isdisjoint(range(start, end)):
                odd.add(place)
            start = end
        return found


class Field(ABC):
    """A field of an object, by its key in the answer."""

    def __init__(self, key: str, completer: Completer) -> None:
        self.key = key
        self._completer = completer
        self.loads = completer.loads

    async def column(self, sources: Values, odd: Odd, info: Info) -> Values:
        """The completed values of these objects."""
        return await self._completer.complete(await self._values(sources, odd, info), odd, info)

    @abstractmethod
    async def _values(self, sources: Values, odd: Odd, info: Info) -> Values: ...


class TypeName(Field):
    """What `__typename` gives."""

    def __init__(self, key: str, completer: Completer, name: str) -> None:
        super().__init__(key, completer)
        self._name = name

    async def _values(self, sources: Values, odd: Odd, info: Info) -> Values:
        return [self._name] * len(sources)


class Computed(Field):
    """What a resolver makes of the object alone."""

    def __init__(self, key: str, completer: Completer, of: Callable[[Any], Any]) -> None:
        super().__init__(key, completer)
        self._of = of

    async def _values(self, sources: Values, odd: Odd, info: Info) -> Values:
        try:
            return list(map(self._of, sources))
        except Exception:
            return _each(self._of, sources, odd)


class Attribute(Computed):
    """An attribute of the object."""

    def __init__(self, key: str, completer: Completer, name: str) -> None:
        super().__init__(key, completer, attrgetter(name))
        self._name = name

    async def _values(self, sources: Values, odd: Odd, info: Info) -> Values:
        try:
            column = _column(sources, self._name)
        except Exception:
            odd.update(range(len(sources)))
            return [None] * len(sources)
        return await super()._values(sources, odd, info) if column is None else column


class Keyed(Field):
    """What is loaded by a key that the object has."""

    def __init__(
        self,
        key: str,
        completer: Completer,
        key_of: Callable[[Any], Any],
        load: Callable[[Any, Sequence[Any]], Awaitable[Sequence[Any]]],
        absent: Any,
        place: Any,
        attribute: str | None,
    ) -> None:
        super().__init__(key, completer)
        self._key_of = key_of
        self._attribute = attribute
        self._load = load
        self._absent = absent
        self._place = place
        self.loads = True

    async def _values(self, sources: Values, odd: Odd, info: Info) -> Values:
        try:
            column = None if self._attribute is None else _column(sources, self._attribute)
            keys = list(map(self._key_of, sources)) if column is None else column
            wanted = [key for key in dict.fromkeys(keys) if key is not None]
            loaded = await self._load(info(self._place), wanted) if wanted else ()
            found = dict(zip(wanted, loaded, strict=True))
        except Exception:
            odd.update(range(len(sources)))
            return [None] * len(sources)
        found[None] = self._absent
        return list(map(found.__getitem__, keys))


def _column(sources: Values, attribute: str) -> Any:
    """The values of an attribute of objects that are not made; None if they have to be made for it."""
    return sources.column(attribute) if isinstance(sources, Unmade) else None


def _within_bounds(values: Values) -> bool:
    some = [value for value in values if value is not None]
    return not some or (min(some) >= MIN_INT and max(some) <= MAX_INT)


def _is_strange(kind: type) -> bool:
    """Whether values of this class mean something else than themselves: they are raised, or awaited."""
    return (
        issubclass(kind, Exception | GeneratorType) or kind is type(Undefined) or hasattr(kind, "__await__")
    )


def _is_cast(value: Any) -> bool:
    return hasattr(value, TYPE_CAST_ATTRIBUTE)


def _kept(suits: Callable[[Any], bool], values: Values, odd: Odd) -> Values:
    """The values that suit, None for the others, which are odd."""
    odd.update(place for place, value in enumerate(values) if not suits(value))
    return [value if suits(value) else None for value in values]


def _each(of: Callable[[Any], Any], values: Values, odd: Odd) -> Values:
    """`of` each value that is not null, one by one; where that fails it is odd."""
    found: Values = []
    for place, value in enumerate(values):
        try:
            found.append(None if value is None or value is Undefined else of(value))
        except Exception:
            found.append(None)
            odd.add(place)
    return found


Complete: TypeAlias = Callable[[Values, Odd, Info], Awaitable[Values]]


async def _sparsely(complete: Complete, values: Values, odd: Odd, info: Info) -> Values:
    """Completes what is not null."""
    completed: Values = [None] * len(values)
    places = [place for place, value in enumerate(values) if value is not None]
    await _put(complete, completed, places, values, odd, info)
    return completed


async def _put(
    complete: Complete, completed: Values, places: Sequence[int], values: Values, odd: Odd, info: Info
) -> None:
    """Completes the values at `places`."""
    wrong: Odd = set()
    part = await complete([values[place] for place in places], wrong, info)
    for place, value in zip(places, part, strict=True):
        completed[place] = value
    odd.update(places[place] for place in wrong)

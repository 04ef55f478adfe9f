"""A schema in which every kind of field and of mishap occurs."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any

import strawberry
from graphql import GraphQLError
from sqlalchemy.ext.asyncio import AsyncSession
from strawberry.schema.config import StrawberryConfig

from app.errors import InvalidInput
from app.graphql.columnwise import ColumnwiseExecutor
from app.graphql.connections import Listing, connection
from app.graphql.context import Info
from app.graphql.fields import field
from app.graphql.keyed import loaded, reference, reference_by
from app.graphql.loaders import Loader
from app.graphql.nodes import Columns, Node
from app.graphql.scalars import JSON, SCALARS
from app.graphql.shapes import Derived, Shape, Source
from app.keyset import Bounds, Key, Plain
from app.rows import Rows

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = "tests.unit.zoo"


@strawberry.enum
class Kind(Enum):
    TAME = "tame"
    WILD = "WILD"


class Shouting(str):
    """A text of a class of its own."""


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("cannot be printed")


TEXTS: list[Any] = ["", "a", "ü\u2028", Shouting("B"), 7, 1.5, True]
WRONG: list[Any] = [
    None,
    [],
    {},
    Unprintable(),
    InvalidInput("wrong"),
    ValueError("broken"),
    strawberry.UNSET,
]
VALUES: Mapping[str, list[Any]] = {
    "text": TEXTS,
    "number": [0, -1, 2**31 - 1, 2**31, True, 3.0, 3.5, "12"],
    "ratio": [0.5, 1, float("nan"), "x", True],
    "flag": [True, False, 1, 0.0, "true"],
    "when": [BEGIN, BEGIN + timedelta(microseconds=1), BEGIN.astimezone(timezone(timedelta(hours=2))), "now"],
    "kind": [Kind.TAME, Kind.WILD, "TAME", "wild", "none"],
    "custom": [{}, {"a": [1, None]}, 5],
    "texts": [[], ["a", "b"], ("c",), [None], [1, {}], "ab", {"d": 1}.keys(), 5],
}
FRIENDS = ["", "k0", "k1", "k2", "gone", None]


async def _by_keys(session: AsyncSession, keys: Sequence[str]) -> dict[str, int]:
    if "k2" in keys and world.failing:
        raise ValueError("the database is away")
    return {key: int(key[1:]) for key in keys if key.startswith("k")}


async def _columns(
    session: AsyncSession, keys: Sequence[str], columns: Sequence[str]
) -> dict[str, Sequence[Any]]:
    found = await _by_keys(session, keys)
    keepers = {key: world.keepers[number] for key, number in found.items()}
    return {key: tuple(getattr(each, name) for name in columns) for key, each in keepers.items()}


async def _counts(session: AsyncSession, keys: Sequence[str]) -> dict[str, Any]:
    return {key: world.count(key) for key in keys if key != "gone"}


keepers = Loader(_by_keys)
counts = Loader(_counts)


@strawberry.type
class Keeper(Node):
    keeper_id: str
    text: str
    label: str | None
    when: datetime | None

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Keeper | None"]:
        found = await keepers.load_many(info, keys)
        return [None if number is None else world.keepers[number] for number in found]

    @classmethod
    def columns(cls) -> Columns:
        plain = {name: name for name in ("keeper_id", "text", "label", "when")}
        return Columns(_columns, Shape("Keeper", "keeper_id", plain))

    @field(description="")
    def loud(self) -> str:
        return self.text.upper()

    @connection(Annotated["Animal", strawberry.lazy(HERE)], max_size=9, description="")
    async def animals(self, info: Info) -> Any:
        return listing(Animal, world.animals[:2])


@strawberry.type
class Tag:
    text: str
    number: int | None

    @field(description="")
    def double(self) -> int:
        return int(self.number or 0) * 2


PARTS = ("text", "label", "when", "kind", "flag", "friend", "number")


def _trail(text: Any, number: Any) -> Any:
    return number if text == "" else text


@strawberry.type
class Track(Node):
    """Made of a plain row, or not made at all."""

    text: str
    label: str | None
    when: datetime | None
    kind: Kind | None
    flag: bool | None
    trail: str
    friend: strawberry.Private[Any]

    @classmethod
    def of(cls, row: Any) -> "Track":
        return cls(
            id=cls.global_id(f"track {row.friend} here"),
            text=row.text,
            label=row.label,
            when=row.when,
            kind=row.kind,
            flag=row.flag,
            trail=_trail(row.text, row.number),
            friend=row.friend,
        )

    @field(description="")
    def loud(self) -> str:
        return self.text.upper()

    keeper = reference_by("friend", Keeper, description="")

    @loaded(counts, int, absent=0, description="")
    def count(self) -> str | None:
        key: str | None = self.friend
        return key


SOURCES: dict[str, Source] = {
    **{name: name for name in PARTS},
    "trail": Derived(_trail, ("text", "number")),
}
TRACK = Shape("Track", "friend", SOURCES, before="track ", after=" here")


def tracks() -> Listing[Any]:
    async def fetch(bounds: Bounds) -> Plain:
        rows = [
            (*(getattr(animal, name) for name in PARTS), place) for place, animal in enumerate(world.animals)
        ]
        return Plain(Rows.of(rows[: bounds.limit], [*PARTS, "place"]), [len(PARTS)])

    async def count() -> int:
        return len(world.animals)

    return Listing(fetch=fetch, kinds=(int,), node=Track.of, count=count, shape=TRACK)


@strawberry.type
class Animal(Node):
    text: str
    label: str | None
    number: int
    maybe: int | None
    ratio: float | None
    flag: bool | None
    when: datetime | None
    kind: Kind | None
    custom: JSON | None
    texts: list[str] | None
    tag: Tag
    other_tag: Tag | None
    tags: list[Tag]
    maybe_tags: list[Tag | None] | None
    neighbour: Node | None
    neighbours: list[Node | None]
    friend: strawberry.Private[Any]

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Animal | None"]:
        return [None for _ in keys]

    @field(description="")
    def loud(self) -> str:
        return self.text.upper()

    @field(description="")
    def itself(self) -> "Animal | None":
        return None if self.flag is None else self

    @field(description="")
    async def slow(self) -> str | None:
        if self.flag is False:
            raise InvalidInput("slow and wrong")
        return self.label

    @field(description="")
    def where(self, info: Info) -> str:
        return "/".join(map(str, info._raw_info.path.as_list()))

    @field(description="")
    def plus(self, number: int = 1) -> int:
        return self.number + number

    @reference(Keeper, description="")
    def keeper(self) -> str | None:
        key: str | None = self.friend
        return key

    @reference(Annotated["Animal", strawberry.lazy(HERE)], description="")
    def nobody(self) -> str:
        return self.text.lower()

    @loaded(counts, int, absent=0, description="")
    def count(self) -> str | None:
        key: str | None = self.friend
        return key

    @connection(Annotated["Animal", strawberry.lazy(HERE)], max_size=9, description="")
    async def others(self, info: Info) -> Any:
        if self.flag is False:
            raise InvalidInput("no others")
        return listing(Animal, world.animals[1:3])


def listing(kind: type[Node], nodes: Sequence[Any]) -> Listing[Any]:
    async def fetch(bounds: Bounds) -> Sequence[tuple[Any, Key]]:
        return [(node, (str(place), BEGIN)) for place, node in enumerate(nodes)][: bounds.limit]

    async def count() -> int:
        return len(nodes)

    return Listing(fetch=fetch, kinds=(str, datetime), node=lambda node: node, count=count)


@strawberry.type
class Query:
    @connection(Animal, max_size=9, description="")
    async def animals(self, info: Info) -> Any:
        return listing(Animal, world.animals)

    @connection(Track, max_size=9, description="")
    async def tracks(self, info: Info) -> Any:
        return tracks()

    @field(description="")
    def nodes(self) -> list[Node | None]:
        return [*world.animals, None, *world.keepers]

    @field(description="")
    async def herd(self) -> list[Animal]:
        return world.animals

    @field(description="")
    def scattered(self) -> list[Animal | None] | None:
        return [*world.animals, None]


class Silent(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Leaves them as they are, and unsaid."""


schema = Silent(
    query=Query,
    types=[Keeper],
    execution_context_class=ColumnwiseExecutor,
    config=StrawberryConfig(scalar_map=SCALARS),
)
GRAPHQL = schema._schema


class World:
    """The animals, each with values of all kinds, more or less of them wrong."""

    def __init__(self, seed: int, wrong: float) -> None:
        self._seed = seed
        self._wrong = wrong
        self.failing = self.chance("failing").random() < wrong
        self.keepers = [self._keeper(number) for number in range(3)]
        plain = [self._animal(number, []) for number in range(2)]
        self.animals = [self._animal(number, plain) for number in range(4)]

    def chance(self, name: object) -> random.Random:
        return random.Random(f"{self._seed} {name}")

    def count(self, key: str) -> Any:
        chance = self.chance(key)
        return chance.choice([2**31, "x"]) if chance.random() < self._wrong else 1

    def _keeper(self, number: int) -> Keeper:
        chance = self.chance(("keeper", number))
        return Keeper(
            id=Keeper.global_id(f"k{number}"),
            keeper_id=f"k{number}",
            text=self._some(chance, "text"),
            label=self._some(chance, "text", None),
            when=self._some(chance, "when", None),
        )

    def _animal(self, number: int, others: list[Any]) -> Animal:
        chance = self.chance((number, len(others)))
        around = [*others, *self.keepers, None] + ([object()] if chance.random() < self._wrong else [])
        return Animal(
            id=Animal.global_id(number),
            **{name: self._some(chance, name, None) for name in VALUES if name not in ("text", "number")},
            text=self._some(chance, "text"),
            number=self._some(chance, "number"),
            label=self._some(chance, "text", None),
            maybe=self._some(chance, "number", None),
            tag=self._tag(chance),
            other_tag=chance.choice([None, self._tag(chance)]),
            tags=[self._tag(chance) for _ in range(chance.randint(0, 2))],
            maybe_tags=chance.choice([None, [self._tag(chance), None]]),
            neighbour=chance.choice(around),
            neighbours=chance.sample(around, chance.randint(0, 3)),
            friend=chance.choice(FRIENDS),
        )

    def _tag(self, chance: random.Random) -> Any:
        tag = Tag(text=self._some(chance, "text"), number=self._some(chance, "number", None))
        return chance.choice(WRONG) if chance.random() < self._wrong else tag

    def _some(self, chance: random.Random, name: str, *more: Any) -> Any:
        if chance.random() < self._wrong:
            return chance.choice(VALUES[name] + WRONG)
        return chance.choice([VALUES[name][0], *more])


world = World(0, 0)


def context(understood: Any) -> Any:
    """What an execution is given."""

    @asynccontextmanager
    async def read() -> AsyncIterator[None]:
        yield

    return SimpleNamespace(
        understood=understood, loaders={}, database=SimpleNamespace(read=read), viewer=object()
    )


class Infos:
    """What resolvers are given, as far as loaders look at it."""

    def __init__(self, context: Any) -> None:
        self.context = context

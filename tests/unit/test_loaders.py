"""Loaders: what is asked for in the same moment is read at once, and each key once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from app.graphql.loaders import Loader
from tests.unit import zoo


class Shelf:
    """Reads numbers as texts, when it is let."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False

    async def read(self, session: Any, keys: Sequence[int]) -> Mapping[int, str]:
        self.asked.append(list(keys))
        await self.open.wait()
        if self.broken:
            raise ValueError("broken")
        return {key: str(key) for key in keys if key >= 0}


def loads(shelf: Shelf, batch: int = 1_000) -> Callable[..., Awaitable[list[str | None]]]:
    loader, info = Loader(shelf.read, batch=batch), zoo.Infos(zoo.context(None))

    async def load(*keys: int) -> list[str | None]:
        return await loader.load_many(info, keys)  # type: ignore[arg-type]

    return load


async def test_all_that_is_asked_in_the_same_moment_is_read_at_once() -> None:
    shelf = Shelf()
    load = loads(shelf)
    found = await asyncio.gather(load(1, 2), load(2, 3, 3), load(-1), load())
    assert found == [["1", "2"], ["2", "3", "3"], [None], []]
    assert await load(3, 1, -1) == ["3", "1", None]
    assert shelf.asked == [[1, 2, 3, -1]]


async def test_what_is_coming_is_not_asked_for_again() -> None:
    shelf = Shelf()
    load = loads(shelf)
    shelf.open.clear()
    first = asyncio.ensure_future(load(1))
    while not shelf.asked:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(load(1, 2))
    while len(shelf.asked) < 2:
        await asyncio.sleep(0)
    shelf.open.set()
    assert await first == ["1"] and await second == ["1", "2"]
    assert shelf.asked == [[1], [2]]


async def test_many_keys_are_read_in_several_statements() -> None:
    shelf = Shelf()
    assert await loads(shelf, batch=2)(1, 2, 3) == ["1", "2", "3"]
    assert shelf.asked == [[1, 2], [3]]


async def test_a_read_that_fails_fails_for_all_and_is_tried_again_by_whoever_asks_later() -> None:
    shelf = Shelf()
    load = loads(shelf)
    shelf.broken = True
    found = await asyncio.gather(load(1), load(1, 2), return_exceptions=True)
    assert [str(failure) for failure in found] == ["broken", "broken"]
    shelf.broken = False
    assert await load(1) == ["1"]


async def test_who_stops_waiting_takes_nothing_from_others() -> None:
    shelf = Shelf()
    load = loads(shelf)
    waiting, other = asyncio.ensure_future(load(1)), asyncio.ensure_future(load(1))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await other == ["1"]
    with pytest.raises(asyncio.CancelledError):
        await waiting

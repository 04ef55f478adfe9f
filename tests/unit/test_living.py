"""The loops of a process: they live as long as it does, or it ends with them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from workers.living import Ended, until_stopped


async def loop(stopping: asyncio.Event, ended: list[str]) -> None:
    """Goes on until it is told to stop."""
    await stopping.wait()
    ended.append("in order")


async def fails() -> None:
    """A fault that nothing has foreseen."""
    raise RuntimeError("odd")


async def is_cancelled() -> None:
    """Something that it awaited was cancelled, by nobody who meant the loop."""
    raise asyncio.CancelledError


async def never_ends() -> None:
    """Does not hear that it is to stop."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("odd", [fails, is_cancelled])
async def test_a_loop_that_ends_by_itself_ends_the_process(
    odd: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    stopping, ended = asyncio.Event(), list[str]()
    with pytest.raises(Ended) as raised:
        async with asyncio.timeout(60):
            await until_stopped(stopping, 1, loop(stopping, ended), odd())
    assert ended == ["in order"]
    assert raised.value.__cause__ is not None


async def test_told_to_stop_loops_end_or_are_cancelled() -> None:
    stopping, ended = asyncio.Event(), list[str]()
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    async with asyncio.timeout(60):
        await until_stopped(stopping, 0.05, loop(stopping, ended), never_ends())
    assert ended == ["in order"]

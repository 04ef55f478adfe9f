"""What runs in the background ends when its process does."""

import asyncio

import pytest

from app import ending


async def test_a_task_that_loses_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As redis-py does with one that comes together with its time limit."""
    monkeypatch.setattr(ending, "SECONDS_BETWEEN_CANCELLATIONS", 0.01)
    lost = 0

    async def beats() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost == 3:
                    raise
                lost += 1

    async def fails() -> None:
        raise RuntimeError("odd")

    tasks = [asyncio.create_task(beats()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await ending.end(*tasks)
    assert lost == 3
    assert tasks[0].cancelled() and isinstance(tasks[1].exception(), RuntimeError)


async def test_what_a_task_does_to_end_in_order_is_not_cancelled_at_once() -> None:
    ended = list[str]()

    async def closes() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("in order")

    task = asyncio.create_task(closes())
    await asyncio.sleep(0)
    await ending.end(task)
    assert ended == ["in order"]

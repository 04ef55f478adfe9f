"""Batches in hand: many together, or one alone."""

import asyncio

from app.sending.gate import Gate


async def test_who_waits_to_be_alone_keeps_newcomers_out() -> None:
    gate, order = Gate(), list[str]()
    leaving = asyncio.Event()

    async def together(name: str) -> None:
        async with gate.together():
            order.append(name)
            await leaving.wait()

    async def alone() -> None:
        async with gate.alone():
            order.append("alone")
            await asyncio.sleep(0)
            order.append("still alone")

    tasks = [asyncio.create_task(work) for work in (together("a"), together("b"), alone(), together("c"))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["a", "b"]
    leaving.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "alone", "still alone", "c"]

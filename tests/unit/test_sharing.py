"""One run for all who ask the same: who is shown what, in which order, and what is left of it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from app.auth import Viewer
from app.graphql.context import Context
from app.graphql.sharing import Sharing
from app.keys.roles import Role
from app.onlookers import Shown

ADMIN = Viewer("a", "Anna", Role.ADMIN)


class Source:
    """A subscription's results, told by the test; each for the onlookers from `first` on."""

    def __init__(self) -> None:
        self.begun: list[Context] = []
        self.closed = 0
        self.told: asyncio.Queue[tuple[Any, int, int] | Exception | None] = asyncio.Queue()

    async def results(self, context: Context) -> AsyncGenerator[dict[str, Any], None]:
        self.begun.append(context)
        try:
            while (told := await self.told.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                result, topic, first = told
                context.onlookers.shown = Shown(topic, first, context.onlookers.come)
                yield result
        finally:
            self.closed += 1

    def tell(self, value: Any, topic: int = 0, first: int = 1) -> None:
        self.told.put_nowait(({"data": value}, topic, first))

    def refuse(self) -> None:
        self.told.put_nowait(({"errors": [{"message": "no"}]}, 0, 1))

    def end(self) -> None:
        self.told.put_nowait(None)


class Reader:
    """A client: takes what is pushed while it reads, and the rest when it gets to it."""

    def __init__(
        self,
        sharing: Sharing,
        source: Source,
        question: str = "q",
        viewer: Viewer = ADMIN,
        pushed: bool = True,
    ) -> None:
        self.reads = True
        self.seen: list[Any] = []
        context = Context(cast(Any, None), viewer)
        push = self._push if pushed else None
        self.payloads = sharing.payloads(question, source.results, context, push)
        self.task = asyncio.create_task(self._take())

    def _push(self, body: bytes) -> bool:
        if self.reads:
            self.seen.append(json.loads(body).get("data", "refused"))
        return self.reads

    async def _take(self) -> None:
        async with contextlib.aclosing(self.payloads) as payloads:
            async for payload in payloads:
                await self.until(lambda: self.reads)
                self.seen.append("refused" if payload.refusal else json.loads(payload.body)["data"])
        self.seen.append("complete")

    async def until(self, happened: Any) -> None:
        async with asyncio.timeout(60):
            while not happened():
                await asyncio.sleep(0)

    async def saw(self, *expected: Any) -> None:
        await self.until(lambda: len(self.seen) >= len(expected))
        await settled()
        assert self.seen == list(expected)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def settled() -> None:
    """Until everybody has had several turns."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("pushed", [True, False])
async def test_all_who_ask_the_same_are_shown_one_execution(pushed: bool) -> None:
    sharing, source = Sharing(), Source()
    readers = [Reader(sharing, source, pushed=pushed) for _ in range(250)]
    await settled()
    for value in (1, 2):
        source.tell(value)
        for reader in readers:
            await reader.saw(*range(1, value + 1))
    source.end()
    for reader in readers:
        await reader.saw(1, 2, "complete")
    assert (len(source.begun), source.closed, sharing._runs) == (1, 1, {})


async def test_a_payload_is_encoded_once_and_the_same_bytes_go_to_all() -> None:
    sharing, source, bodies = Sharing(), Source(), []

    async def read() -> None:
        context = Context(cast(Any, None), ADMIN)
        async with contextlib.aclosing(sharing.payloads("q", source.results, context, None)) as payloads:
            bodies.append(await anext(payloads))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(read())
        await settled()
        source.tell("x" * 100)
    assert len({id(each.body) for each in bodies}) == 1


async def test_other_questions_and_other_roles_have_runs_of_their_own() -> None:
    sharing, source = Sharing(), Source()
    viewer = Viewer("b", "Ben", Role.VIEWER)
    asked = (("q", ADMIN), ("q", Viewer("c", "Cleo", Role.ADMIN)), ("other", ADMIN), ("q", viewer))
    readers = [Reader(sharing, source, question, asks) for question, asks in asked]
    await settled()
    assert [context.viewer.role for context in source.begun] == [Role.ADMIN, Role.ADMIN, Role.VIEWER]
    for reader in readers:
        await reader.leave()
    assert (source.closed, sharing._runs) == (3, {})


async def test_a_run_knows_a_role_and_no_key() -> None:
    sharing, source = Sharing(), Source()
    reader = Reader(sharing, source)
    await settled()
    (context,) = source.begun
    assert context.viewer == Viewer("", "", Role.ADMIN)
    await reader.leave()


async def test_who_comes_late_is_shown_how_things_are_and_others_are_not_told_again() -> None:
    sharing, source = Sharing(), Source()
    early = Reader(sharing, source)
    await settled()
    source.tell("a")
    await early.saw("a")
    late = Reader(sharing, source)
    await settled()
    source.tell("a again", first=2)
    await late.saw("a again")
    source.tell("b")
    await late.saw("a again", "b")
    await early.saw("a", "b")
    for reader in (early, late):
        await reader.leave()


@pytest.mark.parametrize("pushed", [True, False])
async def test_a_slow_reader_skips_to_the_newest_of_each_topic_and_hears_the_end(pushed: bool) -> None:
    sharing, source = Sharing(), Source()
    slow, quick = (Reader(sharing, source, pushed=pushed) for _ in range(2))
    await settled()
    slow.reads = False
    for value in range(100):
        source.tell(f"one {value}", topic=1)
        source.tell(f"two {value}", topic=2)
    source.end()
    await quick.until(lambda: "complete" in quick.seen)
    if pushed:
        assert len(quick.seen) == 201
    slow.reads = True
    await slow.saw("one 0", "two 99", "one 99", "complete")


async def test_what_waits_goes_before_what_is_new() -> None:
    sharing, source = Sharing(), Source()
    reader = Reader(sharing, source)
    await settled()
    reader.reads = False
    source.tell(1)
    await settled()
    source.tell(2)
    await settled()
    reader.reads = True
    source.tell(3)
    await reader.until(lambda: 3 in reader.seen)
    assert reader.seen == sorted(reader.seen)
    await reader.leave()


async def test_a_refusal_reaches_all_who_asked_before_it_and_others_ask_anew() -> None:
    sharing, source = Sharing(), Source()
    readers = [Reader(sharing, source) for _ in range(3)]
    await settled()
    late = Reader(sharing, source)
    source.refuse()
    for reader in readers:
        await reader.saw("refused", "complete")
    await late.until(lambda: len(source.begun) == 2)
    source.tell("there")
    await late.saw("there")
    await late.leave()
    assert (source.closed, sharing._runs) == (2, {})


async def test_who_came_too_late_for_the_last_state_is_shown_it_by_a_new_run() -> None:
    sharing, source = Sharing(), Source()
    early = Reader(sharing, source)
    await settled()
    source.tell("ended")
    await early.saw("ended")
    late = Reader(sharing, source)
    await settled()
    source.end()
    await early.saw("ended", "complete")
    await late.until(lambda: len(source.begun) == 2)
    source.tell("ended")
    source.end()
    await late.saw("ended", "complete")
    assert sharing._runs == {}


async def test_a_fault_is_masked_logged_once_and_everybodys_end() -> None:
    sharing, source = Sharing(), Source()
    readers = [Reader(sharing, source) for _ in range(3)]
    await settled()
    source.told.put_nowait(RuntimeError("the password is 1234"))
    bodies = []
    for reader in readers:
        await reader.saw("refused", "complete")
    context = Context(cast(Any, None), ADMIN)
    async with contextlib.aclosing(sharing.payloads("q", source.results, context, None)) as payloads:
        source.told.put_nowait(RuntimeError("the password is 1234"))
        bodies = [payload async for payload in payloads]
    assert [each.refusal for each in bodies] == [True]
    assert b"1234" not in bodies[0].body and b'"code":"INTERNAL"' in bodies[0].body
    assert sharing._runs == {}


async def test_who_leaves_is_not_written_to_and_the_last_one_ends_the_run() -> None:
    sharing, source = Sharing(), Source()
    one, other = Reader(sharing, source), Reader(sharing, source)
    await settled()
    one.task.cancel()
    source.tell("after")
    await other.saw("after")
    assert one.seen == [] and source.closed == 0
    await other.leave()
    assert (source.closed, sharing._runs) == (1, {})


async def test_leaving_in_the_middle_of_showing_leaves_nothing() -> None:
    sharing, source = Sharing(), Source()
    readers = [Reader(sharing, source) for _ in range(300)]
    await settled()
    source.tell("all")
    await readers[0].until(lambda: readers[0].seen)
    assert not readers[-1].seen  # others had their turn between two hundreds
    for reader in readers:
        reader.task.cancel()
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
    assert (source.closed, sharing._runs) == (1, {})

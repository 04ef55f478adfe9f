"""One execution for all who subscribe to the same: the same document, variables and role, in this process.

The first who asks begins a run; each result is executed and encoded once, and given to everybody whom it
concerns. Whoever comes later is shown how things are by the same run. A run ends with its last member.

What a run tells may depend on its role and on nothing else of a key: resolvers are given a viewer that has
neither id nor name.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from app.graphql.context import Context
from app.graphql.failures import INTERNAL, log_fault
from app.onlookers import Onlookers, Shown

AT_ONCE = 100  # members that are given something before others have their turn: some 2 ms

Results = AsyncGenerator[dict[str, Any], None]
Push = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Payload:
    """A result as JSON. A `refusal` has errors, no data, and nothing comes after it."""

    body: bytes
    refusal: bool = False


class _Member:
    """One subscription of a client: what waits for it, the newest of each topic and nothing older."""

    def __init__(self, push: Push | None) -> None:
        self._push = push
        self._waiting: dict[int, Payload] = {}
        self._wanted: asyncio.Future[None] | None = None
        self._last: Payload | None = None
        self._ended = False
        self.was_shown = False

    def give(self, topic: int, payload: Payload) -> None:
        """Hands it over at once, if everything before it is and the client reads; else it waits its turn."""
        self.was_shown = True
        idle = self._wanted is not None and not self._wanted.done()
        if not (idle and self._push is not None and self._push(payload.body)):
            self._waiting[topic] = payload
            self._wake()

    def end(self, last: Payload | None) -> None:
        """Nothing comes any more, but what waits and a last refusal."""
        self._ended, self._last = True, last
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def payloads(self) -> AsyncGenerator[Payload, None]:
        """What could not be handed over at once, as it can be taken."""
        while True:
            while self._waiting:
                yield self._waiting.pop(next(iter(self._waiting)))
            if self._ended:
                break
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        if self._last is not None:
            yield self._last


class _Run:
    """One execution, and those who are shown its results."""

    def __init__(self) -> None:
        self.onlookers = Onlookers()
        self._members: dict[int, _Member] = {}
        self.ended = False
        self._has_shown = False
        self.task: asyncio.Task[None]

    def join(self, push: Push | None) -> tuple[int, _Member]:
        """A new member and its number."""
        member = _Member(push)
        number = self.onlookers.arrive()
        self._members[number] = member
        return number, member

    def leave(self, number: int) -> bool:
        """Whether anybody is left."""
        self._members.pop(number, None)
        return bool(self._members)

    async def run(self, results: Callable[[], Results]) -> None:
        """Shows results until there are none, or nobody is left. A failure to begin is for those who had come
        then; a failure later, or a fault, for everybody."""
        come, last = self.onlookers.come, None
        try:
            last = await self._show_all(results(), come)
        except Exception as fault:
            come, last = self.onlookers.come, _masked(fault)
        finally:
            self.ended = True
        if self._has_shown and last is not None:
            come = self.onlookers.come
        for number, member in self._members.items():
            member.was_shown |= number <= come
            member.end(last if number <= come else None)

    async def _show_all(self, results: Results, come: int) -> Payload | None:
        """Shows them; gives the refusal that ended them. What the source says for nobody in particular is a
        failure of its own."""
        async with contextlib.aclosing(results):
            async for result in results:
                if "data" not in result:
                    return Payload(orjson.dumps(result), refusal=True)
                shown, self.onlookers.shown = self.onlookers.shown, None
                everybody = Shown(0, 1, self.onlookers.come if self._has_shown else come)
                await self._show(shown or everybody, Payload(orjson.dumps(result)))
                self._has_shown = True
        return None

    async def _show(self, shown: Shown, payload: Payload) -> None:
        concerned = [each for number, each in self._members.items() if shown.first <= number <= shown.last]
        for start in range(0, len(concerned), AT_ONCE):
            for member in concerned[start : start + AT_ONCE]:
                member.give(shown.topic, payload)
            await asyncio.sleep(0)


def _masked(fault: Exception) -> Payload:
    incident = log_fault(fault)
    error = {"message": "Internal error.", "extensions": {"code": INTERNAL, "incident": incident}}
    return Payload(orjson.dumps({"errors": [error]}), refusal=True)


class Sharing:
    """The runs of this process."""

    def __init__(self) -> None:
        self._runs: dict[Hashable, _Run] = {}

    async def payloads(
        self, question: Hashable, results: Callable[[Context], Results], context: Context, push: Push | None
    ) -> AsyncGenerator[Payload, None]:
        """What everybody is told who asks this with this role. `push` is tried first wherever a payload is at
        hand: only what it refuses is yielded. Close it."""
        key = (question, context.viewer.role)
        was_shown = False
        while not was_shown:  # a run may end before it has shown anything to who came last
            run = self._runs.get(key)
            if run is None or run.ended:
                run = self._runs[key] = self._begun(results, context)
            number, member = run.join(push)
            try:
                async with contextlib.aclosing(member.payloads()) as payloads:
                    async for payload in payloads:
                        yield payload
            finally:
                if not run.leave(number):
                    await self._end(key, run)
            was_shown = member.was_shown

    def _begun(self, results: Callable[[Context], Results], context: Context) -> _Run:
        run = _Run()
        nobody = replace(context.viewer, key_id="", name="")
        reading = context.reading and context.reading.for_everybody()
        shared = replace(context, viewer=nobody, onlookers=run.onlookers, loaders={}, reading=reading)
        run.task = asyncio.create_task(run.run(lambda: results(shared)))
        return run

    async def _end(self, key: Hashable, run: _Run) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]
        run.ended = True
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)

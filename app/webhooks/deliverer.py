"""One deliverer: finds what is due, holds endpoints by leases, posts, and writes how it ended.

Its turns read and write rows, some ten times a second; posts run beside them. The rows decide everything:
whatever a killed deliverer had in hand is due again for the next one, under the same id.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import sample, shuffle
from secrets import token_hex

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Database, is_infrastructure, now
from app.settings import Settings
from app.webhooks import bodies, delivering, dispatching, expanding, leases, service
from app.webhooks.delivering import Ending
from app.webhooks.leases import Outlook, Seen
from app.webhooks.models import Delivery, Endpoint
from app.webhooks.posting import Poster
from app.webhooks.routes import MOST_BODY_BYTES, Clock, Route
from app.webhooks.schedule import Health

log = structlog.get_logger(__name__)

SECONDS_BETWEEN_WRITES = 0.1
SECONDS_BETWEEN_LOOKS, SECONDS_WHEN_QUIET = 0.25, 0.5
SECONDS_UNTIL_QUIET = 10.0
SECONDS_WITHOUT_ENDPOINTS = 2.0
SECONDS_BETWEEN_RENEWALS = 3.0
SECONDS_TO_END_POSTS = 1.2
TAKEN_AT_ONCE = 4  # endpoints a look, so that deliverers share them
EXPANDED_AT_ONCE = 1_000
# Of bodies in hand, together 64 MB: half of it for whoever comes first, up to so much each, the other half in
# equal shares, so that endpoints that do not answer leave something to the others.
SHARED_BYTES, MOST_BYTES_EACH = 32_000_000, 8_000_000
LEAST_BYTES_EACH = 32_000_000 // service.MAX_ENDPOINTS
ROUNDS_OF_READING = 8
BYTES_AFTER_SPLIT = MOST_BODY_BYTES * 3 // 4  # events are not all of one size
CLOCK_SLACK = timedelta(milliseconds=5)


class Deliverer:
    """The endpoints that one process posts to. `turn` again and again; `close` once."""

    def __init__(self, database: Database, poster: Poster, settings: Settings, name: str) -> None:
        self._database = database
        self._poster = poster
        self._most_in_flight = settings.webhook_connections
        self._name = f"{name}~{token_hex(4)}"  # a successor of the same name must not pass for us
        self._clock = Clock()
        self._routes: dict[str, Route] = {}
        self._free: list[str] = []
        self._bell = asyncio.Event()
        self._next_look = self._next_renewal = self._stirred_at = 0.0

    @property
    def posting_to(self) -> int:
        """How many endpoints it has something in hand for."""
        return sum(route.is_busy() for route in self._routes.values())

    def wake(self) -> None:
        """There may be something to do: ends the wait."""
        self._bell.set()

    async def wait(self, seconds: float) -> None:
        """Waits so long, or until it is woken."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bell.wait(), seconds)

    async def turn(self) -> float:
        """Looks, writes and reads once; returns in how many seconds the next turn is due, at the latest."""
        begun = time.monotonic()
        self._bell.clear()
        if begun >= self._next_look:
            await self._look()
        await self._write()
        await self._expand([route for route in self._routes.values() if route.wants_expansion()])
        await self._read()
        if any(route.is_busy() for route in self._routes.values()):
            return begun + SECONDS_BETWEEN_WRITES - time.monotonic()
        return self._next_look - time.monotonic()

    async def close(self) -> None:
        """Waits a moment for posts in flight, writes how they ended, and gives every endpoint back. What was
        broken off is due again for whoever comes next."""
        await asyncio.gather(*(route.finish(SECONDS_TO_END_POSTS) for route in self._routes.values()))
        self._free = []
        await self._write(leaving=True)

    # --- looking

    async def _look(self) -> None:
        """Hands events to whoever wants them, and sees what became of our endpoints and which are free."""
        outlook, more = await self._outlook(), False
        if outlook.undispatched:
            more = await dispatching.dispatch(self._database) == dispatching.AT_ONCE
            outlook = await self._outlook()
        seen = {each.endpoint.endpoint_id: each for each in outlook.seen}
        for endpoint_id, route in list(self._routes.items()):
            self._see(route, seen.get(endpoint_id))
        free = [key for key, each in seen.items() if key not in self._routes and each.is_free(outlook.at)]
        shuffle(free)  # deliverers that look at the same time take different ones
        self._free = free[:TAKEN_AT_ONCE]
        if outlook.undispatched or self._routes or self._free:
            self._stirred_at = time.monotonic()
        self._next_look = time.monotonic() + (0.0 if more else self._pause(bool(outlook.seen)))

    def _pause(self, endpoints: bool) -> float:
        """Until the next look: idle, a look costs more than all else that a deliverer does."""
        if not endpoints:
            return SECONDS_WITHOUT_ENDPOINTS
        quiet = time.monotonic() - self._stirred_at > SECONDS_UNTIL_QUIET
        return SECONDS_WHEN_QUIET if quiet else SECONDS_BETWEEN_LOOKS

    async def _outlook(self) -> Outlook:
        async with self._database.read() as session:
            outlook = await leases.look(session)
        self._clock.set(outlook.at)
        return outlook

    def _see(self, route: Route, seen: Seen | None) -> None:
        if seen is None:
            route.stop()  # deleted; it is let go with the next writing
        elif seen.endpoint.leased_by != self._name:
            self._lose(route)
        else:
            route.adopt(seen.endpoint)
            route.see(seen.endpoint)
            route.queued, route.due = seen.queued, route.due or seen.due

    def _lose(self, route: Route) -> None:
        route.lose()
        self._routes.pop(route.key, None)
        log.warning("lost a webhook endpoint to another deliverer", endpoint=route.key)

    # --- writing

    async def _write(self, *, leaving: bool = False) -> None:
        """One transaction for all that is to be written now."""
        round_ = Round(
            leave=[route for route in self._routes.values() if leaving or route.may_leave()],
            ended={route: route.take_endings() for route in self._routes.values() if route.endings},
        )
        renews = bool(self._routes) and time.monotonic() >= self._next_renewal
        if not (round_.leave or round_.ended or self._free or renews):
            return
        try:
            async with self._database.transaction() as session:
                await self._write_in(session, round_)
        except BaseException:
            for route, endings in round_.ended.items():
                route.endings = endings + route.endings
            raise
        self._next_renewal = time.monotonic() + SECONDS_BETWEEN_RENEWALS
        self._go_on(round_)

    async def _write_in(self, session: AsyncSession, round_: "Round") -> None:
        at = await now(session)
        round_.mine = await leases.renew(session, self._name, list(self._routes), at)
        ours = {route: endings for route, endings in round_.ended.items() if route.key in round_.mine}
        await delivering.settle(session, [ending for endings in ours.values() for ending in endings], at)
        for key, endpoint in round_.mine.items():
            await self._note(session, self._routes[key], endpoint, round_)
        if self._free:
            round_.taken = await leases.take(session, self._name, self._free, at)
        if round_.leave:
            await leases.give_back(session, self._name, [route.key for route in round_.leave])

    async def _note(self, session: AsyncSession, route: Route, endpoint: Endpoint, round_: "Round") -> None:
        route.adopt(endpoint)
        if route.health != route.written_health:
            round_.noted[route] = route.health
            await delivering.note_health(session, route.key, route.health)
        if route.disable_because is not None:
            round_.disabled.append(route)
            if endpoint.enabled:
                await service.disable(session, endpoint.endpoint_id, route.disable_because)

    def _go_on(self, round_: "Round") -> None:
        """After the commit."""
        for route in list(self._routes.values()):
            if route.key not in round_.mine:
                self._lose(route)
        for route, health in round_.noted.items():
            route.written_health = health
        for route, endings in round_.ended.items():
            route.written(endings)
        for route in round_.disabled:
            route.disable_because = None
        for key, endpoint in round_.mine.items():
            self._routes[key].see(endpoint)
        for route in round_.leave:
            self._routes.pop(route.key, None)
        for endpoint in round_.taken:
            self._routes[endpoint.endpoint_id] = Route(
                endpoint, self._poster, self._clock, self._most_in_flight, self.wake
            )
        self._free = []

    # --- expanding

    async def _expand(self, routes: Sequence[Route]) -> None:
        """Makes deliveries of what waits in queues, in one transaction; if that is at fault, in one for each,
        so that a fault costs no other its turn. Without the lease it is done as well: by one at a time."""
        if not routes:
            return
        try:
            made = await self._expanded(routes)
        except Exception as error:
            if is_infrastructure(error):
                raise
            if len(routes) > 1:
                for route in routes:
                    await self._expand([route])
                return
            log.exception("the queue of a webhook endpoint could not be expanded", endpoint=routes[0].key)
            routes[0].expansion_failed()
        else:
            for route, count in made.items():
                route.expanded(count)

    async def _expanded(self, routes: Sequence[Route]) -> dict[Route, int]:
        made, room = dict[Route, int](), EXPANDED_AT_ONCE
        async with self._database.transaction() as session:
            for route in sample(routes, len(routes)):
                if room > 0:
                    want = min(room, route.expansion())
                    made[route] = await expanding.expand(session, route.endpoint, want)
                    room -= made[route]
        return made

    # --- reading

    async def _read(self) -> None:
        """Fills up what is ready, each endpoint in turn, a little at a time."""
        for _ in range(ROUNDS_OF_READING):
            fed = False
            for route in list(self._routes.values()):
                if room := route.room(self._most_bytes(route)):
                    fed = True
                    await self._feed(route, room)
                    await asyncio.sleep(0)  # posts go on
            if not fed:
                return

    def _most_bytes(self, route: Route) -> int:
        """How much this endpoint may have in hand now."""
        free = SHARED_BYTES - sum(each.bytes_in_hand for each in self._routes.values())
        return max(LEAST_BYTES_EACH, min(MOST_BYTES_EACH, route.bytes_in_hand + free))

    async def _feed(self, route: Route, room: int) -> None:
        at = self._clock.now() + CLOCK_SLACK
        async with self._database.read() as session:
            due = await delivering.due(session, route.key, at, room, route.in_hand)
            found = delivering.first_of(due, route.events_at_once())
            built = await _built(session, found) if found else {}
        route.due = len(due) == room or len(found) < len(due)
        large = [place for place, each in enumerate(found) if _is_large(each, built.get(each.id))]
        route.feed(found[: large[0]] if large else found, built, self._most_bytes(route))
        if large:
            route.due = True
            await self._split(found[large[0]], len(built[found[large[0]].id] or b""))

    async def _split(self, delivery: Delivery, size: int) -> None:
        """Before its first attempt, a delivery whose body would be too large becomes several."""
        events = max(1, delivery.size * BYTES_AFTER_SPLIT // size)
        async with self._database.transaction() as session:
            await delivering.split(session, self._name, delivery, events)


def _is_large(delivery: Delivery, body: bytes | None) -> bool:
    return body is not None and len(body) > MOST_BODY_BYTES and delivery.size > 1 and not delivery.attempts


async def _built(session: AsyncSession, found: Sequence[Delivery]) -> dict[str, bytes | None]:
    """The bodies; without those at which building fails, so that one costs no other its turn."""
    try:
        return await bodies.build(session, found)
    except Exception as error:
        if is_infrastructure(error):
            raise
        if len(found) == 1:
            log.exception("the body of a webhook could not be built", delivery=found[0].id)
            return {}
    built: dict[str, bytes | None] = {}
    for delivery in found:
        built |= await _built(session, [delivery])
    return built


@dataclass
class Round:
    """What one transaction writes, and what it found."""

    leave: list[Route]
    ended: dict[Route, list[Ending]]
    mine: dict[str, Endpoint] = field(default_factory=dict)
    noted: dict[Route, Health] = field(default_factory=dict)
    disabled: list[Route] = field(default_factory=list)
    taken: list[Endpoint] = field(default_factory=list)

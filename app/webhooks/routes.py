"""What one deliverer has in hand for one endpoint: bodies that are ready, posts in flight, how posts ended.

Each endpoint has its own room and its own connections, so that a slow one takes nothing from another.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from app.webhooks import signing
from app.webhooks.delivering import Ending, health_of
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint
from app.webhooks.posting import Attempt, Poster
from app.webhooks.schedule import HEALTHY, is_too_late, next_attempt

MOST_READY = 1_000
LEAST_EXPANDED = 40
# Read and built at a time, while no post moves: events, and bytes if they are as large as the last ones.
MOST_EVENTS_AT_ONCE, MOST_BYTES_AT_ONCE = 2_000, 4_000_000
USUAL_EVENT_BYTES = 4_000  # until one was built
BYTES_A_DELIVERY = 2_000  # that it takes beside its body
MOST_BODY_BYTES = 1_000_000  # what many servers take by default; a batch that would be larger is split
SECONDS_WITHOUT_EXPANSION = 30.0  # after a fault of it
SECONDS_TO_STAY = 2.0  # how long an idle endpoint is held: what comes next finds it ready
SECONDS_FRESH = 2.0  # nothing is posted by what was known longer ago: it may be deleted, or another's
GONE = "It answered 410 Gone. Enable it once it takes posts again."
NOTHING_LEFT = "Nothing is left to tell: what it was about has been deleted."
FAULT = "A fault of Carillon's: the body could not be built. The log of the deliverer says more."
TOO_LATE = "Not delivered within three days of its creation."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The database's clock as it was last read, and what has passed since."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def set(self, at: datetime) -> None:
        """It is `at` now."""
        self._offset = at.timestamp() - time.monotonic()

    def now(self) -> datetime:
        """What the database would say."""
        return _EPOCH + timedelta(seconds=self._offset + time.monotonic())


class Route:
    """An endpoint that we hold the lease of. `endings` wait to be written; `wake` is called when some do."""

    def __init__(
        self, endpoint: Endpoint, poster: Poster, clock: Clock, most_in_flight: int, wake: Callable[[], None]
    ) -> None:
        self.endpoint = endpoint
        self.health = self.written_health = health_of(endpoint)
        self.disable_because: str | None = None
        self.endings: list[Ending] = []
        self.queued = self.due = True  # whether there may be more in the rows
        self._busy_at = time.monotonic()
        self._poster, self._clock, self._wake = poster, clock, wake
        self._most_in_flight = most_in_flight
        self._ready: deque[tuple[Delivery, bytes]] = deque()
        self._in_hand: dict[str, int] = {}  # id -> bytes: ready, in flight, or ended and not yet written
        self.bytes_in_hand = 0
        self._event_bytes = USUAL_EVENT_BYTES
        self._expands_at = 0.0
        self._posts: set[asyncio.Task[None]] = set()
        self._stopped = self._leaves = False
        self._enablings = 0
        self._seen_at = time.monotonic()

    # --- what the rows say

    @property
    def key(self) -> str:
        """Its endpoint's id."""
        return self.endpoint.endpoint_id

    def see(self, endpoint: Endpoint) -> None:
        """Goes on by what its row says now."""
        self.endpoint = endpoint
        self._seen_at = time.monotonic()
        if not endpoint.enabled or endpoint.deleted_at is not None:
            self.stop()
        self.begin()

    def adopt(self, endpoint: Endpoint) -> None:
        """Believes its row where somebody else has written it: whoever enables an endpoint forgives it, and a
        test, a redelivery or a new URL ends its rest."""
        if endpoint.enabled and not self.endpoint.enabled:
            self._forgive()
        if (told := health_of(endpoint)) != self.written_health:
            self.written_health = told
            self.health = HEALTHY if self.health == HEALTHY else told

    def _forgive(self) -> None:
        """It was enabled: what was posted before says nothing about it any more."""
        self._enablings += 1
        self.disable_because = None
        self._stopped = self._leaves
        self.queued = self.due = True

    def stop(self) -> None:
        """Begins nothing more. What is in flight ends as it ends."""
        self._stopped = True
        self._drop_ready()

    def lose(self) -> None:
        """The lease is another's: what is not written yet is for him to find out."""
        self._leaves = True
        self.stop()
        self.written(self.take_endings())

    # --- what is in hand

    @property
    def in_hand(self) -> Collection[str]:
        """The ids of deliveries that must not be read again now."""
        return self._in_hand.keys()

    def is_busy(self) -> bool:
        """Whether something is ready, in flight, or to be written."""
        return bool(self._in_hand)

    def may_leave(self) -> bool:
        """Whether it is to be given back: nothing is in hand, and nothing will be for a while."""
        if self._in_hand:
            return False
        if self._stopped or self._rests_now():
            return True
        return not self.queued and not self.due and time.monotonic() - self._busy_at > SECONDS_TO_STAY

    def wants_expansion(self) -> bool:
        """Whether what waits in its queue is needed now."""
        ready = len(self._ready) > MOST_READY // 2 or time.monotonic() < self._expands_at
        return self.queued and not (self.due or ready or self._stopped or self._rests_now())

    def expanded(self, made: int) -> None:
        """So many deliveries were made of its queue."""
        self.queued = self.due = made > 0

    def expansion_failed(self) -> None:
        """By a fault of Carillon's, which is not to be met ten times a second."""
        self._expands_at = time.monotonic() + SECONDS_WITHOUT_EXPANSION

    def expansion(self) -> int:
        """How many deliveries are to be made of its queue."""
        return 1 if self.health.rests else max(LEAST_EXPANDED, MOST_READY // self.endpoint.batch_size)

    def _rests_now(self) -> bool:
        until = self.health.rests_until
        return self.health.rests and until is not None and until > self._clock.now()

    def room(self, most_bytes: int) -> int:
        """How many deliveries may be read now; 0 while enough are ready."""
        if self._stopped or self.bytes_in_hand >= most_bytes:
            return 0
        if self.health.rests:
            return 0 if self._rests_now() or self._in_hand or not self.due else 1  # one, as a probe
        if not self.due or len(self._ready) > MOST_READY // 2:
            return 0
        return min(MOST_READY - len(self._ready), max(1, self.events_at_once() // self.endpoint.batch_size))

    def events_at_once(self) -> int:
        """How many events may be read and built now, by how large the last ones were."""
        return max(1, min(MOST_EVENTS_AT_ONCE, MOST_BYTES_AT_ONCE // self._event_bytes))

    def feed(
        self, deliveries: Sequence[Delivery], bodies: Mapping[str, bytes | None], most_bytes: int
    ) -> None:
        """Takes deliveries that are due, in order, each with its body; None: nothing is left to tell. One
        without was at fault, and comes again later. Those for which there is no room stay due; what is
        taken exceeds `most_bytes` by one at most."""
        self._learn(deliveries, bodies)
        at = self._clock.now()
        for delivery in deliveries:
            if self.bytes_in_hand >= most_bytes:
                self.due = True
                break
            body = bodies.get(delivery.id, b"")
            self._in_hand[delivery.id] = size = len(body or b"") + BYTES_A_DELIVERY
            self.bytes_in_hand += size
            if delivery.id not in bodies:
                self._postpone(delivery, at)
            elif body is None:
                self._give_up(delivery, NOTHING_LEFT)
            elif is_too_late(delivery.gives_up_at, at):
                self._give_up(delivery, TOO_LATE)
            else:
                self._ready.append((delivery, body))
        self.begin()

    def _learn(self, deliveries: Sequence[Delivery], bodies: Mapping[str, bytes | None]) -> None:
        """How large its events are."""
        if deliveries:
            size = sum(len(bodies.get(delivery.id) or b"") for delivery in deliveries)
            self._event_bytes = max(1, size // sum(delivery.size for delivery in deliveries))

    def take_endings(self) -> list[Ending]:
        """What is to be written now. Call `written` afterwards, or put them back into `endings`."""
        taken, self.endings = self.endings, []
        return taken

    def written(self, endings: Sequence[Ending]) -> None:
        """Their rows say how they ended."""
        for ending in endings:
            self.bytes_in_hand -= self._in_hand.pop(ending.delivery_id, 0)
        self._busy_at = time.monotonic()

    # --- posting

    def begin(self) -> None:
        """Begins posts, in order, as many as may be in flight."""
        for _ in range(min(self._most_in_flight - len(self._posts), len(self._ready))):
            post = asyncio.create_task(self._post())
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    async def finish(self, seconds: float) -> None:
        """Begins nothing more and waits for what is in flight, so long at most; the rest is broken off."""
        self._leaves = True
        self.stop()
        if self._posts:
            _, late = await asyncio.wait(self._posts, timeout=seconds)
            for post in late:
                post.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _post(self) -> None:
        """One post after the other, until none is ready: fewer tasks than posts."""
        while self._may_begin() and self._ready:
            delivery, body = self._ready.popleft()
            probe, enablings = self.health.rests, self._enablings
            endpoint, at = self.endpoint, self._clock.now()
            headers = signing.headers(delivery.id, body.decode(), at, signing.secrets_of(endpoint, at))
            attempt = await self._poster.post(endpoint.url, body, headers, at)
            self._ended(delivery, attempt, probe, forgiven=enablings != self._enablings)

    def _may_begin(self) -> bool:
        return not self._stopped and time.monotonic() - self._seen_at < SECONDS_FRESH

    def _ended(self, delivery: Delivery, attempt: Attempt, probe: bool, forgiven: bool) -> None:
        if attempt.delivered:
            self.health = HEALTHY
            self.endings.append(
                Ending(delivery.id, DeliveryStatus.DELIVERED, 1, attempt.status_code, None, None)
            )
        else:
            at = self._clock.now()
            self._comes_again(delivery, attempt, at)
            if not forgiven:
                self._ails(attempt, probe, at)
        if not self._ready:
            self._wake()

    def _comes_again(self, delivery: Delivery, attempt: Attempt, at: datetime) -> None:
        again = next_attempt(delivery.attempts + 1, at, delivery.gives_up_at, attempt.retry_after)
        status = DeliveryStatus.FAILED if again is None else DeliveryStatus.PENDING
        self.endings.append(Ending(delivery.id, status, 1, attempt.status_code, attempt.error, again))

    def _ails(self, attempt: Attempt, probe: bool, at: datetime) -> None:
        self.health = self.health.after_failure(at, probe=probe)
        if attempt.gone:
            self._disable(GONE)
        elif self.health.worn_out(at):
            self._disable(f"It did nothing but fail for a day; the last time: {attempt.error}")
        elif self.health.rests:
            self._drop_ready()

    def _postpone(self, delivery: Delivery, at: datetime) -> None:
        again = next_attempt(delivery.attempts + 1, at, delivery.gives_up_at)
        status = DeliveryStatus.FAILED if again is None else DeliveryStatus.PENDING
        self.endings.append(Ending(delivery.id, status, 1, None, FAULT, again))

    def _give_up(self, delivery: Delivery, why: str) -> None:
        self.endings.append(Ending(delivery.id, DeliveryStatus.FAILED, 0, None, why, None))

    def _disable(self, reason: str) -> None:
        self.disable_because = self.disable_because or reason
        self.stop()

    def _drop_ready(self) -> None:
        """Forgets what is ready; its rows are due as before."""
        for delivery, _ in self._ready:
            self.bytes_in_hand -= self._in_hand.pop(delivery.id, 0)
        self._ready.clear()
        self.due = True

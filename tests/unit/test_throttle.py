"""What campaigns get of the server's limit: proven with workers whose time is counted, not waited for."""

import heapq
import random
from collections.abc import Collection, Mapping
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sending.throttle import (
    SERVER,
    SLICE_SECONDS_BESIDE_OTHERS,
    Limits,
    grant,
    limits_of,
    share_of,
    shares,
)

SERVER_LIMIT = 2_000
SECONDS = 40.0


@given(st.integers(1, 10_000), st.lists(st.none() | st.integers(1, 10_000), min_size=1, max_size=30))
def test_nobody_could_have_more_but_by_taking_it_from_who_has_less(
    server: int, given_limits: list[int | None]
) -> None:
    needs = {number: limit or server for number, limit in enumerate(given_limits, 1)}
    found = shares(server, dict(enumerate(given_limits, 1)))
    assert found.keys() == needs.keys()
    assert sum(found.values()) == pytest.approx(min(server, sum(needs.values())))
    most = max(found.values())
    for number, share in found.items():
        assert share == pytest.approx(needs[number]) or (
            share < needs[number] and share == pytest.approx(most)
        )


class Server:
    """Rate rows, and workers that take each campaign in turn: a slice lasts `seconds`, more or less. Until
    `idle_until` those that are `idle` have nothing to send."""

    def __init__(
        self,
        paces: Mapping[int, int | None],
        workers: int,
        seconds: float,
        *,
        idle: Collection[int] = (),
        idle_until: float = inf,
    ) -> None:
        self.dice = random.Random(len(paces))
        self.rows: dict[int, float] = {}
        self.sent: list[tuple[float, int, int]] = []  # at, campaign, messages
        self._paces = paces
        self._idle, self._idle_until = idle, idle_until
        self._seconds = seconds
        self._due = [(self.dice.random() / 100, worker) for worker in range(workers)]
        self._used = [dict.fromkeys(paces, 0.0) for _ in range(workers)]
        self._free_at: list[dict[int, float]] = [{} for _ in range(workers)]
        self.limits = self._limits(0.0)

    def _limits(self, at: float) -> dict[int, Limits]:
        idle = self._idle if at < self._idle_until else ()
        busy = {number: pace for number, pace in self._paces.items() if number not in idle}
        found = shares(SERVER_LIMIT, busy)
        return {number: limits_of(number, pace, SERVER_LIMIT, found) for number, pace in busy.items()}

    def share(self, number: int) -> float:
        """Messages a second; all that there are if there is nobody else."""
        return self.limits[number].share or SERVER_LIMIT

    def run(self) -> None:
        heapq.heapify(self._due)
        while (due := heapq.heappop(self._due))[0] < SECONDS:
            heapq.heappush(self._due, (due[0] + self._turn(*due), due[1]))

    def _turn(self, at: float, worker: int) -> float:
        """One campaign's, as the engine has it: of those whose time has come that which had least."""
        used, free_at = self._used[worker], self._free_at[worker]
        if at >= self._idle_until:
            self.limits = self._limits(at)
        waits = {
            number: limits.wait({scope: free_at.get(scope, 0.0) - at for scope in limits.by_scope})
            for number, limits in self.limits.items()
        }
        ready = [number for number in waits if waits[number] <= 0]
        if not ready:
            return min(waits.values()) + self.dice.random() / 500
        number = min(ready, key=lambda each: used[each])
        before = {scope: self.rows.get(scope, at) - at for scope in self.limits[number].by_scope}
        messages, after = grant(self.limits[number], before)
        free_at |= {scope: at + wait for scope, wait in after.items()}
        took = self._seconds * self.dice.uniform(0, 2) * (1.0 if messages else 0.25)
        used[number] = max(used[number], min(used.values())) + took
        if messages:
            self.rows |= {scope: at + wait for scope, wait in after.items()}
            self.sent.append((at, number, messages))
        return took

    def rate(self, number: int, since: float = 5.0, until: float = SECONDS) -> float:
        """Messages a second in that time."""
        mine = [messages for at, each, messages in self.sent if each == number and since < at <= until]
        return sum(mine) / (until - since)

    def most_in_ten_seconds(self) -> int:
        return max(
            sum(messages for at, _, messages in self.sent if begin <= at <= begin + 10)
            for begin, _, _ in self.sent[::20]
        )


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seconds", [0.002, 0.01])
@pytest.mark.parametrize(
    "paces",
    [
        [None, 500],
        [None, 5],
        [None, None, None],
        [None, None, 500, 100, 5, 1],
        [1_500, 1_500],
        [300] * 10,
        [None] * 12,
        [None] * 3 + [20] * 12,
        [None] * 12 + [5],
        [None] * 20 + [5, 3],
        [None] * 15 + [5] * 2 + [100],
    ],
    ids=str,
)
def test_each_campaign_gets_its_share_and_all_together_the_limit(
    paces: list[int | None], seconds: float, workers: int
) -> None:
    server = Server(dict(enumerate(paces, 1)), workers, seconds)
    server.run()
    got = {number: server.rate(number) / server.share(number) for number in server.limits}
    assert min(got.values()) >= 0.9, got
    assert sum(map(server.rate, got)) >= 0.97 * SERVER_LIMIT
    assert server.most_in_ten_seconds() <= 10.4 * SERVER_LIMIT
    for number, limits in server.limits.items():
        assert server.rate(number) <= 1.05 * (limits.own or SERVER_LIMIT)


def test_who_has_nothing_to_send_leaves_it_to_the_others() -> None:
    server = Server({1: None, 2: None, 3: 400, **dict.fromkeys(range(4, 20))}, 2, 0.005, idle=range(4, 20))
    server.run()
    assert server.rate(3) >= 0.9 * 400
    assert min(server.rate(1), server.rate(2)) >= 0.9 * 800


@pytest.mark.parametrize("others", [9, 99])
def test_who_took_what_others_left_owes_them_nothing(others: int) -> None:
    """It had one a second for as long as it had sent alone, up to minutes."""
    idle = range(2, 2 + others)
    server = Server({1: None, **dict.fromkeys(idle)}, 2, 0.002, idle=idle, idle_until=15.0)
    server.run()
    assert server.rate(1, 5, 15) >= 0.97 * SERVER_LIMIT
    period = (others + 1) * SLICE_SECONDS_BESIDE_OTHERS
    assert server.rate(1, 15, 15 + 2 * period) >= 0.4 * SERVER_LIMIT / (others + 1)


@pytest.mark.parametrize(
    ("waits", "limits", "expected"),
    [
        ({}, Limits(7, None, 100), 0.0),
        ({SERVER: 0.3}, Limits(7, None, 100), 0.3),
        ({SERVER: 0.3, 7: 0.5}, Limits(7, 10, 100), 0.5),
        ({7: 0.5}, Limits(7, 10, None), 0.5),
        # beside others
        ({SERVER: 0.3, share_of(7): -1.0}, Limits(7, None, 100, 50.0), 0.3),
        ({SERVER: 0.3, share_of(7): 0.32}, Limits(7, None, 100, 50.0), 0.32),
        ({SERVER: 0.3, share_of(7): 90.0}, Limits(7, None, 100, 50.0), 0.35),
        ({SERVER: 0.3, share_of(7): 0.0, 7: 0.5}, Limits(7, 80, 100, 50.0), 0.5),
        ({SERVER: 0.3, 7: 0.0}, Limits(7, 10, 100, 10.0), 0.2),  # it may have all that it may send
        ({SERVER: 0.0, 7: 0.15}, Limits(7, 10, 100, 10.0), 0.15),
    ],
)
def test_who_has_had_his_share_lets_others_go_before(
    waits: Mapping[int, float], limits: Limits, expected: float
) -> None:
    everything = dict.fromkeys(limits.by_scope, 0.0) | waits
    assert limits.wait(everything) == pytest.approx(expected)


@pytest.mark.parametrize("ahead", [600.0, 60.0])
@pytest.mark.parametrize("scope", [SERVER, 7, share_of(7)])
def test_a_row_that_no_slice_can_have_set_counts_as_due(scope: int, ahead: float) -> None:
    """The clock was set back, or the share has grown since."""
    limits = Limits(7, 80, 100, 50.0)
    rows = {SERVER: 0.0, 7: 0.0, share_of(7): 0.0}
    assert grant(limits, rows | {scope: ahead}) == grant(limits, rows)


def test_a_small_share_is_waited_for_however_long_unless_others_leave_theirs() -> None:
    limits = Limits(7, None, 1_000, 1.0)
    messages, waits = grant(limits, dict.fromkeys(limits.by_scope, 0.0))
    assert (messages, waits[share_of(7)]) == (100, 100.0)
    assert grant(limits, waits)[0] == 0
    assert grant(limits, waits | {SERVER: 0.0})[0] == 0
    messages, waits = grant(limits, waits | {SERVER: -0.06})
    assert (messages, waits[share_of(7)]) == (160, 160.0)


def test_of_a_limit_far_above_what_can_be_sent_no_more_is_reserved_than_a_batch() -> None:
    assert grant(Limits(7, None, 1_000_000), {SERVER: 0.0}) == (3_000, {SERVER: 0.003})

"""Wrong keys: how many an address may try, and who is never kept waiting."""

import asyncio

import pytest

from app.keys import guessing
from app.keys.guessing import Guesses


class Clock:
    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(guessing, "time", clock)
    return clock


def tries(guesses: Guesses, address: str, number: int) -> int:
    """How many of so many wrong keys are looked at."""
    looked_at = 0
    for each in range(number):
        if not guesses.wait(address, f"wrong {each}"):
            looked_at += 1
            guesses.wrong(address, f"wrong {each}")
    return looked_at


def test_ten_a_minute_are_looked_at(clock: Clock) -> None:
    guesses = Guesses(10)
    assert tries(guesses, "192.0.2.1", 50) == 10
    assert guesses.wait("192.0.2.1", "x") == pytest.approx(6)
    clock.now += 6.001
    assert tries(guesses, "192.0.2.1", 50) == 1
    clock.now += 3_600
    assert tries(guesses, "192.0.2.1", 50) == 10


def test_addresses_are_told_apart_and_ipv6_by_network() -> None:
    guesses = Guesses(10)
    assert tries(guesses, "192.0.2.1", 50) == 10
    assert tries(guesses, "::ffff:192.0.2.1", 50) == 0
    assert tries(guesses, "192.0.2.2", 50) == 10
    assert tries(guesses, "2001:db8::1", 50) == 10
    assert tries(guesses, "2001:db8::ffff:0:1", 50) == 0
    assert tries(guesses, "2001:db8:0:1::1", 50) == 10
    assert tries(guesses, "", 50) == 10


def test_right_keys_cost_nothing_and_stay_welcome_where_they_were_right(clock: Clock) -> None:
    guesses = Guesses(10)
    for each in range(50):
        assert not guesses.wait("192.0.2.1", f"key {each}")
        guesses.right("192.0.2.1", f"key {each}")
    assert tries(guesses, "192.0.2.1", 50) == 10
    assert not guesses.wait("192.0.2.1", "key 7")  # somebody behind the same proxy
    guesses.right("192.0.2.1", "key 7")
    assert guesses.wait("192.0.2.1", "a new key") == pytest.approx(6)
    assert not guesses.wait("192.0.2.9", "key 7")  # unknown there: a guess, as long as there are any
    guesses.wrong("192.0.2.1", "key 7")  # revoked
    assert guesses.wait("192.0.2.1", "key 7") == pytest.approx(12)


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "MAX_ADDRESSES", 3)
    monkeypatch.setattr(guessing, "MAX_KNOWN", 3)
    guesses = Guesses(10)
    for each in range(50):
        guesses.wrong(f"192.0.2.{each}", "x")
        guesses.right(f"192.0.2.{each}", "x")
    assert len(guesses._left) == len(guesses._known) == 3


async def test_many_at_once_take_turns_and_leave_nothing() -> None:
    guesses, looked_at = Guesses(10), 0

    async def guess(key: str) -> None:
        nonlocal looked_at
        async with guesses.turn("192.0.2.1"):
            if not guesses.wait("192.0.2.1", key):
                looked_at += 1
                await asyncio.sleep(0)
                guesses.wrong("192.0.2.1", key)

    await asyncio.gather(*(guess(f"wrong {each}") for each in range(100)))
    assert looked_at == 10
    assert guesses._turns == {}

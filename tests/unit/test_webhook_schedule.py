"""When attempts come again, and when an endpoint rests: for whatever numbers."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.schedule import (
    BACKOFF,
    HEALTHY,
    LONGEST_REST,
    LONGEST_RETRY_AFTER,
    Health,
    is_too_late,
    next_attempt,
    retry_after,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
THREE_DAYS = timedelta(days=3)
CHANCES = st.floats(0, 1, exclude_max=True)


@given(
    attempts=st.integers(1, 1_000),
    chance=CHANCES,
    left=st.timedeltas(timedelta(seconds=-9), THREE_DAYS - sum(BACKOFF[:7], timedelta()) / 2),
)
def test_the_next_attempt_is_within_its_step_and_never_after_the_end(
    attempts: int, chance: float, left: timedelta
) -> None:
    ends = NOW + left
    again = next_attempt(attempts, NOW, ends, chance=lambda: chance)
    if left <= timedelta(0):
        assert again is None
        return
    step = BACKOFF[min(attempts, len(BACKOFF)) - 1]
    assert again is not None
    assert again == ends or NOW + step / 2 <= again <= NOW + step
    assert NOW < again <= ends


@given(chances=st.lists(CHANCES, min_size=1, max_size=50), before=st.integers(0, 60))
def test_attempts_go_on_for_three_days_and_end_then(chances: list[float], before: int) -> None:
    """As often after a redelivery, however many attempts were made before it."""
    at, ends, attempts, chance = NOW, NOW + THREE_DAYS, 0, cycle(chances).__next__
    gaps = list[timedelta]()
    while True:
        attempts += 1
        again = next_attempt(before + attempts, at, ends, chance=chance)
        if again is None:
            break
        # anew it is by time that a step is reached: lucky chances skip none, unlucky ones may skip some
        assert again == ends or again - at >= BACKOFF[min(attempts, len(BACKOFF)) - 1] / 2
        if not before:
            assert again - at <= BACKOFF[min(attempts, len(BACKOFF)) - 1]
        gaps.append(again - at)
        at = again
    assert at == ends  # the last attempt is made when the time is up
    assert BACKOFF[0] / 2 <= gaps[0] <= BACKOFF[0]
    assert 18 <= attempts <= 48
    assert max(gaps) <= timedelta(hours=4)


@given(
    asked=st.timedeltas(timedelta(seconds=1), LONGEST_RETRY_AFTER),
    chance=CHANCES,
    attempts=st.integers(1, 99),
)
def test_what_the_receiver_asks_for_is_granted_and_little_more(
    asked: timedelta, chance: float, attempts: int
) -> None:
    again = next_attempt(attempts, NOW, NOW + THREE_DAYS, asked, chance=lambda: chance)
    assert again is not None
    assert NOW + asked <= again <= NOW + asked * 1.1 + timedelta(microseconds=1)


def test_what_is_asked_for_beyond_the_end_is_the_end() -> None:
    ends = NOW + timedelta(minutes=1)
    assert next_attempt(1, NOW, ends, timedelta(minutes=2)) == ends
    assert next_attempt(2, ends, ends, timedelta(minutes=2)) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(seconds=1)),
        ("999999999999999999999999", None),
        ("86401", LONGEST_RETRY_AFTER),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), timedelta(minutes=5)),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), timedelta(seconds=1)),
        ("Sat, 21 Nov 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Sat, 21 Nov 9999 12:00:30 GMT", LONGEST_RETRY_AFTER),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("Sat, 99 Nov 2026 12:00:30 GMT", None),
        ("²", None),
        ("1" * 200, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: timedelta | None) -> None:
    assert retry_after(header, NOW) == expected


@given(st.text(max_size=120))
def test_whatever_stands_in_retry_after_it_is_bounded_or_ignored(header: str) -> None:
    asked = retry_after(header, NOW)
    assert asked is None or timedelta(seconds=1) <= asked <= LONGEST_RETRY_AFTER


def failed(times: int, *, every: timedelta = timedelta(seconds=1)) -> tuple[Health, datetime]:
    """An endpoint that has failed so often, and when it did so last."""
    health, at = HEALTHY, NOW
    for _ in range(times):
        health, at = health.after_failure(at), at + every
    return health, at - every


def test_it_rests_after_ten_failures_in_a_row_then_twice_as_long_up_to_five_minutes() -> None:
    assert not failed(9)[0].rests
    rests = []
    for times in range(10, 25):
        health, at = failed(times)
        assert health.rests and health.rests_until is not None
        rests.append((health.rests_until - at).total_seconds())
    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300, 300, 300]


def test_posts_that_were_in_flight_when_it_was_sent_to_rest_change_nothing() -> None:
    health, at = failed(10)
    for _ in range(90):
        assert health.after_failure(at, probe=False) == health
    assert health.after_failure(at, probe=True).failures == 11


@given(st.lists(st.timedeltas(timedelta(0), timedelta(days=2)), max_size=40), st.booleans())
def test_no_rest_is_longer_than_five_minutes(pauses: list[timedelta], probe: bool) -> None:
    health, at = HEALTHY, NOW
    for pause in pauses:
        at += pause
        health = health.after_failure(at, probe=probe or not health.rests)
        assert health.rests_until is not None and health.rests_until - at <= LONGEST_REST


def test_a_day_of_nothing_but_failures_wears_it_out() -> None:
    health, at = failed(10, every=timedelta(hours=1))
    assert not health.worn_out(at)
    assert not health.worn_out(NOW + timedelta(hours=23, minutes=59))
    assert health.worn_out(NOW + timedelta(days=1))
    assert not failed(9)[0].worn_out(NOW + timedelta(days=2))  # too few to tell


@pytest.mark.parametrize("before", [1, 9, 10, 30])
def test_a_day_in_which_nobody_posted_is_no_day_of_failures(before: int) -> None:
    """Carillon was off: the day begins anew."""
    health, at = failed(before)
    back = at + timedelta(days=2)
    for minutes in range(20):
        health = health.after_failure(back + timedelta(minutes=minutes))
        assert not health.worn_out(back + timedelta(minutes=minutes))
    assert health.failing_since == back and health.failures == before + 20
    for hours in range(4, 25, 4):
        health = health.after_failure(back + timedelta(hours=hours))
    assert health.worn_out(back + timedelta(days=1))


def test_whoever_ends_a_rest_begins_the_day_anew() -> None:
    health, at = failed(20, every=timedelta(hours=2))
    assert health.worn_out(at)
    again = replace(health, rests_until=None).after_failure(at)
    assert (again.failures, again.failing_since, again.worn_out(at)) == (21, at, False)


def test_a_delivery_whose_time_was_long_up_is_not_attempted() -> None:
    assert not is_too_late(NOW, NOW)
    assert not is_too_late(NOW, NOW + timedelta(minutes=59))
    assert is_too_late(NOW, NOW + timedelta(minutes=61))

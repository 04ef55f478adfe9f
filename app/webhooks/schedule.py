"""When an attempt comes again, when an endpoint rests, and when it is given up; times come from outside."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import random

GIVES_UP_AFTER = timedelta(days=3)  # of its creation, or of its redelivery
BACKOFF = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400))
LONGEST_RETRY_AFTER = timedelta(days=1)
FAILURES_BEFORE_REST = 10
FIRST_REST, LONGEST_REST = timedelta(seconds=1), timedelta(minutes=5)
DAYS_OF_FAILURES = timedelta(days=1)
LONGEST_BETWEEN_FAILURES = timedelta(hours=5)  # retries are four hours apart at most
LATE = timedelta(hours=1)

Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint: `failures` in a row (those in flight when it was sent to rest are not
    counted), since when it has been `failing_since` without a pause of five hours, and until when it rests;
    before its first rest, when it failed the last time. None there: somebody ended its rest."""

    failures: int = 0
    failing_since: datetime | None = None
    rests_until: datetime | None = None

    @property
    def rests(self) -> bool:
        """Whether it is posted to one at a time, as a probe, and only when its rest is over."""
        return self.failures >= FAILURES_BEFORE_REST

    def worn_out(self, at: datetime) -> bool:
        """Whether it did nothing but fail for a day, which is the end of it. A day in which nobody posted to
        it, since Carillon was off, is none."""
        return self.rests and self.failing_since is not None and at - self.failing_since >= DAYS_OF_FAILURES

    def after_failure(self, at: datetime, *, probe: bool = True) -> "Health":
        """After another failure. While it rests only a probe's counts: a hundred posts that were in flight
        together are one outage, not a hundred."""
        if self.rests and not probe:
            return self
        failing = Health(self.failures + 1, self._goes_on_failing(at), at)
        if not failing.rests:
            return failing
        rest = min(FIRST_REST * 2 ** min(failing.failures - FAILURES_BEFORE_REST, 20), LONGEST_REST)
        return replace(failing, rests_until=at + rest)

    def _goes_on_failing(self, at: datetime) -> datetime:
        """Since when, if it fails now."""
        if self.failing_since is None or self.rests_until is None:
            return at
        return self.failing_since if at - self.rests_until <= LONGEST_BETWEEN_FAILURES else at


HEALTHY = Health()


def next_attempt(
    attempts: int,
    at: datetime,
    gives_up_at: datetime,
    retry_after: timedelta | None = None,
    chance: Chance = random,
) -> datetime | None:
    """When a delivery that has failed `attempts` times, now, is attempted again; None: never.

    What the receiver asks for is granted, and a little more, so that what failed together does not come back
    together. Otherwise it is half of the step to all of it. The last attempt is made when the time is up.
    """
    if at >= gives_up_at:
        return None
    if retry_after is not None:
        wait = retry_after * (1 + chance() / 10)
    else:
        wait = BACKOFF[_step(attempts, at - (gives_up_at - GIVES_UP_AFTER))] * (1 + chance()) / 2
    return min(at + wait, gives_up_at)


def _step(attempts: int, age: timedelta) -> int:
    """Which step of the backoff comes next. `attempts` count those before a redelivery, too, which begins
    anew: so it is no later one than can have been reached within `age`, at half of each step."""
    retries = min(max(attempts, 1), len(BACKOFF)) - 1
    return next((step for step in range(retries) if age * 2 < sum(BACKOFF[: step + 1], timedelta())), retries)


def is_too_late(gives_up_at: datetime, at: datetime) -> bool:
    """Whether a due delivery's time was up before anybody got to attempt it the last time: the endpoint was
    disabled, or nobody delivered."""
    return at - gives_up_at > LATE


def retry_after(header: str | None, at: datetime) -> timedelta | None:
    """What a Retry-After header asks for, seconds or a date; between a second and a day. None: nothing that
    can be understood."""
    if header is None or len(header) > 100:
        return None
    try:
        asked = timedelta(seconds=int(header)) if header.strip().isdecimal() else _date(header) - at
    except (ValueError, OverflowError):
        return None
    return min(max(asked, timedelta(seconds=1)), LONGEST_RETRY_AFTER)


def _date(header: str) -> datetime:
    date = parsedate_to_datetime(header)
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)

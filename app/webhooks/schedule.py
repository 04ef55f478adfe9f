"""When an attempt comes again, when an endpoint rests, and when it is given up; times come from outside."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import random

BACKOFF = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400))
LONGEST_RETRY_AFTER = timedelta(days=1)
FAILURES_BEFORE_REST = 10
FIRST_REST, LONGEST_REST = timedelta(seconds=1), timedelta(minutes=5)
DAYS_OF_FAILURES = timedelta(days=1)
LATE = timedelta(hours=1)

Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint: `failures` in a row (those in flight when it was sent to rest are not
    counted), the first of them `failing_since`, and until when it rests."""

    failures: int = 0
    failing_since: datetime | None = None
    rests_until: datetime | None = None

    @property
    def rests(self) -> bool:
        """Whether it is posted to one at a time, as a probe, and only when its rest is over."""
        return self.failures >= FAILURES_BEFORE_REST

    def worn_out(self, at: datetime) -> bool:
        """Whether it did nothing but fail for a day, which is the end of it."""
        return self.rests and self.failing_since is not None and at - self.failing_since >= DAYS_OF_FAILURES

    def after_failure(
        self, at: datetime, *, probe: bool = True, retry_after: timedelta | None = None
    ) -> "Health":
        """After another failure. While it rests only a probe's counts: a hundred posts that were in flight
        together are one outage, not a hundred."""
        if self.rests and not probe:
            return self
        failing = replace(self, failures=self.failures + 1, failing_since=self.failing_since or at)
        if not failing.rests:
            return failing
        rest = min(FIRST_REST * 2 ** min(failing.failures - FAILURES_BEFORE_REST, 20), LONGEST_REST)
        return replace(failing, rests_until=at + max(rest, retry_after or rest))


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
    together. Otherwise it is half of the step to all of it; the last attempt is made when the time is up.
    """
    if at >= gives_up_at:
        return None
    if retry_after is not None:
        asked = at + retry_after * (1 + chance() / 10)
        return asked if asked <= gives_up_at else None
    step = BACKOFF[min(max(attempts, 1), len(BACKOFF)) - 1]
    return min(at + step * (1 + chance()) / 2, gives_up_at)


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

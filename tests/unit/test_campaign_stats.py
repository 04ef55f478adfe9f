"""Progress and the estimated end, from sums alone."""

from datetime import UTC, datetime, timedelta

import pytest

from app.campaigns.stats import MOST_BEFORE_PLANNED, Stats
from app.ledger.queries import Sums

AT = datetime(2026, 1, 31, tzinfo=UTC)


def stats(*, estimate: int | None = None, speed: float = 0.0, at: datetime = AT, **sums: int) -> Stats:
    return Stats(
        as_of=at,
        started_at=AT,
        completed_at=None,
        sums=Sums(**sums),  # type: ignore[arg-type]
        estimate=estimate,
        messages_per_second=speed,
    )


@pytest.mark.parametrize(
    ("given", "progress"),
    [
        (stats(), 0.0),
        (stats(planned=True), 1.0),
        (stats(planned=True, targets=4, pending=1, sent=2, skipped=1), 0.75),
        (stats(planned=True, targets=4, sent=2, skipped=1, failed=1), 1.0),
        (stats(targets=4, sent=4), 0.0),  # nobody knows of how many
        (stats(targets=4, sent=4, estimate=0), 0.0),
        (stats(targets=4, sent=4, estimate=8), 0.5),
        (stats(targets=8, sent=4, pending=4, estimate=6), 0.5),
        (stats(targets=8, sent=8, estimate=6), MOST_BEFORE_PLANNED),
    ],
)
def test_progress_is_one_exactly_at_the_end(given: Stats, progress: float) -> None:
    assert given.progress == progress


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (stats(planned=True, targets=4, pending=2, sent=2, speed=0.5), 4),
        (stats(targets=4, sent=4, estimate=8, speed=2.0), 2),
        (stats(targets=4, sent=4, speed=2.0), None),
        (stats(planned=True, targets=4, pending=4), None),
    ],
)
def test_the_end_is_estimated_where_it_can_be(given: Stats, seconds: int | None) -> None:
    expected = None if seconds is None else AT + timedelta(seconds=seconds)
    assert given.estimated_completion_at == expected


def test_the_same_numbers_later_are_no_change() -> None:
    assert stats(sent=1) == stats(sent=1, at=AT + timedelta(seconds=2))
    assert stats(sent=1) != stats(sent=2)

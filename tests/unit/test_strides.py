"""How much of a batch one transaction takes, by how long such took before."""

import pytest

from app.sending.strides import FEWEST, PICKINGS, Strides

MS = 0.001


@pytest.mark.parametrize(
    ("seconds", "pending", "limit"),
    [
        (30 * MS, 3_000, None),  # a new database: whole batches
        (100 * MS, 3_000, None),  # the most there may be
        (300 * MS, 3_000, 600),  # 0.1 ms each: so many last 60 ms
        (300 * MS, 900, None),  # the rest of a batch lasts 90
        (300 * MS, FEWEST, None),
        (30, 3_000, FEWEST),  # however slow: what every transaction costs is paid for something
    ],
)
def test_a_transaction_lasts_no_longer_than_it_may(seconds: float, pending: int, limit: int | None) -> None:
    strides = Strides(100 * MS, 50 * MS)
    strides.learn(1, 3_000, seconds)
    assert strides.limit(1, pending) == limit
    assert strides.limit(2, pending) is None, "another campaign is another matter"


def test_beside_other_campaigns_it_is_shorter() -> None:
    strides = Strides(100 * MS, 50 * MS)
    strides.learn(1, 3_000, 75 * MS)
    assert strides.limit(1, 3_000) is None
    assert strides.limit(1, 3_000, alone=False) == 1_200  # 30 ms


@pytest.mark.parametrize("commit", [10 * MS, 30 * MS, 100 * MS])
@pytest.mark.parametrize("each", [12 * MS / 1_000, 100 * MS / 1_000])
def test_what_a_commit_takes_makes_no_slice_smaller(commit: float, each: float) -> None:
    """Slices would not last shorter for it; and the smaller they are, the more commits there are."""
    strides, sizes = Strides(250 * MS, 120 * MS), []
    for _ in range(100):
        strides.picked(commit)
        size = strides.limit(1, 3_000, alone=False) or 3_000
        strides.learn(1, size, commit + size * each)
        sizes.append(size)
    assert sizes[-1] == 3_000 or sizes[-1] * each >= commit, "most of the time is the targets'"
    assert commit + sizes[-1] * each <= 1.01 * max(120 * MS, 2 * PICKINGS * commit)


def test_a_picking_that_took_long_once_is_forgotten_at_once() -> None:
    """It waited for a lock, or for the processor; the quickest is nearest to what it costs."""
    strides = Strides(100 * MS, 50 * MS)
    for seconds in (1 * MS, 500 * MS, 1 * MS):
        strides.picked(seconds)
    strides.learn(1, 3_000, 304 * MS)
    assert strides.limit(1, 3_000) == 560  # (60 - 4 ms) at 0.1 ms each


def test_what_was_slow_once_is_whole_again_soon() -> None:
    strides = Strides(100 * MS, 50 * MS)
    strides.learn(1, 3_000, 30 * MS)
    strides.learn(1, 3_000, 900 * MS)  # a disk that was busy
    assert strides.limit(1, 3_000) == 387
    for _ in range(3):
        strides.learn(1, 387, 387 * 10 * MS / 1_000)
    assert strides.limit(1, 3_000) is None


def test_a_transaction_that_settled_nothing_says_nothing() -> None:
    strides = Strides(100 * MS, 50 * MS)
    strides.learn(1, 0, 5.0)
    assert strides.limit(1, 3_000) is None


def test_campaigns_that_ended_are_forgotten() -> None:
    strides = Strides(100 * MS, 50 * MS)
    strides.learn(1, 3_000, 1.0)
    strides.learn(2, 3_000, 1.0)
    strides.keep({2})
    assert (strides.limit(1, 3_000), strides.limit(2, 3_000)) == (None, FEWEST)

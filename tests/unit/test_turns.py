"""Whose turn it is, from what each has had."""

from collections.abc import Mapping

from app.sending.turns import Turns


def served(turns: Turns, lengths: Mapping[int, float], seconds: float) -> dict[int, float]:
    """What each had of the time, if turns of these campaigns last as long as `lengths` say."""
    had = dict.fromkeys(lengths, 0.0)
    while sum(had.values()) < seconds:
        campaign = min(lengths, key=turns.place)
        turns.end(campaign, lengths[campaign], busy=True)
        had[campaign] += lengths[campaign]
    return had


def test_short_turns_come_more_often() -> None:
    had = served(Turns(), {1: 0.3, 2: 0.05, 3: 0.01}, 30.0)

    assert all(abs(seconds - 10.0) <= 0.3 for seconds in had.values())


def test_who_comes_new_is_next() -> None:
    turns = Turns()
    served(turns, {1: 0.3, 2: 0.2}, 30.0)

    assert min((1, 2, 3), key=turns.place) == 3


def test_who_had_nothing_to_do_is_next_and_does_not_make_up_for_it() -> None:
    turns = Turns()
    served(turns, {1: 0.1, 2: 0.1, 3: 0.1}, 3.0)
    turns.end(3, 0.0, busy=False)
    served(turns, {1: 0.1, 2: 0.1}, 30.0)

    had = served(turns, {1: 0.1, 2: 0.1, 3: 0.1}, 3.0)

    assert all(abs(seconds - 1.0) <= 0.2 for seconds in had.values())


def test_the_ended_are_forgotten() -> None:
    turns = Turns()
    served(turns, {1: 0.1, 2: 0.1}, 3.0)

    turns.keep({2})

    assert min((1, 2), key=turns.place) == 1


def test_what_another_lane_has_in_hand_comes_last() -> None:
    turns = Turns()
    served(turns, {1: 0.1, 2: 0.3}, 10.0)
    turns.begin(1)
    turns.begin(2)
    assert min((1, 2, 3), key=turns.place) == 3

    turns.end(2, 0.3, busy=True)

    assert min((1, 2), key=turns.place) == 2
    assert (turns.is_in_hand(1), turns.is_in_hand(2)) == (True, False)


def test_turns_that_ended_since_somebody_looked_are_known() -> None:
    turns = Turns()
    turns.end(1, 0.1, busy=True)
    looked = turns.ended
    turns.end(2, 0.1, busy=True)

    assert [turns.ended_after(campaign, looked) for campaign in (1, 2, 3)] == [False, True, False]

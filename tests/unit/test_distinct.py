"""Names of channels: keys of member sets, cids, and what may stand in them."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.distinct import (
    channel_id_problem,
    channel_type_problem,
    cid_of,
    distinct_id,
    members_key,
    pair_key,
    pair_keys,
    split_cid,
)

IDS = st.text(min_size=1, max_size=8)


def test_a_key_shows_two_members_and_hashes_all() -> None:
    assert members_key(["rex", "anna"]) == "anna~rex~" + sha256(b"4:anna3:rex").hexdigest()
    three = ["x" * 40, "a", "b"]
    assert members_key(three) == "a~b~" + sha256(b"1:a1:b40:" + b"x" * 40).hexdigest()
    assert distinct_id(["rex", "anna"]) == "!members-" + members_key(["anna", "rex"])


@given(st.sets(IDS, max_size=4), st.sets(IDS, max_size=4))
def test_two_sets_of_members_share_a_key_only_if_they_are_the_same(one: set[str], other: set[str]) -> None:
    assert (members_key(one) == members_key(other)) is (one == other)


@given(IDS, st.sets(IDS, max_size=4))
def test_keys_of_many_pairs_are_those_of_each(one: str, others: set[str]) -> None:
    others.discard(one)
    each = list(others)
    assert pair_keys(one, each) == [pair_key(one, other) for other in each]
    assert pair_keys(one, each) == [members_key((one, other)) for other in each]


def test_the_longest_key_fits_into_a_channel_id() -> None:
    assert channel_id_problem(distinct_id(["x" * 255, "y" * 255, "z" * 255])) is None


@pytest.mark.parametrize(
    ("cid", "parts"),
    [
        ("messaging:c1", ("messaging", "c1")),
        ("messaging:a:b:c", ("messaging", "a:b:c")),
        ("messaging:", None),
        (":c1", None),
        ("c1", None),
        ("", None),
        ("mess aging:c1", None),
        ("messaging:c 1", None),
    ],
)
def test_a_cid_splits_at_its_first_colon(cid: str, parts: tuple[str, str] | None) -> None:
    assert split_cid(cid) == parts
    if parts:
        assert cid_of(*parts) == cid


@pytest.mark.parametrize("channel_type", ["messaging", "a", "A-b_9", "x" * 64])
def test_channel_types(channel_type: str) -> None:
    assert channel_type_problem(channel_type) is None


@pytest.mark.parametrize("channel_type", ["", "a:b", "a b", "é", "x" * 65, "a\n"])
def test_what_is_no_channel_type(channel_type: str) -> None:
    assert channel_type_problem(channel_type)


@pytest.mark.parametrize("channel_id", ["c1", "!members-1", "a:b", "é漢🙂", "x" * 255])
def test_channel_ids(channel_id: str) -> None:
    assert channel_id_problem(channel_id) is None


@pytest.mark.parametrize(
    "channel_id", ["", "a b", "a\tb", "a\n", "\u2003", "\u200b", "x" * 256, "a\0", "\ud800"]
)
def test_what_is_no_channel_id(channel_id: str) -> None:
    assert channel_id_problem(channel_id)

"""Shares of windows: exact in every block, and found at any number without counting."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.data.mixture import Place, make_mixture
from zaya_jax.errors import UserError

WEIGHTS = st.lists(st.integers(1, 9999), max_size=4).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), 10_000])]
)


@given(WEIGHTS, st.integers(0, 5))
def test_every_block_has_exactly_its_shares_and_no_window_is_left_out(counts, seed):
    mixture = make_mixture({f"s{i}": count / 10_000 for i, count in enumerate(counts)}, seed)
    assert [share * 10_000 for share in mixture.shares] == [count * mixture.block for count in counts]
    first = 3 * mixture.block
    places = [mixture.place(number) for number in range(first, first + mixture.block)]
    for name, share in zip(mixture.names, mixture.shares):
        assert [p.window for p in places if p.source == name] == list(range(3 * share, 4 * share))


def test_the_block_is_as_short_as_the_shares_allow():
    assert make_mixture({"a": 0.7, "b": 0.2, "c": 0.1}, 0).block == 10
    assert make_mixture({"a": 1 / 2, "b": 0.25, "c": 0.25}, 0).block == 4
    assert make_mixture({"a": 1.0}, 0).place(10**15) == Place("a", 10**15)
    assert make_mixture({"a": 0.1 + 0.2, "b": 0.7}, 0).shares == (3, 7)  # 0.30000000000000004


def test_a_place_depends_on_seed_and_number_alone():
    weights = {"a": 0.75, "b": 0.25}
    places = [make_mixture(weights, 1).place(n) for n in range(400)]
    again = make_mixture(weights, 1)
    assert [again.place(n) for n in reversed(range(400))] == places[::-1]
    assert [make_mixture(weights, 2).place(n) for n in range(400)] != places


def test_blocks_are_not_alike():
    mixture = make_mixture({"a": 0.5, "b": 0.5}, 0)
    orders = Counter(tuple(mixture.place(2 * block + i).source for i in range(2)) for block in range(1000))
    assert set(orders) == {("a", "b"), ("b", "a")} and min(orders.values()) > 400


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            {"a": 0.6, "b": 0.35},
            "sources: mixture weights do not add up; expected a sum of 1; found 0.95 (a 0.6 + b 0.35)",
        ),
        ({"a": 1.0, "b": 0.5}, "found 1.5"),
        (
            {"a": 0.33333, "b": 0.66667},
            "source 'a': not a weight; expected a share above 0 and up to 1, with at most 4",
        ),
        ({"a": 1.0, "b": 0.0}, "source 'b': not a weight"),
        ({"a": -1.0}, "source 'a': not a weight"),
        ({"a": float("nan")}, "found nan"),
        ({"a": "1"}, "found '1'"),
        ({"a": True}, "found True"),
    ],
)
def test_weights_that_are_not_right(weights, words):
    with pytest.raises(UserError) as caught:
        make_mixture(weights, 0)
    assert words in str(caught.value)

"""pass@k and maj@k against every subset, one by one."""

import collections
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.evaluation.majority import maj_at_k, pass_at_k


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        marks = [i < c for i in range(n)]
        assert pass_at_k(n, c, k) == pytest.approx(mean(any(s) for s in itertools.combinations(marks, k)), abs=1e-12)


def test_pass_at_k_of_many_samples_against_the_closed_form():
    for n, c, k in [(64, 3, 16), (1000, 7, 100), (5000, 1, 2500)]:
        assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), rel=1e-9)


def winner(votes: list[tuple[int | None, bool]]) -> float:
    """The chance that the answer with most votes is right, ties drawn evenly."""
    counts = collections.Counter(cluster for cluster, _ in votes if cluster is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    tied = [cluster for cluster, count in counts.items() if count == most]
    return mean(mean(good for cluster, good in votes if cluster == one) for one in tied)


def by_enumeration(clusters, correct, k: int) -> float:
    return mean(winner(list(subset)) for subset in itertools.combinations(list(zip(clusters, correct)), k))


@given(st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=9), st.sets(st.integers(0, 3)))
def test_maj_at_k_is_the_mean_over_all_subsets(clusters, right):
    correct = [cluster in right for cluster in clusters]
    for k in range(1, len(clusters) + 1):
        assert maj_at_k(clusters, correct, k) == pytest.approx(by_enumeration(clusters, correct, k), abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.booleans()), min_size=1, max_size=8))
def test_a_class_that_disagrees_on_being_right_counts_by_its_share(votes):
    clusters, correct = zip(*votes)
    for k in range(1, len(votes) + 1):
        assert maj_at_k(clusters, correct, k) == pytest.approx(by_enumeration(clusters, correct, k), abs=1e-9)


def test_cases_worked_by_hand():
    assert maj_at_k([0, 0, 1], [True, True, False], 3) == 1.0
    assert maj_at_k([0, 1], [True, False], 2) == pytest.approx(0.5)  # a tie
    assert maj_at_k([None, None, 1], [False, False, True], 3) == 1.0  # who has no answer has no vote
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    assert maj_at_k([0, 0, 1], [True, True, False], 1) == pytest.approx(2 / 3)  # maj@1 is the accuracy


def test_many_samples_neither_overflow_nor_take_long():
    clusters = [0] * 700 + [1] * 600 + list(range(2, 702))
    chance = maj_at_k(clusters, [cluster == 0 for cluster in clusters], 65)
    assert 0.5 < chance < 1
    clusters = list(range(64))  # everybody says something else
    assert maj_at_k(clusters, [cluster == 0 for cluster in clusters], 32) == pytest.approx(1 / 64)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 1), (4, -1, 1)])
def test_what_makes_no_sense_is_refused(n, c, k):
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)

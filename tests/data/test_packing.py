"""Whole examples in windows: nothing lost, nothing cut, no more windows than the heuristic promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zaya_jax.data.packing import Plan, best_fit_decreasing
from zaya_jax.errors import UserError

LENGTHS = st.lists(st.integers(1, 30), max_size=40)


def by_definition(lengths, capacity):
    """The heuristic, written as it is told: look at every bin."""
    bins, left = [], []
    for example in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [(left[b], b) for b in range(len(bins)) if left[b] >= lengths[example]]
        if fitting:
            index = min(fitting)[1]
        else:
            index = len(bins)
            bins.append([])
            left.append(capacity)
        bins[index].append(example)
        left[index] -= lengths[example]
    return bins


@settings(max_examples=200)
@given(LENGTHS, st.integers(30, 64))
def test_it_is_best_fit_decreasing(lengths, capacity):
    assert best_fit_decreasing(lengths, capacity) == by_definition(lengths, capacity)


@settings(max_examples=100)
@given(LENGTHS, st.integers(30, 64))
def test_every_example_is_whole_and_once(lengths, capacity):
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in members) <= capacity for members in bins)
    # At most one bin is half empty or more: two such would have been one.
    assert sum(2 * sum(lengths[i] for i in members) <= capacity for members in bins) <= 1


def test_many_examples_fill_their_windows():
    lengths = np.random.RandomState(0).lognormal(6, 1, 20_000).astype(int).clip(1, 4096)
    bins = best_fit_decreasing(lengths, 4096)
    assert lengths.sum() / (4096 * len(bins)) > 0.999


@pytest.mark.parametrize("lengths, blamed", [([3, 9, 4], "example 1"), ([0], "example 0")])
def test_an_example_that_does_not_fit_is_named(lengths, blamed):
    with pytest.raises(UserError, match=f"{blamed}: an example does not fit; expected 1 to 8 tokens"):
        best_fit_decreasing(lengths, 8)


def test_a_plan_is_a_function_of_seed_and_number():
    """Every epoch holds every bin once, in an order of its own; asked in any order, the windows are the same."""
    bins = tuple((i,) for i in range(50))
    plan = Plan(bins, seed=3)
    windows = [plan.window(n) for n in range(150)]
    epochs = [windows[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(bins) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [Plan(bins, seed=3).window(n) for n in reversed(range(150))] == windows[::-1]
    assert [Plan(bins, seed=4).window(n) for n in range(50)] != epochs[0]

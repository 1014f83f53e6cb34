"""Advantages against numbers worked by hand, and against what the papers say of them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.advantages import AdvantageConfig, advantages, dr_grpo, grpo, max_rl, rejection

GROUPS = st.lists(st.integers(0, 1), min_size=2, max_size=16)


def test_grpo_by_hand():
    """Mean 1/2, population deviation 1/2; mean 1/4, deviation sqrt(3) / 4."""
    np.testing.assert_allclose(grpo([1, 0], eps=0), [1, -1])
    root = math.sqrt(3)
    np.testing.assert_allclose(grpo([1, 0, 0, 0], eps=0), [root, -1 / root, -1 / root, -1 / root])
    np.testing.assert_allclose(grpo([1, 0], eps=0.5), [0.5, -0.5])


def test_dr_grpo_by_hand():
    np.testing.assert_allclose(dr_grpo([3, -1, 1, 1]), [2, -2, 0, 0])


def test_max_rl_by_hand():
    """One of four right: (1 - 1/4) / (1/4) = 3 and (0 - 1/4) / (1/4) = -1. Three of four: 1/3 and -1."""
    np.testing.assert_allclose(max_rl([0, 1, 0, 0]), [-1, 3, -1, -1])
    np.testing.assert_allclose(max_rl([1, 1, 0, 1]), [1 / 3, 1 / 3, -1, 1 / 3])
    np.testing.assert_array_equal(max_rl([[0, 0], [1, 1]]), np.zeros((2, 2)))


def test_a_bonus_stands_in_the_numerator_alone():
    """r = 1, 1, 0, 0 with bonus .4, -.2, 0, 0: mean r = .5, mean of r + bonus = .55."""
    accuracies, bonus = [1, 1, 0, 0], [0.4, -0.2, 0, 0]
    np.testing.assert_allclose(max_rl(accuracies, bonus), [1.7, 0.5, -1.1, -1.1])
    np.testing.assert_allclose(max_rl(accuracies, bonus, baseline="task"), [1.8, 0.6, -1, -1])


def test_a_bonus_where_nothing_is_right_is_no_advantage():
    np.testing.assert_array_equal(max_rl([0, 0], [0.5, -0.5]), [0, 0])


@given(GROUPS, st.data())
def test_shaped_advantages_sum_to_zero_and_task_ones_to_the_bonus(group, data):
    bonus = data.draw(st.lists(st.floats(-0.5, 0.5), min_size=len(group), max_size=len(group)))
    assert np.sum(max_rl(group)) == pytest.approx(0, abs=1e-9)
    assert np.sum(max_rl(group, bonus)) == pytest.approx(0, abs=1e-9)
    rate = np.mean(group)
    assert np.sum(max_rl(group, bonus, "task")) == pytest.approx(sum(bonus) / rate if rate else 0, abs=1e-9)


@given(GROUPS)
def test_rejection_sampling_is_the_mean_over_right_answers(group):
    """Two of four right: weights 2, 2, 0, 0 in a mean over four, 1/2 and 1/2 in a sum."""
    np.testing.assert_allclose(rejection([1, 1, 0, 0]), [2, 2, 0, 0])
    right = np.array(group) == 1
    expected = right / right.sum() if right.any() else np.zeros(len(group))
    np.testing.assert_allclose(rejection(group) / len(group), expected, atol=1e-12)
    np.testing.assert_allclose(max_rl(group), rejection(group) - right.any(), atol=1e-12)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16))
def test_grpo_has_mean_zero_and_at_most_unit_deviation(group):
    found = grpo(group)
    assert np.mean(found) == pytest.approx(0, abs=1e-7)
    assert np.std(found) <= 1 + 1e-9


@given(st.floats(-1e6, 1e6), st.integers(2, 16))
def test_groups_all_alike_have_exactly_no_advantage(value, size):
    for found in (grpo([value] * size), grpo([value] * size, eps=0), dr_grpo([value] * size)):
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_max_rl_is_the_gradient_of_the_truncated_log_likelihood(rate):
    """Expectation over all 2^G groups of sum_i A_i * score_i / G, against d/dp of sum_{k=1..G-1} -(1 - p)^k / k.

    The policy has one parameter, p itself: the score is 1 / p for a right answer, -1 / (1 - p) for a wrong one.
    """
    size, found = 4, 0.0
    for group in itertools.product((0, 1), repeat=size):
        chance = math.prod(rate if right else 1 - rate for right in group)
        scores = [1 / rate if right else -1 / (1 - rate) for right in group]
        found += chance * float(np.dot(max_rl(group), scores)) / size
    assert found == pytest.approx(sum((1 - rate) ** (k - 1) for k in range(1, size)), rel=1e-12)


def test_leading_axes_are_prompts():
    random = np.random.default_rng(0)
    rewards = (random.random((3, 2, 5)) < 0.5).astype(float)
    bonus = random.normal(size=rewards.shape)
    for function in (grpo, dr_grpo, max_rl, lambda r: max_rl(r, bonus)):
        assert function(rewards).shape == rewards.shape
    np.testing.assert_array_equal(max_rl(rewards, bonus)[2, 1], max_rl(rewards[2, 1], bonus[2, 1]))


def test_a_config_names_the_function():
    group, bonus = [1, 1, 0, 0], [0.4, -0.2, 0, 0]
    np.testing.assert_array_equal(advantages(AdvantageConfig("grpo", eps=0.1), group), grpo(group, 0.1))
    np.testing.assert_array_equal(advantages(AdvantageConfig("dr_grpo"), group), dr_grpo(group))
    config = AdvantageConfig(baseline="task")
    np.testing.assert_array_equal(advantages(config, group, bonus), max_rl(group, bonus, "task"))


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: max_rl([1, -0.5]), "expected rewards of 0 or 1; found -0.5"),
        (lambda: max_rl([1, 0.25]), "found 0.25"),
        (lambda: grpo([1, math.nan]), "reward is not finite"),
        (lambda: dr_grpo(1.0), "no group"),
        (lambda: max_rl([1, 0], [0.1]), "bonus of another shape"),
        (lambda: max_rl([1, 0], [0.1, math.inf]), "bonus is not finite"),
        (lambda: advantages(AdvantageConfig("grpo"), [1, 0], [0, 0]), "without a numerator"),
        (lambda: AdvantageConfig("maxrl"), "found 'maxrl'"),
        (lambda: AdvantageConfig(baseline="mean"), "found 'mean'"),
        (lambda: AdvantageConfig(eps=-1.0), "AdvantageConfig.eps"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()

"""Equations 8 to 10 of the report, by hand and against a scalar transcription."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.advantages import max_rl
from zaya_jax.rl.length_reward import LengthRewardConfig, length_bonus, length_scores, ramped_weight

CONFIG = LengthRewardConfig(
    max_length=1000, free_tokens=50, rate_margin=0.25, first_weight=0.2, last_weight=1.0, ramp_steps=100
)


def equations(config, correct, lengths, best_rate, weight):
    """The report's, one answer at a time."""
    rate = sum(correct) / len(correct)
    if not any(correct):
        return [0.0] * len(correct)
    shortest = min(length for length, right in zip(lengths, correct) if right)
    found = []
    for right, length in zip(correct, lengths):
        score = 0.5 - min(max((length - shortest) / (config.max_length - shortest), 0), 1)
        if length <= shortest + config.free_tokens:
            score = 0.5
        gate = rate > best_rate - config.rate_margin and sum(correct) > 1 and right
        found.append(weight * rate * score if gate else 0.0)
    return found


def test_scores_by_hand():
    """Shortest right answer 200: 240 is within 50 of it; 600 is half of the way to 1,000; 100 is wrong and shorter."""
    found = length_scores(CONFIG, [1, 1, 1, 1, 0], [200, 240, 600, 1000, 100])
    np.testing.assert_allclose(found, [0.5, 0.5, 0, -0.5, 0.5])
    np.testing.assert_allclose(length_scores(CONFIG, [1, 0, 0], [200, 250, 251]), [0.5, 0.5, 0.5 - 51 / 800])
    assert length_scores(CONFIG, [1, 0], [200, 5000])[1] == -0.5


def test_bonus_by_hand():
    """p = 3/4: 3/4 * c * (1/2, 0, -1/2), and nothing for the wrong answer."""
    found = length_bonus(CONFIG, [1, 1, 1, 0], [200, 600, 1000, 100], best_rate=0.9, weight=0.8)
    np.testing.assert_allclose(found, [0.3, 0, -0.3, 0])


@pytest.mark.parametrize(
    "correct, best_rate, paid",
    [
        ([1, 1, 0, 0], 0.74, True),
        ([1, 1, 0, 0], 0.75, False),  # p > p* - T_acc, not >=
        ([1, 0, 0, 0], 0.0, False),  # p > 1 / G: one right answer is no group to be shorter than
        ([1, 1, 1, 1], 1.0, True),
        ([0, 0, 0, 0], 0.0, False),
    ],
)
def test_gate(correct, best_rate, paid):
    found = length_bonus(CONFIG, correct, [200, 300, 400, 500], best_rate, weight=1.0)
    assert np.any(found != 0) == paid


def test_weight_grows_linearly_and_stops():
    found = [ramped_weight(CONFIG, step) for step in (0, 25, 50, 100, 101, 10**6)]
    np.testing.assert_allclose(found, [0.2, 0.4, 0.6, 1, 1, 1])
    at_once = LengthRewardConfig(ramp_steps=0, first_weight=0.3)
    assert ramped_weight(at_once, 0) == 1


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 1200)), min_size=2, max_size=16),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_bonus_is_the_equations_and_bounded(group, best_rate, weight):
    correct, lengths = zip(*group)
    found = length_bonus(CONFIG, correct, lengths, best_rate, weight)
    if any(correct) and min(length for length, right in zip(lengths, correct) if right) < CONFIG.max_length:
        np.testing.assert_allclose(found, equations(CONFIG, correct, lengths, best_rate, weight), atol=1e-12)
    assert np.all(np.abs(found) <= weight / 2)
    assert not np.any(found[~np.array(correct)])


@given(st.lists(st.integers(0, 2000), min_size=2, max_size=16))
def test_shorter_is_never_worse(lengths):
    lengths = sorted(lengths)
    assert np.all(np.diff(length_bonus(CONFIG, [True] * len(lengths), lengths, 1.0, 1.0)) <= 0)


def test_answers_longer_than_the_maximum_have_a_score():
    config = LengthRewardConfig(max_length=10, free_tokens=0)
    for lengths in ([10, 11], [12, 15]):
        np.testing.assert_array_equal(length_scores(config, [1, 1], lengths), [0.5, -0.5])


def test_prompts_are_apart():
    random = np.random.default_rng(0)
    correct, lengths, best = random.random((3, 2, 6)) < 0.6, random.integers(0, 1000, (3, 2, 6)), random.random((3, 2))
    whole = length_bonus(CONFIG, correct, lengths, best, 1.0)
    one = length_bonus(CONFIG, correct[2, 1], lengths[2, 1], best[2, 1], 1.0)
    np.testing.assert_array_equal(whole[2, 1], one)


def test_shorter_right_answers_have_the_larger_advantage_and_wrong_ones_gain_no_length():
    correct, lengths = [1, 1, 0, 0], [200, 900, 100, 1000]
    found = max_rl(correct, length_bonus(CONFIG, correct, lengths, best_rate=0.5, weight=1.0))
    assert found[0] > found[1] > 0 > found[2] == found[3]


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: length_bonus(CONFIG, [1, 0], [5], 0, 1), "do not match"),
        (lambda: length_bonus(CONFIG, [], [], 0, 1), "do not match"),
        (lambda: length_bonus(CONFIG, [1, 0], [5, -1], 0, 1), "found -1"),
        (lambda: LengthRewardConfig(max_length=0), "LengthRewardConfig.max_length"),
        (lambda: LengthRewardConfig(rate_margin=math.nan), "LengthRewardConfig.rate_margin"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()

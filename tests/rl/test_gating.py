"""Gated rewards: the report's rule, its order turned round below 0, and the rule that keeps the order."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.gating import gated_rewards, outranking

SCORES = np.array([1.5, -2.0, 0.0, 3.0])
PASSED = np.array([True, True, False, False])


def test_chat_is_rewarded_by_the_score():
    rewards = gated_rewards(SCORES)
    np.testing.assert_array_equal(rewards, SCORES)
    rewards[0] = 9  # a copy
    assert SCORES[0] == 1.5


def test_the_reports_gate_is_the_score_or_0():
    np.testing.assert_array_equal(gated_rewards(SCORES, PASSED), [1.5, -2.0, 0.0, 0.0])


def test_the_logistic_gate_is_a_chance_or_0():
    expected = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(2.0)), 0.0, 0.0]
    np.testing.assert_allclose(gated_rewards(SCORES, PASSED, "logistic"), expected, rtol=1e-15)


@given(st.lists(st.tuples(st.floats(-700, 700), st.booleans()), min_size=1, max_size=20))
def test_with_the_logistic_gate_no_failure_is_above_or_beside_a_pass(group):
    scores, passed = np.array([s for s, _ in group]), np.array([p for _, p in group])
    rewards = gated_rewards(scores, passed, "logistic")
    assert np.all(rewards[~passed] == 0) and np.all(rewards[passed] > 0)
    order = np.argsort(scores[passed], kind="stable")
    assert np.all(np.diff(rewards[passed][order]) >= 0)


def test_what_the_reports_gate_turns_round_is_counted():
    """Two failed; of those that passed one has a score below 0: two pairs. The second group has none."""
    scores = np.array([[1.0, -1.0, 5.0, 5.0], [1.0, 2.0, -3.0, -4.0]])
    passed = np.array([[True, True, False, False]] * 2)
    np.testing.assert_array_equal(outranking(scores, passed), [2, 0])
    rewards = gated_rewards(scores, passed)
    by_hand = [sum(f > p for f in row[~ok] for p in row[ok]) for row, ok in zip(rewards, passed)]
    assert by_hand == [2, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((SCORES, PASSED, "hard"), "gate: unknown choice; expected report or logistic; found 'hard'"),
        ((np.array([0.0, np.nan]), None), "scores[1]: not finite; expected a number; found nan; drop the group"),
        ((SCORES, PASSED[:2]), "passed: does not fit the scores; expected bool[4]; found bool[2]"),
        ((SCORES, PASSED.astype(int)), "passed: does not fit the scores; expected bool[4]; found int64[4]"),
    ],
)
def test_mistakes_are_told(given, message):
    with pytest.raises(UserError) as caught:
        gated_rewards(*given)
    assert message in str(caught.value)

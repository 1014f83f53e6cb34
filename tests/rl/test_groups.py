"""Which groups have signal, and how many tokens are rare."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.advantages import KINDS, AdvantageConfig, advantages, max_rl
from zaya_jax.rl.canary import rare_token_shares
from zaya_jax.rl.completion import ALL_ALIKE, ALL_RIGHT, ALL_WRONG, Group, drop_reason


def reason(correct, rewards=None):
    return drop_reason(Group("any", None, 0, tuple(map(bool, correct)), rewards), len(correct))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"rejection"}))
@given(group=st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_groups_with_signal_are_those_with_an_advantage(kind, group):
    assert bool(np.any(advantages(AdvantageConfig(kind), group))) == (reason(group) is None)


@given(group=st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_rejection_sampling_would_learn_from_groups_that_are_all_right_and_does_not_get_them(group):
    signal = bool(np.any(advantages(AdvantageConfig("rejection"), group)))
    assert signal == (reason(group) is None or reason(group) == ALL_RIGHT)


@given(scores=st.lists(st.sampled_from([-1.5, 0.1, 0.2, 7.0]), min_size=1, max_size=6))
def test_scores_have_signal_where_they_differ_whatever_is_right(scores):
    right = [score > 0 for score in scores]
    assert (reason(right, tuple(scores)) is None) == (len(set(scores)) > 1)


def test_a_bonus_is_no_signal():
    """All are right and one is shorter: there is an advantage, but the group is dropped, as accuracy says."""
    assert np.any(max_rl([1, 1], [0.5, -0.5]))
    assert reason([1, 1]) == ALL_RIGHT


def test_reasons():
    assert [reason(group) for group in ([0, 0], [1, 1], [0, 1])] == [ALL_WRONG, ALL_RIGHT, None]
    assert reason([0, 1], (0.0, 0.0)) == ALL_ALIKE and reason([1, 1], (0.3, 0.3)) == ALL_RIGHT


def test_rare_tokens_by_hand():
    """Of 1,000 ids the top 10 % begin at 900, the top 5, 2 and 1 % at 950, 980 and 990."""
    tokens = [899, 900, 949, 950, 979, 980, 989, 990, 999, 0]
    assert rare_token_shares(tokens, 1000) == {10: 0.8, 5: 0.6, 2: 0.4, 1: 0.2}


def test_every_id_once_gives_the_percentages_rounded_down():
    assert rare_token_shares(np.arange(250), 250) == {10: 25 / 250, 5: 12 / 250, 2: 5 / 250, 1: 2 / 250}
    assert rare_token_shares(np.arange(64), 64)[1] == 0
    assert rare_token_shares([], 100) == {10: 0, 5: 0, 2: 0, 1: 0}


@pytest.mark.parametrize("token", [-1, 100])
def test_ids_outside_of_the_vocabulary(token):
    with pytest.raises(UserError, match=f"expected 0 up to 99; found {token}"):
        rare_token_shares([5, token], 100)

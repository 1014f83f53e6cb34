"""Which groups have signal, and how many tokens are rare."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.advantages import KINDS, AdvantageConfig, advantages, max_rl
from zaya_jax.rl.canary import rare_token_shares
from zaya_jax.rl.dynamic_sampling import drop_reason, has_signal


@pytest.mark.parametrize("kind", KINDS)
@given(group=st.lists(st.integers(0, 1), min_size=1, max_size=8))
def test_groups_with_signal_are_those_with_an_advantage(kind, group):
    expected = bool(np.any(advantages(AdvantageConfig(kind), group)))
    assert bool(has_signal(kind, group)) == expected == (drop_reason(kind, group) is None)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo"])
@given(scores=st.lists(st.sampled_from([-1.5, 0.1, 0.2, 7.0]), min_size=1, max_size=6))
def test_scores_without_accuracy_have_signal_where_they_differ(kind, scores):
    assert bool(has_signal(kind, scores)) == (len(set(scores)) > 1)


def test_a_bonus_is_no_signal():
    """All are right and one is shorter: there is an advantage, but the group is dropped, as accuracy says."""
    assert np.any(max_rl([1, 1], [0.5, -0.5]))
    assert not has_signal("max_rl", [1, 1])
    with pytest.raises(UserError, match=r"without bonus; found 1\.5"):
        has_signal("max_rl", [1, 1.5])


def test_many_groups_at_once():
    np.testing.assert_array_equal(has_signal("max_rl", [[[1, 0], [0, 0]], [[1, 1], [0, 1]]]), [[1, 0], [0, 1]])


def test_reasons():
    found = [drop_reason("grpo", group) for group in ([0, 0], [1, 1], [0.3, 0.3], [0, 1])]
    assert found == ["all wrong", "all right", "all alike", None]


@pytest.mark.parametrize("scores, told", [([math.nan, 1], "finite scores"), ([], "no group"), (1.0, "no group")])
def test_mistaken_scores(scores, told):
    with pytest.raises(UserError, match=told):
        has_signal("grpo", scores)


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

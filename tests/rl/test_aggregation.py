"""Means over rollouts and tokens: numbers worked by hand, and batches in several pieces."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.aggregation import AggregationConfig, aggregate, count

SEQUENCES, TOKENS = AggregationConfig(), AggregationConfig("token_mean")
LOSS = jnp.array([[1.0, 2, 4, 8], [16, 32, 64, 128], [256, 512, 1024, 2048]])
MASK = jnp.array([[1.0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_means_by_hand():
    """Rollouts of 11 and 64, and one without a token that counts: 75 / 2, and 75 / 4 over tokens."""
    assert tuple(map(float, aggregate(SEQUENCES, LOSS, MASK))) == (75, 2)
    assert tuple(map(float, aggregate(TOKENS, LOSS, MASK))) == (75, 4)
    assert tuple(map(float, aggregate(AggregationConfig(norm=10.0), LOSS, MASK))) == (7.5, 2)


def test_norm_does_not_change_the_mean_over_tokens():
    assert tuple(map(float, aggregate(AggregationConfig("token_mean", norm=10.0), LOSS, MASK))) == (75, 4)


def test_several_rollouts_share_a_row():
    """Segments 1 1 2 3 and 1 2 2 0: the mask leaves 1, 3 and the second 2; padding never counts."""
    segments = jnp.array([[1, 1, 2, 3], [1, 2, 2, 0]])
    mask = jnp.array([[1.0, 1, 0, 1], [0, 1, 1, 1]])
    total, number = aggregate(SEQUENCES, jnp.ones((2, 4)), mask.at[1, 3].set(0), segments)
    assert (float(total), float(number)) == (5, 3)
    assert int(count(SEQUENCES, mask, segments)) == 3


@given(st.integers(0, 2**20))
def test_rollouts_counted_as_one_would_count_them(seed):
    random = np.random.default_rng(seed)
    segments = np.sort(random.integers(1, 6, (2, 3, 12)), axis=-1)
    segments[..., 12 - random.integers(0, 5) :] = 0
    mask = (random.random(segments.shape) < 0.3) & (segments > 0)
    rows = zip(segments.reshape(-1, 12), mask.reshape(-1, 12))
    expected = sum(len(set(row[real])) for row, real in rows)
    assert int(count(SEQUENCES, mask, jnp.asarray(segments))) == expected
    assert int(count(TOKENS, mask, jnp.asarray(segments))) == mask.sum()


@pytest.mark.parametrize("config", [SEQUENCES, TOKENS, AggregationConfig(norm=3.0)], ids=str)
def test_sums_and_counts_of_pieces_add_up_to_the_whole(config):
    whole = aggregate(config, LOSS, MASK)
    pieces = [aggregate(config, LOSS[i : i + 1], MASK[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(np.sum(pieces, axis=0), whole, rtol=1e-6)


def test_what_does_not_count_may_be_anything():
    loss = jnp.where(MASK != 0, LOSS, jnp.nan)
    assert float(aggregate(SEQUENCES, loss, MASK)[0]) == 75


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: AggregationConfig("mean"), "found 'mean'"),
        (lambda: AggregationConfig(norm=0.0), "AggregationConfig.norm"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()

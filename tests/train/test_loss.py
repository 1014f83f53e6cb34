"""The loss against its definition in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zaya_jax.train.loss import cross_entropy


def definition(logits, targets, mask):
    z = np.asarray(logits, np.float64)
    probabilities = np.exp(z - z.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    nats = -np.log(np.take_along_axis(probabilities, targets[..., None], -1)[..., 0])
    return (nats * mask).sum(), mask.sum()


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    logits = (4 * random.standard_normal((2, 5, 7))).astype(np.float32)
    mask = np.array([[1, 0, 0.5, 1, 1], [0, 0, 1, 1, 0.25]], np.float32)
    return logits, random.integers(0, 7, (2, 5)), mask


def test_is_the_weighted_sum_of_negative_log_probabilities(case):
    np.testing.assert_allclose(cross_entropy(*case), definition(*case), rtol=1e-6)


def test_large_logits_do_not_overflow(case):
    logits, targets, mask = case
    shifted = cross_entropy(logits + 3e4, targets, mask)[0]
    assert float(shifted) == pytest.approx(definition(logits + np.float32(3e4), targets, mask)[0], rel=1e-3)


def test_gradient_is_softmax_less_one_hot_and_zero_where_masked(case):
    logits, targets, mask = case
    gradient = jax.grad(lambda z: cross_entropy(z, targets, mask)[0])(logits)
    z = np.exp(logits.astype(np.float64))
    expected = (z / z.sum(-1, keepdims=True) - np.eye(7)[targets]) * mask[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert np.all(np.asarray(gradient)[mask == 0] == 0)


def test_bfloat16_logits_are_summed_in_float32(case):
    logits, targets, mask = case
    rounded = jnp.asarray(logits, jnp.bfloat16)
    total, count = cross_entropy(rounded, targets, mask)
    assert (total.dtype, count.dtype) == (jnp.float32, jnp.float32)
    assert float(total) == pytest.approx(definition(np.asarray(rounded, np.float32), targets, mask)[0], rel=1e-6)


def test_nothing_to_count_is_zero(case):
    logits, targets, mask = case
    assert [float(x) for x in cross_entropy(logits, targets, 0 * mask)] == [0, 0]


@pytest.mark.parametrize("stranger", [-1, 7])
def test_a_target_outside_of_the_vocabulary_is_not_passed_over(stranger):
    logits, targets, mask = jnp.zeros((1, 2, 7)), jnp.array([[3, stranger]]), jnp.ones((1, 2))
    assert np.isnan(cross_entropy(logits, targets, mask)[0])
    masked = jnp.array([[1.0, 0.0]])
    total, gradient = jax.value_and_grad(lambda z: cross_entropy(z, targets, masked)[0])(logits)
    np.testing.assert_allclose(total, np.log(7), rtol=1e-6)
    assert np.isfinite(gradient).all()

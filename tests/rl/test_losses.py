"""The losses of a policy: numbers worked by hand, gradients by the score-function formula, masks and extremes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.losses import ClipConfig, DppoConfig, clip_loss, dppo_loss, policy_loss

CONFIGS = (DppoConfig(), DppoConfig(symmetric=True), ClipConfig())
MASK = jnp.ones((1, 4))


@functools.partial(jax.jit, static_argnums=0)
def run(config, logp, mu, advantages, mask):
    """Losses, metrics, and the gradient of the summed loss."""

    def total(logp):
        loss, told = policy_loss(config, logp, mu, advantages, mask)
        return jnp.sum(loss), (loss, told)

    gradient, (loss, told) = jax.grad(total, has_aux=True)(logp)
    return loss, told, gradient


def logs(*probabilities):
    return jnp.log(jnp.array([probabilities], jnp.float64))


def test_dppo_by_hand(x64):
    """pi = .5 .5 .9 .2 after mu = .4 .3 .5 .1 with A = 2: moved by .1 (kept), .2, .4 (not), .1 (kept)."""
    pi, mu = logs(0.5, 0.5, 0.9, 0.2), logs(0.4001, 0.3, 0.5, 0.1001)
    loss, told, gradient = run(DppoConfig(), pi, mu, jnp.array([2.0]), MASK)
    np.testing.assert_allclose(gradient, [[-2 * 0.5 / 0.4001, 0, 0, -2 * 0.2 / 0.1001]], rtol=1e-12)
    weights = 2 * 0.5 / 0.4001 * math.log(2), 0, 0, 2 * 0.2 / 0.1001 * math.log(5)
    np.testing.assert_allclose(loss, [weights], rtol=1e-12)
    assert (float(told.tokens), float(told.kept), float(told.clipped)) == (4, 2, 0)
    np.testing.assert_allclose(told.ratio, 0.5 / 0.4001 + 0.5 / 0.3 + 0.9 / 0.5 + 0.2 / 0.1001, rtol=1e-12)


def test_dppo_masks_by_the_direction_of_the_push(x64):
    """What moved up by .2 may come down and what moved down may go up; symmetric lets neither."""
    up, down, mu = 0.5, 0.1, 0.3
    pi, was = logs(up, down, up, down), logs(mu, mu, mu, mu)
    advantages = jnp.array([[1.0, 1.0, -1.0, -1.0]])
    _, told, gradient = run(DppoConfig(), pi, was, advantages, MASK)
    np.testing.assert_allclose(gradient, [[0, -down / mu, up / mu, 0]], rtol=1e-12)
    assert float(told.kept) == 2
    _, told, gradient = run(DppoConfig(symmetric=True), pi, was, advantages, MASK)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))
    assert float(told.kept) == 0


def test_dppo_weighs_a_token_no_more_than_the_cap(x64):
    """.09 after .001 is 90 times as likely, and moved by less than delta."""
    pi, mu = logs(0.09, 0.09), logs(0.001, 0.009)
    _, told, gradient = run(DppoConfig(cap=20.0), pi, mu, jnp.array([1.0]), MASK[:, :2])
    np.testing.assert_allclose(gradient, [[-20, -10]], rtol=1e-12)
    assert (float(told.kept), float(told.clipped)) == (2, 1)


def test_clip_by_hand(x64):
    """Ratios 1.25 (inside), 1.5 (above 1.28), .75 and .5 (below .8)."""
    pi, mu = logs(0.5, 0.6, 0.3, 0.2), logs(0.4, 0.4, 0.4, 0.4)
    loss, told, gradient = run(ClipConfig(), pi, mu, jnp.array([1.0]), MASK)
    np.testing.assert_allclose(loss, [[-1.25, -1.28, -0.75, -0.5]], rtol=1e-12)
    np.testing.assert_allclose(gradient, [[-1.25, 0, -0.75, -0.5]], rtol=1e-12)
    assert (float(told.kept), float(told.clipped)) == (3, 1)
    loss, told, gradient = run(ClipConfig(), pi, mu, jnp.array([-2.0]), MASK)
    np.testing.assert_allclose(loss, [[2.5, 3.0, 1.6, 1.6]], rtol=1e-12)
    np.testing.assert_allclose(gradient, [[2.5, 3.0, 0, 0]], rtol=1e-12)
    assert (float(told.kept), float(told.clipped)) == (2, 2)


def test_k3_by_hand(x64):
    """r - 1 - log r of ratios 2, 4, 1: 1 - log 2, 3 - log 4, 0."""
    pi, mu = logs(0.5, 0.4, 0.5), logs(0.25, 0.1, 0.5)
    found = run(DppoConfig(), pi, mu, jnp.array([1.0]), MASK[:, :3])[1].kl
    assert float(found) == pytest.approx(4 - 3 * math.log(2), rel=1e-12)


def random_case(seed, moved=0.5):
    random = np.random.default_rng(seed)
    mu = -random.exponential(1.5, (4, 8))
    logp = np.minimum(mu + random.normal(0, moved, mu.shape), -1e-3) if moved else mu
    return tuple(map(jnp.asarray, (logp, mu, random.normal(size=4), random.random((4, 8)) < 0.7)))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@given(seed=st.integers(0, 2**20))
def test_an_unmoved_policy_has_the_policy_gradient(config, seed):
    with jax.enable_x64(True):
        logp, mu, advantages, mask = random_case(seed, moved=0)
        _, told, gradient = run(config, logp, mu, advantages, mask)
        np.testing.assert_allclose(gradient, np.where(mask, -advantages[:, None], 0), rtol=1e-12)
        assert float(told.kl) == 0
        assert float(told.ratio) == float(told.kept) == float(told.tokens) == np.sum(mask)


@pytest.mark.parametrize("symmetric", [False, True])
@given(seed=st.integers(0, 2**20))
def test_dppo_has_the_score_function_gradient_on_kept_tokens(symmetric, seed):
    """-A * min(pi / mu, c) of the gradient of log pi, through a softmax of logits."""
    config = DppoConfig(cap=1.5, symmetric=symmetric)
    with jax.enable_x64(True):
        _, mu, advantages, mask = random_case(seed)
        random = np.random.default_rng(seed)
        logits, tokens = jnp.asarray(random.normal(size=(4, 8, 5))), random.integers(0, 5, (4, 8))
        found = logit_gradient(config, logits, tokens, mu, advantages, mask)
        pi = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        own, was, a = np.take_along_axis(pi, tokens[..., None], -1)[..., 0], np.exp(mu), np.asarray(advantages)[:, None]
        inside = np.abs(own - was) <= 0.1 if symmetric else np.where(a > 0, own - was <= 0.1, was - own <= 0.1)
        weight = -a * np.minimum(own / was, 1.5) * inside * np.asarray(mask)
        np.testing.assert_allclose(found, weight[..., None] * (np.eye(5)[tokens] - pi), rtol=1e-9, atol=1e-12)


@functools.partial(jax.jit, static_argnums=0)
def logit_gradient(config, logits, tokens, mu, advantages, mask):
    def total(logits):
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
        return jnp.sum(dppo_loss(config, logp, mu, advantages, mask)[0])

    return jax.grad(total)(logits)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("stranger", [math.nan, -math.inf, math.inf, 3e4])
def test_what_the_mask_leaves_out_counts_nowhere(config, stranger):
    logp, mu, advantages, mask = (x.astype(jnp.float32) for x in random_case(0))
    spread = jnp.broadcast_to(advantages[:, None], mask.shape)
    expected = run(config, logp, mu, spread, mask)
    found = run(config, *(jnp.where(mask != 0, x, stranger) for x in (logp, mu, spread)), mask)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.all(np.asarray(found[2])[np.asarray(mask) == 0] == 0)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_ratios_beyond_all_numbers_do_not_overflow(config):
    """In float32 exp(90) is infinite; a log ratio of 2,000 either way, with both signs of A."""
    logp, mu = jnp.array([[-1.0, -2000.0], [-1.0, -2000.0]]), jnp.array([[-2000.0, -1.0], [-2000.0, -1.0]])
    found = run(config, logp, mu, jnp.array([1.0, -1.0]), jnp.ones((2, 2)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_a_token_that_became_impossible_and_is_masked_has_no_loss():
    """A < 0, mu = 1/2, pi = 0: it moved down by more than delta; log pi is -inf."""
    pi, mu = jnp.array([[-jnp.inf]]), jnp.log(jnp.array([[0.5]]))
    loss, told = dppo_loss(DppoConfig(), pi, mu, jnp.array([-1.0]), MASK[:, :1])
    assert (float(loss[0, 0]), float(told.kept)) == (0, 0)


def test_no_advantage_is_no_loss_and_no_push_to_mask(x64):
    pi, mu = logs(0.9, 0.1), logs(0.1, 0.9)
    loss, told, _ = run(DppoConfig(), pi, mu, jnp.array([0.0]), MASK[:, :2])
    assert not np.any(loss)
    assert float(told.kept) == 2


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_advantages_of_tokens_are_those_of_their_rollouts(config):
    logp, mu, advantages, mask = random_case(5)
    spread = jnp.broadcast_to(advantages[:, None], mask.shape)
    jax.tree.map(
        np.testing.assert_array_equal, run(config, logp, mu, spread, mask), run(config, logp, mu, advantages, mask)
    )


@pytest.mark.parametrize(
    "loss", [functools.partial(dppo_loss, DppoConfig()), functools.partial(clip_loss, ClipConfig())]
)
def test_only_the_policy_has_a_gradient(loss):
    logp, mu, advantages, mask = random_case(6)
    gradients = jax.grad(lambda *x: jnp.sum(loss(*x, mask)[0]), (1, 2))(logp, mu, advantages)
    assert not any(np.any(x) for x in gradients)


def test_bfloat16_is_computed_in_float32():
    logp, mu, advantages, mask = random_case(7)
    loss, told = dppo_loss(DppoConfig(), logp.astype(jnp.bfloat16), mu.astype(jnp.bfloat16), advantages, mask)
    assert {x.dtype for x in jax.tree.leaves((loss, told))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: DppoConfig(delta=0.0), "DppoConfig.delta"),
        (lambda: DppoConfig(cap=0.5), "DppoConfig.cap"),
        (lambda: ClipConfig(low=1.5), "ClipConfig.low"),
        (lambda: ClipConfig(high=math.nan), "ClipConfig.high"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()

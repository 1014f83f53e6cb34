"""Advantages, losses and aggregations against goldens of verl and prime-rl (`make_goldens.py`)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zaya_jax.rl.advantages import dr_grpo, grpo, max_rl
from zaya_jax.rl.aggregation import AggregationConfig, aggregate
from zaya_jax.rl.losses import ClipConfig, DppoConfig, policy_loss

VERL, PRIME_RL = (
    json.loads((Path(__file__).parent / "goldens" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("verl", "prime_rl")
)
LOSSES = {"dppo_tv": DppoConfig(delta=0.1, cap=20.0), "vanilla": ClipConfig(low=0.2, high=0.28)}
AGGREGATIONS = {
    "token-mean": AggregationConfig("token_mean"),
    "seq-mean-token-sum": AggregationConfig(),
    "seq-mean-token-sum-norm": AggregationConfig(norm=7.0),
}


def arrays(inputs):
    return tuple(jnp.asarray(inputs[name], jnp.float64) for name in ("logp", "mu", "advantages", "mask"))


def mean_loss(config, aggregation, inputs):
    """Loss, metrics and gradient of log pi, as a learner would compute them."""
    logp, mu, advantages, mask = arrays(inputs)

    def loss(logp):
        loss_BT, told = policy_loss(config, logp, mu, advantages, mask)
        total, count = aggregate(aggregation, loss_BT, mask)
        return total / count, told

    (value, told), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logp)
    return value, told, gradient


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_verls(loss, mode, x64):
    golden = VERL["losses"][loss][mode]
    value, told, gradient = mean_loss(LOSSES[loss], AGGREGATIONS[mode], VERL["inputs"])
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-12)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-12, atol=1e-15)
    share = (told.tokens - told.kept) / told.tokens
    np.testing.assert_allclose(share, golden["metrics"]["actor/pg_clipfrac"], rtol=1e-6)


def test_tokens_at_the_cap_are_verls(x64):
    _, told, _ = mean_loss(LOSSES["dppo_tv"], AGGREGATIONS["token-mean"], VERL["inputs"])
    golden = VERL["losses"]["dppo_tv"]["token-mean"]["metrics"]["actor/pg_clipfrac_lower"]
    assert golden > 0
    np.testing.assert_allclose(told.clipped / told.tokens, golden, rtol=1e-6)


@pytest.mark.parametrize("name, symmetric", [("by_sign", False), ("symmetric", True)])
def test_dppo_gradients_are_prime_rls(name, symmetric, x64):
    """Its loss is -A * pi / mu without a cap, which has the same gradient."""
    golden = PRIME_RL["losses"][name]
    logp, mu, advantages, mask = arrays(PRIME_RL["inputs"])
    config = DppoConfig(delta=0.1, cap=1e30, symmetric=symmetric)
    gradient = jax.grad(lambda logp: policy_loss(config, logp, mu, advantages, mask)[0].sum())(logp)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-12, atol=1e-15)
    for row in range(len(mask)):
        told = policy_loss(config, logp[row], mu[row], advantages[row : row + 1], mask[row])[1]
        share = (told.tokens - told.kept) / jnp.maximum(told.tokens, 1)
        np.testing.assert_allclose(share, golden["masked_share"][row], rtol=1e-6)


def test_the_two_masks_of_prime_rl_differ_on_these_inputs():
    by_sign, symmetric = (np.array(PRIME_RL["losses"][name]["gradient"]) for name in ("by_sign", "symmetric"))
    assert np.sum((by_sign != 0) & (symmetric == 0)) >= 3


@pytest.mark.parametrize(
    "inputs, values",
    [(VERL["k3"]["inputs"], VERL["k3"]["values"]), (PRIME_RL["inputs"], PRIME_RL["k3"])],
    ids=["verl", "prime-rl"],
)
def test_k3_is_theirs(inputs, values, x64):
    logp, mu, advantages, mask = arrays(inputs)
    told = policy_loss(DppoConfig(), logp, mu, advantages, mask)[1]
    np.testing.assert_allclose(told.kl, np.sum(np.array(values) * np.asarray(mask)), rtol=1e-10)


def test_grpo_is_verls_but_for_its_standard_deviation():
    """Theirs is the sample's, s * sqrt(G / (G - 1)): (r - m) / (s / k + eps) = k * (r - m) / (s + k * eps)."""
    golden = VERL["advantages"]
    k = np.sqrt(3 / 4)
    np.testing.assert_allclose(k * grpo(golden["rewards"], k * golden["eps"]), golden["grpo"], rtol=1e-12, atol=1e-12)


def test_dr_grpo_is_verls_and_prime_rls():
    np.testing.assert_allclose(dr_grpo(VERL["advantages"]["rewards"]), VERL["advantages"]["dr_grpo"], atol=1e-12)
    golden = PRIME_RL["advantages"]
    np.testing.assert_allclose(dr_grpo(golden["accuracies"]), golden["dr_grpo"], atol=1e-6)


def test_max_rl_is_prime_rls():
    golden = PRIME_RL["advantages"]
    np.testing.assert_allclose(max_rl(golden["accuracies"]), golden["max_rl"], atol=1e-6)
    assert np.ptp(golden["max_rl"]) > 1

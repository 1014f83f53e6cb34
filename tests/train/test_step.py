"""The training step on a tiny model."""

import functools

import jax
import numpy as np
import pytest

from tests.model.helpers import quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.model import Execution
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.step import Trainer, batch_loss, evaluate_step, init_state, train_step

CONFIG = tiny()
BATCH = random_batch(CONFIG)
TRAINER = Trainer(CONFIG, Execution(), OptimizerConfig(weight_decay=0.0), balance_rate=1e-2)
init, step = (quick_jit(function, static_argnums=0) for function in (init_state, train_step))


@functools.cache
def trained(steps: int, rate: float):
    """The state and the metrics of every step on one batch."""
    state, metrics = init(TRAINER, jax.random.key(0)), []
    for _ in range(steps):
        state, now = step(TRAINER, state, BATCH, rate)
        metrics.append(jax.device_get(now))
    return state, metrics


def test_loss_falls_on_a_memorised_batch():
    losses = [float(m.loss) for m in trained(60, 1e-2)[1]]
    assert losses[0] == pytest.approx(np.log(CONFIG.vocab_size), rel=0.2)
    assert losses[-1] < 0.2 * losses[0]


def test_evaluation_is_the_loss_of_the_next_step():
    state = init(TRAINER, jax.random.key(0))
    total, count = quick_jit(evaluate_step, static_argnums=0)(TRAINER, state.variables, BATCH)
    assert float(count) == BATCH.mask_BT.sum()
    assert float(total / count) == pytest.approx(float(trained(60, 1e-2)[1][0].loss), rel=1e-5)


def test_counts_are_of_real_tokens():
    for metrics in trained(60, 1e-2)[1]:
        np.testing.assert_array_equal(metrics.router_counts_LC.sum(axis=1), (BATCH.segments_BT != 0).sum())


def test_balancing_evens_the_load_without_the_loss():
    state, metrics = trained(100, 0.0)
    before = init(TRAINER, jax.random.key(0))
    for new, old in zip(jax.tree.leaves(state.params), jax.tree.leaves(before.params)):
        np.testing.assert_array_equal(new, old)
    entropy = np.stack([m.load_entropy_L for m in metrics])
    assert entropy[0].min() < 0.9 < entropy[-1].min()


@functools.cache
def float64_gradients(layout: str):
    """Loss and gradients with respect to the stacked parameters, experts' random weights far from symmetric."""
    trainer = Trainer(CONFIG, Execution(dtype="float64", layout=layout))
    variables = random_variables(CONFIG, Execution(dtype="float64"))

    def loss(params):
        return batch_loss(trainer, params, variables["balance"], BATCH)[0]

    return quick_jit(jax.value_and_grad(loss))(variables["params"])


def test_gradients_of_stacked_and_unstacked_execution_agree(x64):
    (ours, stacked), (theirs, plain) = float64_gradients("stacked"), float64_gradients("unstacked")
    assert float(ours) == pytest.approx(float(theirs), rel=1e-12)
    for path, gradient in jax.tree_util.tree_leaves_with_path(stacked):
        other = functools.reduce(lambda tree, key: tree[key.key], path, plain)
        np.testing.assert_allclose(gradient, other, rtol=1e-9, atol=1e-10, err_msg=jax.tree_util.keystr(path))


def test_every_weight_gets_a_gradient(x64):
    gradients = jax.tree_util.tree_leaves_with_path(float64_gradients("stacked")[1])
    assert [jax.tree_util.keystr(path) for path, gradient in gradients if not np.any(np.asarray(gradient))] == []

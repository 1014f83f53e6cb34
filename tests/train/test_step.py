"""The training step on a tiny model."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.model.helpers import quick_jit, random_variables
from tests.train.models import random_batch, tiny
from zaya_jax.model import Execution
from zaya_jax.train.objective import batch_loss
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.step import evaluate_step, init_state, train_step
from zaya_jax.train.trainer import Trainer

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
    entropy = np.stack([m.balance.entropy_L for m in metrics])
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


def parts_of(batch, parts):
    """[A, B / A, T]."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)


def test_accumulated_batches_are_one_batch(x64):
    """Whatever the parts count: documents of one hold more targets than those of another."""
    trainer = Trainer(CONFIG, Execution(dtype="float64"), loss_chunk=7)
    batch = random_batch(CONFIG, rows=4)
    batch.mask_BT[0] = 0
    results = []
    for given in (batch, parts_of(batch, 2)):
        state = init(trainer, jax.random.key(1))
        results.append(step(trainer, state, given, 1e-3))
    for other in results[1:]:
        for one, two in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other)):
            np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-11)


def test_a_loss_in_chunks_is_the_loss(x64):
    trainer = Trainer(CONFIG, Execution(dtype="float64"))
    state = init(trainer, jax.random.key(1))
    evaluate = quick_jit(evaluate_step, static_argnums=0)
    whole = evaluate(trainer, state.variables, BATCH)
    chunks = evaluate(dataclasses.replace(trainer, loss_chunk=5), state.variables, BATCH)
    np.testing.assert_allclose(chunks, whole, rtol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    state = init(TRAINER, jax.random.key(0))
    before = jax.device_get(state)
    bad = BATCH._replace(targets_BT=np.full_like(BATCH.targets_BT, CONFIG.vocab_size))  # NaN, says the loss
    after, metrics = step(TRAINER, state, bad, 1e-2)
    assert not metrics.applied and np.isnan(metrics.loss)
    assert int(after.step) == 1
    for new, old in zip(jax.tree.leaves(after.replace(step=0)), jax.tree.leaves(before.replace(step=0))):
        np.testing.assert_array_equal(new, old)
    _, metrics = step(TRAINER, after, BATCH, 1e-2)
    assert metrics.applied and np.isfinite(metrics.loss)

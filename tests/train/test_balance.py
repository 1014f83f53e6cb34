"""Router balancing: the pseudo-gradient by hand, and where the biases go."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.model.helpers import quick_jit
from tests.train.models import tiny
from zaya_jax.data.batch import Batch
from zaya_jax.model import Execution
from zaya_jax.train.balance import balance_gradient, balance_metrics, balance_tree, balancer, load, load_entropy
from zaya_jax.train.optimizer import OptimizerConfig, learning_rate
from zaya_jax.train.step import init_state, train_step
from zaya_jax.train.trainer import Trainer

COUNTS = jnp.array([[6, 2, 0, 0, 4], [1, 1, 1, 1, 0], [0, 0, 0, 0, 9]])  # the last column is the skip class


def test_load_is_the_share_of_the_tokens_that_went_to_experts():
    np.testing.assert_array_equal(load(COUNTS), [[0.75, 0.25, 0, 0], [0.25] * 4, [0] * 4])


def test_gradient_is_load_less_even_share_by_hand():
    expected = [[0.5, 0, -0.25, -0.25, 0], [0] * 5, [0] * 5]
    np.testing.assert_array_equal(balance_gradient(COUNTS), expected)


@pytest.mark.parametrize(("counts", "entropy"), [([3, 3, 3, 3, 9], 1), ([0, 7, 0, 0, 0], 0), ([5, 5, 0, 0, 1], 0.5)])
def test_entropy_of_the_load(counts, entropy):
    np.testing.assert_allclose(load_entropy(jnp.array([counts])), [entropy], atol=1e-6)


def test_one_expert_has_entropy_zero_and_no_nan():
    np.testing.assert_array_equal(load_entropy(jnp.array([[5, 0]])), [0])


def test_gradient_of_a_skip_class_that_is_balanced_too():
    expected = [[1 / 2 - 1 / 5, 1 / 6 - 1 / 5, -1 / 5, -1 / 5, 1 / 3 - 1 / 5], [0.05] * 4 + [-0.2], [-0.2] * 4 + [0.8]]
    np.testing.assert_allclose(balance_gradient(COUNTS, skip="balanced"), expected, atol=1e-7)
    np.testing.assert_array_equal(balance_gradient(0 * COUNTS, skip="balanced"), 0)


def test_metrics_by_hand():
    metrics = balance_metrics(COUNTS)
    np.testing.assert_array_equal(metrics.entropy_L, load_entropy(COUNTS))
    np.testing.assert_array_equal(metrics.max_L, [3, 1, 0])
    np.testing.assert_array_equal(metrics.min_L, [0, 1, 0])
    np.testing.assert_allclose(metrics.skipped_L, [1 / 3, 0, 1])
    assert {x.dtype for x in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}


def balanced(counts_of, steps, rate=0.01, skip="frozen"):
    """Biases after every step."""
    update, biases = balancer(rate), jnp.array([[0.0, 0.0, 0.0, -1.0]])
    state, history = update.init(biases), []
    for step in range(steps):
        pushes, state = update.update(balance_gradient(counts_of(step), skip), state, biases)
        biases = optax.apply_updates(biases, pushes)
        history.append(np.asarray(biases))
    return np.stack(history)


def controller(counts, rate, frozen):
    """The same in float64 by the definitions: Kingma and Ba's algorithm 1 on p_e - 1/E."""
    b, m, v, history = np.array([0.0, 0.0, 0.0, -1.0]), 0.0, 0.0, []
    for t, n in enumerate(counts.astype(np.float64), start=1):
        g = np.append(n[:3] / n[:3].sum() - 1 / 3, 0) if frozen else n / n.sum() - 1 / 4
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        b = b - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        history.append(b)
    return np.stack(history)


@pytest.mark.parametrize("skip", ["frozen", "balanced"])
def test_controller_against_its_definition(skip):
    counts = np.random.default_rng(1).integers(1, 50, (12, 4))
    history = balanced(lambda step: jnp.asarray(counts[step : step + 1]), 12, 0.02, skip)[:, 0]
    np.testing.assert_allclose(history, controller(counts, 0.02, skip == "frozen"), atol=1e-6)


def test_skip_bias_never_moves():
    random = np.random.default_rng(0)
    history = balanced(lambda _: jnp.asarray(random.integers(0, 50, (1, 4))), 30)
    assert np.all(history[:, 0, -1] == -1)
    assert np.all(history[-1, 0, :-1] != 0)


def test_overloaded_falls_and_starved_rises_by_the_rate_a_step():
    history = balanced(lambda _: jnp.array([[8, 4, 0, 3]]), 10)[:, 0]
    np.testing.assert_allclose(history[:, 0], -0.01 * np.arange(1, 11), rtol=1e-4)  # Adam: constant sign, full rate
    np.testing.assert_allclose(history[:, 2], 0.01 * np.arange(1, 11), rtol=1e-4)
    np.testing.assert_array_equal(history[:, 1], 0)


def test_tree_gives_each_layer_its_row():
    config = tiny(layer_types=("sliding", "full") * 2, sliding_window=5)
    rows = jnp.arange(config.num_layers * 4.0).reshape(config.num_layers, 4)
    plain = balance_tree(config, "unstacked", rows)
    for layer, row in enumerate(rows):
        np.testing.assert_array_equal(plain["layers"][layer]["router"]["biases"], row)
    stacked = balance_tree(config, "stacked", rows)
    np.testing.assert_array_equal(stacked["layers"]["block_1"]["router"]["biases"], rows[1::2])


NANO = tiny(num_experts=4)


def skewed_text(seed, rows=8, length=64):
    """Rows of one document each, in which some tokens are far more frequent than others."""
    random = np.random.default_rng(seed)
    tokens = np.minimum(random.geometric(0.1, (rows, length + 1)) - 1, NANO.vocab_size - 1).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), ones.shape)
    return Batch(tokens[:, :-1], tokens[:, 1:], ones.astype(np.float32), positions, ones)


def trained_counts(balance_rate, steps=160):
    """Tokens that took each class in every step, [steps, L, C]."""
    trainer = Trainer(NANO, Execution(), OptimizerConfig("muon", 1e-3), balance_rate)
    state = quick_jit(init_state, static_argnums=0)(trainer, jax.random.key(0))
    step, counts = quick_jit(train_step, static_argnums=0), []
    for number in range(steps):
        rate = np.float32(learning_rate(trainer.optimizer, number / steps))
        state, metrics = step(trainer, state, skewed_text(number), rate)
        counts.append(np.asarray(metrics.router_counts_LC))
    return np.stack(counts)


@pytest.mark.parametrize("balance_rate", [2e-3, 0])
def test_balancing_evens_the_load_of_a_run_and_nothing_else_does(balance_rate):
    """Load entropy of the least even layer: over twenty steps, and within a step, where the controller swings."""
    counts = trained_counts(balance_rate)
    together = [float(load_entropy(counts[steps].sum(axis=0)).min()) for steps in (slice(0, 1), slice(-20, None))]
    single = min(float(load_entropy(step).min()) for step in counts[-20:])
    assert together[0] < 0.9
    assert (together[1] > 0.99 and single > 0.9) if balance_rate else together[1] < 0.8, (together, single)

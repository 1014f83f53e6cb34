"""Router balancing: the pseudo-gradient by hand, and where the biases go."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.train.models import tiny
from zaya_jax.train.balance import balance_gradient, balance_tree, balancer, load, load_entropy

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


def balanced(counts_of, steps):
    """Biases after every step."""
    update, biases = balancer(0.01), jnp.array([[0.0, 0.0, 0.0, -1.0]])
    state, history = update.init(biases), []
    for step in range(steps):
        pushes, state = update.update(balance_gradient(counts_of(step)), state, biases)
        biases = optax.apply_updates(biases, pushes)
        history.append(np.asarray(biases))
    return np.stack(history)


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

"""Recorded routes: replaying them, replaying others, counting them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.helpers import (
    EXACT,
    FULL,
    LAYOUTS,
    SLIDING,
    assert_close,
    compiled,
    lay_out,
    quick_jit,
    random_tensors,
    random_variables,
    small,
)
from tests.model.oracle import forward
from zaya_jax.model import Execution, Zaya

pytestmark = pytest.mark.usefixtures("x64")

CONFIG = small((SLIDING, FULL))
ROWS = [[9, -2, 6], [-4, 13]]


@functools.cache
def live(layout="stacked"):
    execution = Execution(dtype="float64", layout=layout)
    batch = lay_out(CONFIG, ROWS)
    # As numpy's arrays: a slice of jax's would be a program.
    return batch, jax.tree.map(np.asarray, compiled(CONFIG, execution)(random_variables(CONFIG, execution), *batch))


def replay(routes, layout="stacked"):
    execution = Execution(dtype="float64", layout=layout)
    batch = lay_out(CONFIG, ROWS)
    out = compiled(CONFIG, execution)(random_variables(CONFIG, execution), *batch, routes=routes)
    return jax.tree.map(np.asarray, out)


def others(routes):
    """Another class for every real token, the skip class included."""
    shift = np.random.RandomState(2).randint(1, CONFIG.num_router_classes, routes.shape)
    return np.where(routes < 0, -1, (routes + shift) % CONFIG.num_router_classes).astype(np.int8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_replay_gives_the_same(layout):
    _, out = live(layout)
    again = replay(out.routes_LBT, layout)
    assert_close(again, out, 1e-13)
    assert out.routes_LBT.dtype == jnp.int8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_minus_one_is_routed_live(layout):
    _, out = live(layout)
    assert_close(replay(np.full(out.routes_LBT.shape, -1, np.int8), layout), out, 1e-13)
    # Layer 0 replayed as it was, layer 1 live: the same again.
    routes = out.routes_LBT.copy()
    routes[1] = -1
    assert_close(replay(routes, layout), out, 1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_routes_are_followed(layout):
    batch, out = live(layout)
    routes = others(np.asarray(out.routes_LBT))
    changed = replay(routes, layout)
    np.testing.assert_array_equal(np.asarray(changed.routes_LBT)[:, batch.real], routes[:, batch.real])
    for row, columns in batch.documents():
        expected = forward(CONFIG, random_tensors(CONFIG, 0), batch.tokens[row, columns], routes[:, row, columns])
        assert_close(changed.logits[row, columns], expected.logits_TV)
        assert np.abs(np.asarray(changed.logits - out.logits)[row, columns]).max() > 1e-3


def test_half_replayed_half_live():
    """Layer 0 takes other experts; layer 1 then decides by what it sees, not by what was recorded."""
    batch, out = live()
    routes = others(np.asarray(out.routes_LBT))
    routes[1] = -1
    changed = replay(routes)
    for row, columns in batch.documents():
        document = batch.tokens[row, columns]
        first = forward(CONFIG, random_tensors(CONFIG, 0), document, np.stack([routes[0, row, columns]] * 2))
        second = first.scores_LTC[1].argmax(-1)
        np.testing.assert_array_equal(changed.routes_LBT[1, row, columns], second)


@functools.cache
def router_gradient():
    variables = random_variables(CONFIG)

    def loss(params, routes):
        out = Zaya(CONFIG, EXACT).apply({**variables, "params": params}, *lay_out(CONFIG, ROWS), routes=routes)
        return jnp.sum(jnp.tanh(out.logits) * out.logits)

    return quick_jit(jax.grad(loss))


def test_gradients_flow_to_the_gate_through_replayed_routes():
    _, out = live()
    params = random_variables(CONFIG)["params"]
    free = router_gradient()(params, np.full(out.routes_LBT.shape, -1, np.int8))
    same = router_gradient()(params, out.routes_LBT)
    other = router_gradient()(params, others(np.asarray(out.routes_LBT)))
    assert_close(same, free, 1e-12)
    for block in ("block_0", "block_1"):
        for name in ("down_weight", "out_weight", "fc1_bias"):
            left, right = (np.asarray(g["layers"][block]["router"][name]) for g in (other, free))
            assert np.count_nonzero(left) == left.size
            assert np.abs(left - right).max() > 1e-6


def test_counts_are_over_real_tokens():
    batch, out = live()
    routes, counts = np.asarray(out.routes_LBT), np.asarray(out.router_counts_LC)
    assert counts.dtype == np.int32 and counts.shape == (2, CONFIG.num_experts + 1)
    np.testing.assert_array_equal(counts.sum(1), batch.real.sum())
    for layer in range(2):
        expected = np.bincount(routes[layer][batch.real], minlength=CONFIG.num_router_classes)
        np.testing.assert_array_equal(counts[layer], expected)


def test_a_call_of_nothing_but_padding():
    batch = lay_out(CONFIG, [[-9, -8], [-17]])
    out = compiled(CONFIG)(random_variables(CONFIG), *batch)
    assert (np.asarray(out.router_counts_LC) == 0).all() and (np.asarray(out.routes_LBT) == -1).all()
    assert np.isfinite(out.logits).all()


def test_many_experts_need_wider_routes():
    config = small((FULL,), num_experts=127, expert_hidden_size=2)
    batch = lay_out(config, [[3]])
    routes = np.array([[[126, 127, 5]]], np.int16)
    out = compiled(config)(random_variables(config), *batch, routes=routes)
    assert out.routes_LBT.dtype == jnp.int16
    np.testing.assert_array_equal(out.routes_LBT, routes)

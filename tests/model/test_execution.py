"""However a model is computed, it is the same function: layouts, recomputation, implementations, their gradients.

In float64. The slope of the whole model is also held against finite differences, which know nothing of autodiff.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.helpers import (
    ALTERNATING,
    EXACT,
    FULL,
    LAYOUTS,
    SLIDING,
    assert_close,
    compiled,
    lay_out,
    quick_jit,
    random_variables,
    small,
)
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.layout import stack, unstack

pytestmark = pytest.mark.usefixtures("x64")

PERIODS = {"period 1": (FULL, FULL), "period 2": ALTERNATING, "no period": (FULL, SLIDING, SLIDING)}
ROWS = [[7, -2, 5], [-3, 11]]
REFERENCE = {"attention": "reference", "cca": "reference", "experts": "reference"}


def loss(config, execution, params, balance, weight, routes=None):
    """A smooth function of all logits of real tokens, and the outputs."""
    batch = lay_out(config, ROWS)
    out = Zaya(config, execution).apply({"params": params, "balance": balance}, *batch, routes=routes)
    return jnp.sum(jnp.tanh(out.logits) * weight * batch.real[..., None]), out


@functools.lru_cache(maxsize=64)
def slope(config, **changes):
    """Loss, outputs and gradients of the parameters and of the balance."""
    execution = dataclasses.replace(EXACT, **changes)
    variables = random_variables(config, execution)
    weight = np.random.RandomState(5).standard_normal((2, 14, config.vocab_size))
    function = quick_jit(jax.value_and_grad(functools.partial(loss, config, execution), (0, 1), has_aux=True))
    (value, out), gradients = function(variables["params"], variables["balance"], weight)
    return value, out, gradients


def as_stacked(config, layout, params):
    """A tree of parameters in the stacked layout."""
    if layout == "stacked":
        return params
    balance = random_variables(config, Execution(dtype="float64", layout="unstacked"))["balance"]
    return stack(config, {"params": params, "balance": balance})["params"]


@pytest.mark.parametrize(
    "types",
    [
        PERIODS["period 1"],
        PERIODS["period 2"],
        (SLIDING, FULL),  # no period either, and the programs of other tests
        pytest.param(PERIODS["no period"], marks=pytest.mark.slow),
    ],
    ids=["period 1", "period 2", "once", "no period"],
)
def test_scanned_equals_unrolled(types):
    config = small(types)
    value, out, (gradients, _) = slope(config)
    other_value, other, (other_gradients, _) = slope(config, layout="unstacked")
    np.testing.assert_array_equal(out.routes_LBT, other.routes_LBT)
    assert_close((other_value, other.logits), (value, out.logits))
    assert_close(as_stacked(config, "unstacked", other_gradients), gradients)


@pytest.mark.parametrize("remat, layout", [("block", "stacked"), ("dots", "stacked"), ("block", "unstacked")])
def test_recomputing_changes_no_gradient(remat, layout):
    config = small((FULL, FULL))
    assert_close(slope(config, remat=remat, layout=layout), slope(config, layout=layout), 1e-12)


def test_remat_dots_does_no_dense_product_twice():
    """Of the gradient's program: blocks do the seven products of attention and router again, and its last one not."""

    def products(remat):
        config = small((FULL, FULL))
        execution = Execution(remat=remat)
        variables = random_variables(config, execution)
        batch = lay_out(config, [[5]])

        def loss(params):
            inputs = batch.tokens, batch.positions, batch.segments
            out = Zaya(config, execution).apply({**variables, "params": params}, *inputs)
            return jnp.sum(out.logits)

        return str(jax.make_jaxpr(jax.grad(loss))(variables["params"])).count("dot_general")

    none, dots, block = (products(remat) for remat in ("none", "dots", "block"))
    assert none < dots < block
    assert block - dots >= 7


@pytest.mark.parametrize("layout", ["stacked", pytest.param("unstacked", marks=pytest.mark.slow)])
def test_fast_paths_equal_the_definitions(layout):
    config = small((SLIDING, FULL))
    assert_close(slope(config, layout=layout), slope(config, layout=layout, **REFERENCE), 1e-10)


KERNELS = {"experts": "interpret", "attention": "interpret", "cca": "interpret"}


def test_the_model_runs_on_the_kernels():
    """Logits, routes and the gradient of every parameter, in interpret mode."""
    config = small((SLIDING, FULL))
    assert_close(slope(config, **KERNELS), slope(config), 1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_slopes(layout):
    """Along random directions, with the routes held fixed: the loss jumps where a route flips."""
    config = small((SLIDING, FULL))
    execution = dataclasses.replace(EXACT, layout=layout)
    variables = random_variables(config, execution)
    weight = np.random.RandomState(5).standard_normal((2, 14, config.vocab_size))
    _, out, (gradients, _) = slope(config, layout=layout)
    value = quick_jit(lambda params: loss(config, execution, params, variables["balance"], weight, out.routes_LBT)[0])

    random, step = np.random.RandomState(1), 1e-6
    for _ in range(3):
        way = jax.tree.map(lambda a: jnp.asarray(random.standard_normal(a.shape)), variables["params"])
        ahead, behind = (
            value(jax.tree.map(lambda p, d, s=s: p + s * d, variables["params"], way)) for s in (step, -step)
        )
        along = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradients), jax.tree.leaves(way), strict=True))
        np.testing.assert_allclose((ahead - behind) / (2 * step), along, rtol=1e-6)


def test_every_parameter_has_a_gradient_but_the_phantom():
    config = small((FULL, FULL))
    _, _, (gradients, _) = slope(config)
    phantom = gradients["layers"]["block_0"]["router"]["state_scale"]
    assert (np.asarray(phantom[0]) == 0).all() and (np.asarray(phantom[1]) != 0).all()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.count_nonzero(leaf) > 0, path


def test_the_balance_gets_no_gradient():
    """The router's biases only choose."""
    _, _, (_, gradients) = slope(small((FULL, FULL)))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("types", PERIODS.values(), ids=PERIODS)
def test_unstacking_and_stacking_are_inverse(types):
    config = small(types)
    stacked, unstacked = (random_variables(config, Execution(dtype="float64", layout=layout)) for layout in LAYOUTS)
    assert_close(unstack(config, stacked), unstacked, 0.0)
    assert_close(stack(config, unstacked), stacked, 0.0)


def test_one_layer_can_be_stacked():
    config = small((FULL,))
    stacked = random_variables(config)
    assert_close(stack(config, unstack(config, stacked)), stacked, 0.0)


def test_outputs_without_jit_are_the_same():
    config = small((FULL,))
    batch, variables = lay_out(config, [[3]]), random_variables(config)
    assert_close(Zaya(config, EXACT).apply(variables, *batch), compiled(config)(variables, *batch), 1e-12)

"""The parts that have forms of their own for some shapes, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zaya_jax.model import Execution
from zaya_jax.model.layers import matmul

UNSTACKED = Execution(dtype="bfloat16", layout="unstacked")


@pytest.mark.parametrize("width", [2048, 1024, 4096, 1056])
@pytest.mark.parametrize("rows", [1, 2])
def test_products_of_large_weights(rows, width):
    """One row takes the sum in two steps at the first two widths, at most 2^-20 of the sum of magnitudes off."""
    random = np.random.RandomState(0)
    x = jnp.asarray(random.standard_normal((rows, width)), jnp.bfloat16)
    weight = jnp.asarray(random.standard_normal((1100, width)), jnp.bfloat16)
    exact = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T
    size = np.abs(np.asarray(x, np.float64)) @ np.abs(np.asarray(weight, np.float64)).T
    found = jax.jit(matmul, static_argnums=0)(UNSTACKED, x, weight)
    assert (found.shape, found.dtype) == ((rows, 1100), np.float32)
    assert (np.abs(found - exact) <= 2.0**-20 * size).all()


def test_the_slope_of_one_row_times_a_large_weight():
    random = np.random.RandomState(1)
    x = jnp.asarray(random.standard_normal((1, 1024)), jnp.bfloat16)
    weight = jnp.asarray(random.standard_normal((1024, 1024)), jnp.bfloat16)
    g = jnp.asarray(random.standard_normal((1, 1024)), jnp.float32)
    _, pull = jax.vjp(lambda *a: matmul(UNSTACKED, *a), x, weight)
    dx, dw = jax.jit(pull)(g)
    exact = np.asarray(g, np.float64) @ np.asarray(weight, np.float64)
    np.testing.assert_allclose(np.asarray(dx, np.float64), exact, atol=2e-2 * np.abs(exact).max())
    outer = np.asarray(g, np.float64).T @ np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(dw, np.float64), outer, atol=2.0**-8 * np.abs(outer).max())

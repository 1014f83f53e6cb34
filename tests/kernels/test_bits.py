"""Moving bfloat16 as integers moves it, and moves its slope back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.bits import moved


def weave(a, b):
    """Some of both, turned over, one number twice."""
    return jnp.concatenate([a[::-1], jnp.pad(b[:, :2], ((0, 0), (0, a.shape[1] - 2))), a[:1]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_moved(dtype):
    random = np.random.RandomState(0)
    a, b = (jnp.asarray(random.standard_normal(shape), dtype) for shape in [(3, 4), (2, 5)])
    found, pull = jax.vjp(jax.jit(lambda *x: moved(weave, *x)), a, b)
    expected, pull_expected = jax.vjp(weave, a, b)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype
    g = jnp.asarray(random.standard_normal(found.shape), dtype)
    for ours, theirs in zip(pull(g), pull_expected(g)):
        np.testing.assert_array_equal(ours, theirs)

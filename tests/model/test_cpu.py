"""Products of few rows in the forms that a CPU with AMX tiles wants and that others want: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zaya_jax.model import cpu
from zaya_jax.model.execution import Execution
from zaya_jax.model.experts_unstacked import expert_mlp
from zaya_jax.model.layers import matmul

EXECUTION = Execution(dtype="bfloat16", layout="unstacked")


@pytest.fixture(params=[True, False], ids=["tiles", "no_tiles"])
def tiles(request, monkeypatch):
    monkeypatch.setattr(cpu, "_has_tiles", lambda: request.param)
    return request.param


def bfloat16(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.bfloat16)


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 65])
def test_products_of_few_rows(tiles, rows):
    assert cpu.multiplies_tiles(EXECUTION) == tiles
    x, weight = bfloat16(rows, 48, seed=0), bfloat16(24, 48, seed=1)
    found = jax.jit(lambda x, weight: matmul(EXECUTION, x, weight))(x, weight)
    expected = np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 0), (0, 7), (3, 9), (20, 31)])
def test_experts_of_few_rows(tiles, sizes):
    x = bfloat16(sum(sizes), 16, seed=2)
    wide = tuple(bfloat16(24, 16, seed=3 + e) for e in range(2))
    narrow = tuple(bfloat16(16, 12, seed=5 + e) for e in range(2))
    run = jax.jit(lambda *a: expert_mlp(EXECUTION, *a))
    found = run(x, wide, narrow, jnp.asarray(sizes, jnp.int32))
    expert = np.repeat([0, 1], sizes)
    for row, e in enumerate(expert):
        hidden = np.asarray(wide[e], np.float64) @ np.asarray(x[row], np.float64)
        gate, up = np.split(hidden, 2)
        inner = (gate / (1 + np.exp(-gate)) * up).astype(jnp.bfloat16).astype(np.float64)
        expected = np.asarray(narrow[e], np.float64) @ inner
        # The rounding to bfloat16 in between may fall to the other side.
        np.testing.assert_allclose(found[row], expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_only_bfloat16_has_tiles(tiles):
    assert not cpu.multiplies_tiles(Execution(dtype="float32", layout="unstacked"))

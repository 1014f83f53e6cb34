"""Kernels under vmap and shard_map, against the same calls one by one; interpret mode."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.cca import cca_mix
from kernels_pallas.flash_attention import attention
from tests.kernels.compare import quick_jit
from tests.kernels.test_attention import example as attention_example
from tests.kernels.test_attention import packed
from tests.kernels.test_cca import example as cca_example


def float32(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, "float32" if a.dtype == float else None), tree)


def attention_case(seed):
    return float32([*attention_example(1, 21, 21, 4, 2, 8, seed)[0].values(), *packed(1, 21, seed).values()])


def cca_case(seed):
    return float32(list(cca_example((1, 21, 4, 2, 8, 2), seed)[0].values()))


@pytest.mark.parametrize("operation, case", [(attention, attention_case), (cca_mix, cca_case)])
def test_vmap(operation, case):
    """Values and gradients; grouped products have theirs in test_grouped_kernel.py."""
    cases = [case(seed) for seed in range(2)]

    def run(*arguments):
        def total(first):
            out = operation(first, *arguments[1:], implementation="interpret")
            return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(out))

        return jax.value_and_grad(total)(arguments[0])

    single, both = quick_jit(run), quick_jit(jax.vmap(run))
    found = both(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases))
    for i, expected in enumerate(single(*x) for x in cases):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)


SHARDED = """
import functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from kernels_pallas.cca import cca_mix
from kernels_pallas.flash_attention import attention
from kernels_pallas.grouped_matmul import grouped_swiglu
from tests.kernels.compare import quick_jit
from tests.kernels.test_attention import example as attention_example, packed
from tests.kernels.test_cca import example as cca_example
from tests.kernels.test_transforms import float32

mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows = P("data")

def compare(operation, arguments, specs, out):
    def total(run, *floats):
        return sum(jnp.sum(leaf ** 3) for leaf in jax.tree.leaves(run(*floats)))
    sharded = jax.shard_map(functools.partial(operation, implementation="interpret"), mesh=mesh, in_specs=specs,
                            out_specs=out, check_vma=False)
    plain = functools.partial(operation, implementation="reference")
    where = [i for i, a in enumerate(arguments) if jax.tree.leaves(a)[0].dtype == jnp.float32]
    where = [i for i in where if specs[i] == rows or operation is grouped_swiglu]
    for run in (sharded, plain):
        def both(*a, run=run):
            return run(*a), jax.grad(functools.partial(total, run), argnums=where)(*a)
        found = quick_jit(both)(*arguments)
        if run is sharded:
            first = found
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())

a = float32([*attention_example(4, 21, 21, 4, 2, 8)[0].values(), *packed(4, 21).values()])
compare(attention, a, (rows,) * 7, rows)
c = float32(list(cca_example((4, 21, 4, 2, 8, 2))[0].values()))
none = jax.lax.stop_gradient
compare(lambda u, state, follows, cos, sin, w, **k: cca_mix(u, state, follows, none(cos), none(sin), w, **k),
        c, (rows, rows, rows, rows, rows, P()), (rows, rows))
random = np.random.RandomState(0)
# Experts sharded: each device has one, and the rows that chose it.
lhs, rhs = (jnp.asarray(random.standard_normal(s), jnp.float32) for s in ((32, 16), (4, 24, 16)))
compare(grouped_swiglu, [lhs, rhs, jnp.full(4, 8)], (rows, rows, rows), rows)
print("fine")
"""


def test_shard_map_on_four_devices(root, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True)
    assert done.returncode == 0 and "fine" in done.stdout, done.stderr

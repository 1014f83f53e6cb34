"""The grouped product in plain XLA: expert by expert, each a product of its rows and, for many rows, some more.

The work is that of the rows, rounded up to a slab (`slabs.py`) an expert. `lax.ragged_dot` is not used: on CPU and GPU
it lowers to one dense product over all experts.

What the form below owes to XLA:CPU (figures in `docs/performance.md`): an expert's matrix is cast where it is read, so
that matrices of a wider type are read once, and outside of the conditional, whose branches do all but products on one
thread; branches return a block, for what a conditional changes in place is copied; bfloat16 is moved as integers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.bits import moved
from kernels_pallas.grouped_matmul.reference import swiglu
from kernels_pallas.grouped_matmul.slabs import slab_sizes, which_slab
from kernels_pallas.products import outer


@jax.custom_vjp
def grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E):
    """See `api.grouped_matmul`; returns the exact type."""
    return _product(lhs_MK, rhs_ENK, group_sizes_E, contract=2)


def _forward(lhs_MK, rhs_ENK, group_sizes_E):
    return grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E), (lhs_MK, rhs_ENK, group_sizes_E)


def _backward(saved, g_MN):
    lhs_MK, rhs_ENK, group_sizes_E = saved
    g_MN = g_MN.astype(lhs_MK.dtype)
    d_lhs = _product(g_MN, rhs_ENK, group_sizes_E, contract=1).astype(lhs_MK.dtype)
    d_rhs = _outer(g_MN, lhs_MK, group_sizes_E).astype(rhs_ENK.dtype)
    return d_lhs, d_rhs, np.zeros(group_sizes_E.shape, jax.dtypes.float0)


grouped_matmul.defvjp(_forward, _backward)


def grouped_swiglu(lhs_MK, rhs_ENK, group_sizes_E):
    """See `api.grouped_swiglu`."""
    return swiglu(grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E)).astype(lhs_MK.dtype)


def _product(lhs, rhs_E, group_sizes_E, contract: int):
    """Every row times its expert's matrix, contracted over that axis of rhs.

    A slab may run into the next expert's rows: those are written again, later, by their own expert.
    """
    M, E = lhs.shape[0], rhs_E.shape[0]
    sizes = slab_sizes(M, E)
    largest, width, dtype = sizes[-1], rhs_E.shape[3 - contract], jnp.promote_types(lhs.dtype, jnp.float32)
    rows, stop_E = _pad(lhs, largest), jnp.cumsum(group_sizes_E)
    busy_E = jnp.argsort(group_sizes_E == 0)  # experts with rows first, in their order

    def expert(i, out):
        e = busy_E[i]
        rest, begin = group_sizes_E[e] % largest, stop_E[e] - group_sizes_E[e]
        matrix = moved(lambda a: lax.dynamic_index_in_dim(a, e, keepdims=False), rhs_E).astype(lhs.dtype)

        def multiply(start, size):
            contracted = (((1,), (contract - 1,)), ((), ()))
            return lax.dot_general(_slab(rows, start, size), matrix, contracted, preferred_element_type=dtype)

        def remainder(size):
            return lambda: jnp.pad(multiply(stop_E[e] - rest, size), ((0, largest - size), (0, 0)))

        def full(i, out):
            start = begin + i * largest
            return lax.dynamic_update_slice_in_dim(out, multiply(start, largest), start, 0)

        branches = [lambda: jnp.zeros((largest, width), dtype), *map(remainder, sizes)]
        block = lax.switch(which_slab(sizes, rest), branches)
        out = lax.dynamic_update_slice_in_dim(out, block, stop_E[e] - rest, 0)
        return lax.fori_loop(0, group_sizes_E[e] // largest, full, out)

    out = jnp.zeros((M + largest, width), dtype)
    out = lax.fori_loop(0, jnp.sum(group_sizes_E != 0), expert, out)[:M]
    return jnp.where(jnp.arange(M)[:, None] < stop_E[-1], out, 0)


def _outer(g_MN, lhs_MK, group_sizes_E):
    """d_rhs [E, N, K]: each expert's rows of g transposed times its rows of lhs."""
    sizes = slab_sizes(lhs_MK.shape[0], group_sizes_E.shape[0])
    largest, dtype = sizes[-1], jnp.promote_types(lhs_MK.dtype, jnp.float32)
    g, lhs = _pad(g_MN, largest), _pad(lhs_MK, largest)

    def expert(_, group):
        count, stop = group
        rest = count % largest

        def multiply(start, size):
            own = (start + jnp.arange(size) < stop)[:, None]
            mine = jnp.where(own, _slab(g, start, size), 0)
            return outer(mine, _slab(lhs, start, size), lhs.dtype, dtype)

        def remainder(size):
            return lambda: multiply(stop - rest, size)

        def full(i, total):
            return total + multiply(stop - count + i * largest, largest)

        branches = [lambda: jnp.zeros((g.shape[1], lhs.shape[1]), dtype), *map(remainder, sizes)]
        total = lax.switch(which_slab(sizes, rest), branches)
        return None, lax.fori_loop(0, count // largest, full, total)

    return lax.scan(expert, None, (group_sizes_E, jnp.cumsum(group_sizes_E)))[1]


def _pad(x_MX: jax.Array, rows: int) -> jax.Array:
    """With that many more rows, of zeros."""
    return moved(lambda a: jnp.pad(a, ((0, rows), (0, 0))), x_MX)


def _slab(x_MX: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return moved(lambda a: lax.dynamic_slice_in_dim(a, start, size), x_MX)

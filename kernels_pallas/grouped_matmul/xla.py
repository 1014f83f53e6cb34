"""The grouped product in plain XLA: block of rows by block of rows, each with its expert's matrix.

The work is that of the rows, rounded up to one block an expert. `lax.ragged_dot` is not used: on CPU and GPU it lowers
to one dense product over all experts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def block_rows(rows: int, experts: int) -> int:
    """Rows of a block: about half of an even share, a power of two from 8 to 256."""
    share = max(rows // (2 * experts), 1)
    return min(max(1 << (share.bit_length() - 1), 8), 256)


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


def _product(lhs, rhs_E, group_sizes_E, contract: int):
    """Every row times its expert's matrix, contracted over that axis of rhs."""
    M, E = lhs.shape[0], rhs_E.shape[0]
    block = block_rows(M, E)
    dtype = jnp.promote_types(lhs.dtype, jnp.float32)
    lhs = jnp.pad(lhs, ((0, block), (0, 0)))
    out = jnp.zeros((M + block, rhs_E.shape[3 - contract]), dtype)

    def one(expert, start, stop, out):
        """A block may run into the next expert's rows: those are written again, later, by their own expert."""
        del stop
        x = lax.dynamic_slice_in_dim(lhs, start, block)
        w = lax.dynamic_index_in_dim(rhs_E, expert, keepdims=False)
        y = lax.dot_general(x, w, (((1,), (contract - 1,)), ((), ())), preferred_element_type=dtype)
        return lax.dynamic_update_slice_in_dim(out, y, start, 0)

    out = _for_blocks(group_sizes_E, block, one, out)[:M]
    return jnp.where(jnp.arange(M)[:, None] < group_sizes_E.sum(), out, 0)


def _outer(g_MN, lhs_MK, group_sizes_E):
    """d_rhs [E, N, K]: each expert's rows of g transposed times its rows of lhs."""
    M, E = lhs_MK.shape[0], group_sizes_E.shape[0]
    block = block_rows(M, E)
    dtype = jnp.promote_types(lhs_MK.dtype, jnp.float32)
    g_MN, lhs_MK = (jnp.pad(x, ((0, block), (0, 0))) for x in (g_MN, lhs_MK))
    out = jnp.zeros((E, g_MN.shape[1], lhs_MK.shape[1]), dtype)

    def one(expert, start, stop, out):
        own = (start + jnp.arange(block) < stop)[:, None]
        g = jnp.where(own, lax.dynamic_slice_in_dim(g_MN, start, block), 0)
        x = lax.dynamic_slice_in_dim(lhs_MK, start, block)
        d = lax.dot_general(g, x, (((0,), (0,)), ((), ())), preferred_element_type=dtype)
        return lax.dynamic_update_index_in_dim(out, out[expert] + d, expert, 0)

    return _for_blocks(group_sizes_E, block, one, out)


def _for_blocks(group_sizes_E, block: int, one, out):
    """Runs `one(expert, start, stop, out)` over every block that holds rows, in row order."""
    stop_E = jnp.cumsum(group_sizes_E)
    blocks_E = -(-group_sizes_E // block)
    last_E = jnp.cumsum(blocks_E)

    def body(i, out):
        expert = jnp.searchsorted(last_E, i, side="right")
        first = last_E[expert] - blocks_E[expert]
        start = stop_E[expert] - group_sizes_E[expert] + (i - first) * block
        return one(expert, start, stop_E[expert], out)

    return lax.fori_loop(0, last_E[-1], body, out)

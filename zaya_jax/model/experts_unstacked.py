"""The experts' MLP when each expert's matrices are arrays of their own: the CPU path.

Nothing is sliced out of a larger array, so a matrix product reads its operand where it lies. The rows of an expert are
consecutive; a slab of rows, a little longer than they are, is one product. A slab may run into the next expert's rows:
their own expert writes them later.

Which slab a row falls into depends on how many other rows chose its expert. So that a row's result does not, to the
last bit, slabs of every size are multiplied in one and the same form (`matmul_nt`, on AMX tiles `matmul_few`).
`matmul`, which has other forms for few rows, serves where the number of rows is the program's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.bits import as_integers, like
from kernels_pallas.grouped_matmul.slabs import slab_sizes, which_slab
from zaya_jax.model.cpu import multiplies_tiles
from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import matmul, matmul_few, matmul_nn, matmul_nt, matmul_tn

Matrices = tuple[jax.Array, ...]

_FEW = 16  # rows up to which one product a row is faster than one a slab; on AMX tiles none are


def expert_mlp(
    execution: Execution, x_MD: jax.Array, gate_up: Matrices, down: Matrices, group_sizes_E: jax.Array
) -> jax.Array:
    """down[e] @ (silu(gate) * up) of every row's expert, exact type; rows behind the last group are zeros.

    Args:
        x_MD: rows sorted by expert.
        gate_up: E matrices [2F, D], gate rows first.
        down: E matrices [D, F].
        group_sizes_E: rows of each expert.
    """
    few = 1 if multiplies_tiles(execution) else _FEW
    run = _row_by_row if x_MD.shape[0] <= few else _slab_by_slab
    y_MD = run(execution, x_MD, gate_up, down, group_sizes_E)
    inside = jnp.arange(x_MD.shape[0])[:, None] < group_sizes_E.sum()
    return jnp.where(inside, y_MD, 0)


def _row_by_row(execution: Execution, x_MD, gate_up: Matrices, down: Matrices, group_sizes_E):
    stop_E = jnp.cumsum(group_sizes_E)

    def branch(wide, narrow):
        return lambda x_1D: matmul(execution, _swiglu(execution, matmul(execution, x_1D, wide)), narrow)

    branches = [branch(*matrices) for matrices in zip(gate_up, down, strict=True)]

    def row(x_D, index):
        expert = jnp.searchsorted(stop_E, index, side="right")
        return lax.switch(jnp.minimum(expert, len(branches) - 1), branches, x_D[None])[0]

    if x_MD.shape[0] == 1:
        return row(x_MD[0], 0)[None]
    return lax.map(lambda args: row(*args), (x_MD, jnp.arange(x_MD.shape[0])))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _slab_by_slab(execution: Execution, x_MD, gate_up: Matrices, down: Matrices, group_sizes_E):
    return _products(execution, x_MD, gate_up, down, group_sizes_E, keep_hidden=False)[0]


def _forward(execution: Execution, x_MD, gate_up: Matrices, down: Matrices, group_sizes_E):
    y_MD, hidden = _products(execution, x_MD, gate_up, down, group_sizes_E, keep_hidden=True)
    return y_MD, (x_MD, gate_up, down, group_sizes_E, hidden)


def _products(execution: Execution, x_MD, gate_up: Matrices, down: Matrices, group_sizes_E, keep_hidden: bool):
    """The result, and what the backward pass wants of it: the results of `gate_up`, None if not `keep_hidden`."""
    M, D = x_MD.shape
    slabs = slab_sizes(M, len(down))
    product = matmul_few if multiplies_tiles(execution) else matmul_nt
    x = _pad_rows(x_MD, slabs[-1])
    hidden = jnp.zeros((x.shape[0], gate_up[0].shape[0]), execution.exact_dtype) if keep_hidden else None
    y = jnp.zeros((x.shape[0], D), execution.exact_dtype)
    starts_E = jnp.cumsum(group_sizes_E) - group_sizes_E
    for e, (wide, narrow) in enumerate(zip(gate_up, down, strict=True)):

        def slab(start, size, own, wide=wide, narrow=narrow):
            del own
            h = product(execution, _rows(x, start, size), wide)
            out = product(execution, _swiglu(execution, h), narrow)
            return (h if keep_hidden else None, out), None

        (hidden, y), _ = _over_slabs(slabs, starts_E[e], group_sizes_E[e], slab, (hidden, y))
    return y[:M], hidden


def _backward(execution: Execution, saved, g_MD):
    x_MD, gate_up, down, group_sizes_E, hidden = saved
    M, D = x_MD.shape
    slabs = slab_sizes(M, len(down))
    x, g = (_pad_rows(a, slabs[-1]) for a in (x_MD, g_MD.astype(execution.exact_dtype)))
    dx = jnp.zeros((x.shape[0], D), execution.exact_dtype)
    starts_E = jnp.cumsum(group_sizes_E) - group_sizes_E
    d_gate_up, d_down = [], []
    for e, (wide, narrow) in enumerate(zip(gate_up, down, strict=True)):

        def slab(start, size, own, wide=wide, narrow=narrow):
            g_rows = jnp.where(own, _rows(g, start, size), 0)
            a, pull = jax.vjp(functools.partial(_swiglu, execution), _rows(hidden, start, size))
            (dh,) = pull(matmul_nn(execution, g_rows, narrow).astype(a.dtype))
            sums = matmul_tn(execution, dh, _rows(x, start, size)), matmul_tn(execution, g_rows, a)
            return matmul_nn(execution, dh, wide), sums

        dx, (d_wide, d_narrow) = _over_slabs(slabs, starts_E[e], group_sizes_E[e], slab, dx)
        d_gate_up.append(d_wide.astype(wide.dtype))
        d_down.append(d_narrow.astype(narrow.dtype))
    inside = jnp.arange(M)[:, None] < group_sizes_E.sum()
    dx = jnp.where(inside, dx[:M], 0).astype(x_MD.dtype)
    return dx, tuple(d_gate_up), tuple(d_down), np.zeros(group_sizes_E.shape, jax.dtypes.float0)


_slab_by_slab.defvjp(_forward, _backward)


def _rows(x_MD: jax.Array, start, size: int) -> jax.Array:
    return like(lax.dynamic_slice_in_dim(as_integers(x_MD), start, size), x_MD)


def _pad_rows(x_MD: jax.Array, rows: int) -> jax.Array:
    return like(jnp.pad(as_integers(x_MD), ((0, rows), (0, 0))), x_MD)


def _swiglu(execution: Execution, hidden: jax.Array) -> jax.Array:
    gated, up = jnp.split(hidden, 2, axis=-1)
    return (jax.nn.silu(gated) * up).astype(execution.compute_dtype)


def _over_slabs(slabs: tuple[int, ...], start, count, slab: Callable, rows):
    """Runs `slab(start, size, own)` until `count` rows are done: the remainder first, then the largest size.

    It returns the slab's rows, which are written into `rows` (a tree of [M + largest size, X]), and a tree of sums over
    rows, which are added up; both come back. `own` [size, 1] is False for rows of the next expert, which may be written
    as anything.

    The branches of the remainder return a block of rows that is written behind them: XLA:CPU copies what a conditional
    changes in place.
    """
    largest = slabs[-1]

    def at(begin, size):
        return slab(begin, size, begin + jnp.arange(size)[:, None] < start + count)

    def write(rows, blocks, begin):
        return jax.tree.map(lambda a, block: lax.dynamic_update_slice_in_dim(a, block, begin, 0), rows, blocks)

    rest = count % largest
    begin = start + count - rest

    def remainder(size):
        blocks, sums = at(begin, size)
        return jax.tree.map(lambda block: jnp.pad(block, ((0, largest - size), (0, 0))), blocks), sums

    def nothing():
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: remainder(largest)))

    branches = [nothing] + [functools.partial(remainder, size) for size in slabs]
    blocks, sums = lax.switch(which_slab(slabs, rest), branches)

    def step(i, carry):
        rows, sums = carry
        blocks, more = at(start + i * largest, largest)
        return write(rows, blocks, start + i * largest), jax.tree.map(jnp.add, sums, more)

    return lax.fori_loop(0, count // largest, step, (write(rows, blocks, begin), sums))

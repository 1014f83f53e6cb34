"""The grouped product as kernels of Pallas' Triton backend, the one that compiles for MI300X.

`_product` gives the result and the gradient of the rows, `_outer` that of the matrices. Rows are read where the sort
left them: a tile starts at its group's first row, whatever that is, and its loads and stores are masked; nothing is
padded in memory.

Limits: with 128 x 128 x 64 in bfloat16 a step does 2 * 128 * 128 * 64 operations on 32 KB of operands, 64 a byte; an
MI300X has 1,307 TFLOP/s to 5.3 TB/s, 247 a byte, so the tiles of one expert have to find their matrix in L2: rows are
the grid's fastest axis, neighbours share their columns' part of it. Two stages take 32 KB of LDS, the second waits in
registers, 136 to 176 a lane: of 8 waves, 2 a SIMD, one tile lives on a compute unit, not for its LDS of 64 KB but for
its 512 registers. With few rows an expert (decoding) reading the matrices is all the time; a tile is then narrow to
leave registers for more tiles. These figures are the compiler's; no kernel of this file has run on an MI300X.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from kernels_pallas.call import by_platform, call, dot, within
from kernels_pallas.grouped_matmul.tiles import Tiles, schedule, tiles_for


def unmet(lhs_MK) -> str | None:
    """What the compiled kernels cannot take."""
    return "operands of float64" if lhs_MK.dtype == jnp.float64 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E, scale_M=None, interpret: bool = False, tiles: Tiles | None = None):
    """See `api.grouped_matmul`; returns the exact type. `tiles`: of all three kernels, `tiles_for` by default."""
    return _product(lhs_MK, rhs_ENK, group_sizes_E, interpret, tiles, transposed=True, scale_M=scale_M)


def _forward(lhs_MK, rhs_ENK, group_sizes_E, scale_M, interpret, tiles):
    arguments = (lhs_MK, rhs_ENK, group_sizes_E, scale_M)
    return grouped_matmul(*arguments, interpret, tiles), arguments


def _backward(interpret, tiles, saved, g_MN):
    """The gradient of a row's scale is g times the row before it: (g rhs) lhs, without that row."""
    lhs_MK, rhs_ENK, group_sizes_E, scale_M = saved
    d_lhs = _product(g_MN.astype(lhs_MK.dtype), rhs_ENK, group_sizes_E, interpret, tiles, transposed=False)
    d_scale = None
    if scale_M is not None:
        d_scale = jnp.sum(d_lhs * lhs_MK.astype(d_lhs.dtype), -1).astype(scale_M.dtype)
        d_lhs, g_MN = (x * scale_M[:, None].astype(d_lhs.dtype) for x in (d_lhs, g_MN))
    d_rhs = _outer(g_MN.astype(lhs_MK.dtype), lhs_MK, group_sizes_E, interpret, tiles).astype(rhs_ENK.dtype)
    return d_lhs.astype(lhs_MK.dtype), d_rhs, np.zeros(group_sizes_E.shape, jax.dtypes.float0), d_scale


grouped_matmul.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def grouped_swiglu(lhs_MK, rhs_ENK, group_sizes_E, interpret: bool = False, tiles: Tiles | None = None):
    """See `api.grouped_swiglu`. The backward pass computes gate and up once more instead of storing them."""
    width = rhs_ENK.shape[1] // 2
    return _gated(_swiglu_kernel, "grouped_swiglu", width, (lhs_MK, rhs_ENK, group_sizes_E), interpret, tiles)


def _swiglu_forward(lhs_MK, rhs_ENK, group_sizes_E, interpret, tiles):
    return grouped_swiglu(lhs_MK, rhs_ENK, group_sizes_E, interpret, tiles), (lhs_MK, rhs_ENK, group_sizes_E)


def _swiglu_backward(interpret, tiles, saved, g_MF):
    name, width = "grouped_swiglu_d_halves", saved[1].shape[1]
    d_halves_MN = _gated(_d_halves_kernel, name, width, (*saved, g_MF.astype(saved[0].dtype)), interpret, tiles)
    return _backward(interpret, tiles, (*saved, None), d_halves_MN)[:3]


grouped_swiglu.defvjp(_swiglu_forward, _swiglu_backward)


def _choice(tiles: Tiles | None, rows: int, experts: int, dtype):
    return lambda platform: tiles or tiles_for(platform, rows, experts, dtype)


def _gated(kernel, name: str, width: int, arrays, interpret, tiles: Tiles | None):
    """[M, width] of a kernel that computes gate and up, side by side, from lhs, rhs, group sizes and what follows."""
    (M, depth), (E, N, _) = arrays[0].shape, arrays[1].shape

    def run(t: Tiles, lhs_MK, rhs_ENK, group_sizes_E, *rest):
        plan = schedule(group_sizes_E, M, t.rows)
        grid = (plan.expert_X.shape[0], pl.cdiv(N // 2, t.columns // 2))
        result = jax.ShapeDtypeStruct((M, width), lhs_MK.dtype)
        return _call(kernel, name, grid, result, (*plan, lhs_MK, rhs_ENK, *rest), t, interpret, experts=E, depth=depth)

    return by_platform(name, run, _choice(tiles, M, E, arrays[0].dtype), arrays, interpret)


def _product(lhs, rhs_E, group_sizes_E, interpret, tiles: Tiles | None, transposed: bool, scale_M=None):
    """Every row times its expert's matrix, transposed or as it is, and its scale; zeros behind the last group."""
    (M, depth), (E, out_size, in_size) = lhs.shape, rhs_E.shape
    width = out_size if transposed else in_size
    name = "grouped_matmul" if transposed else "grouped_matmul_d_lhs"
    exact = _exact(lhs)
    scales = [] if scale_M is None else [scale_M.astype(exact)]

    def run(t: Tiles, lhs, rhs_E, group_sizes_E, *scales):
        plan = schedule(group_sizes_E, M, t.rows)
        grid = (plan.expert_X.shape[0], pl.cdiv(width, t.columns))
        result = jax.ShapeDtypeStruct((M, width), exact)
        static = {"experts": E, "depth": depth, "transposed": transposed}
        return _call(_product_kernel, name, grid, result, (*plan, lhs, rhs_E, *scales), t, interpret, **static)

    arrays = (lhs, rhs_E, group_sizes_E, *scales)
    return by_platform(name, run, _choice(tiles, M, E, lhs.dtype), arrays, interpret)


def _product_kernel(expert_ref, start_ref, stop_ref, lhs_ref, rhs_ref, *rest, t: Tiles, experts, depth, transposed):
    *scale_refs, out_ref = rest
    expert, start, stop = (ref[pl.program_id(0)] for ref in (expert_ref, start_ref, stop_ref))
    column = pl.program_id(1) * t.columns
    rows, columns = within(start, t.rows, stop), within(column, t.columns, out_ref.shape[1])

    def step(i, total):
        first = i * t.depth
        inner = within(first, t.depth, depth)
        x = _load(lhs_ref.at[pl.ds(start, t.rows), pl.ds(first, t.depth)], rows, inner)
        if transposed:
            w = _load(rhs_ref.at[expert, pl.ds(column, t.columns), pl.ds(first, t.depth)], columns, inner)
        else:
            w = _load(rhs_ref.at[expert, pl.ds(first, t.depth), pl.ds(column, t.columns)], inner, columns)
        return total + dot(x, w.astype(x.dtype), trans_b=transposed)

    steps = _steps(expert, experts, start, stop, depth, t)
    total = lax.fori_loop(0, steps, step, jnp.zeros((t.rows, t.columns), out_ref.dtype))
    for scale_ref in scale_refs:
        total *= triton.load(scale_ref.at[pl.ds(start, t.rows)], mask=rows, other=0)[:, None]
    out = out_ref.at[pl.ds(start, t.rows), pl.ds(column, t.columns)]
    triton.store(out, total, mask=rows[:, None] & columns[None])


def _swiglu_kernel(expert_ref, start_ref, stop_ref, lhs_ref, rhs_ref, out_ref, *, t: Tiles, experts, depth):
    place = _place(expert_ref, start_ref, stop_ref, t, out_ref.shape[1])
    gate, up = _gate_and_up(lhs_ref, rhs_ref, place, t, experts, depth)
    _store(out_ref, place, place.column, gate * jax.nn.sigmoid(gate) * up)


def _d_halves_kernel(expert_ref, start_ref, stop_ref, lhs_ref, rhs_ref, g_ref, out_ref, *, t: Tiles, experts, depth):
    """The gradients of gate and up, computed once more, from that of silu(gate) * up."""
    width = g_ref.shape[1]
    place = _place(expert_ref, start_ref, stop_ref, t, width)
    gate, up = _gate_and_up(lhs_ref, rhs_ref, place, t, experts, depth)
    at = g_ref.at[pl.ds(place.start, t.rows), pl.ds(place.column, t.columns // 2)]
    g = _load(at, place.rows, place.columns).astype(gate.dtype)
    some = jax.nn.sigmoid(gate)
    _store(out_ref, place, place.column, g * up * some * (1 + gate * (1 - some)))
    _store(out_ref, place, width + place.column, g * gate * some)


class _Place(NamedTuple):
    """A tile of half the columns: its expert and rows, its first column of `width`, and what there is of both."""

    expert: jax.Array
    start: jax.Array
    stop: jax.Array
    column: jax.Array
    rows: jax.Array
    columns: jax.Array
    width: int


def _place(expert_ref, start_ref, stop_ref, t: Tiles, width: int) -> _Place:
    expert, start, stop = (ref[pl.program_id(0)] for ref in (expert_ref, start_ref, stop_ref))
    column = pl.program_id(1) * (t.columns // 2)
    rows, columns = within(start, t.rows, stop), within(column, t.columns // 2, width)
    return _Place(expert, start, stop, column, rows, columns, width)


def _gate_and_up(lhs_ref, rhs_ref, place: _Place, t: Tiles, experts: int, depth: int):
    """Two tiles of half the columns: gate rows of the matrix, and the up rows that belong to them."""
    half = t.columns // 2

    def step(i, totals):
        first = i * t.depth
        inner = within(first, t.depth, depth)
        x = _load(lhs_ref.at[pl.ds(place.start, t.rows), pl.ds(first, t.depth)], place.rows, inner)

        def matrix(row):
            return _load(rhs_ref.at[place.expert, pl.ds(row, half), pl.ds(first, t.depth)], place.columns, inner)

        halves = matrix(place.column), matrix(place.width + place.column)
        return tuple(total + dot(x, w.astype(x.dtype), trans_b=True) for total, w in zip(totals, halves))

    zeros = jnp.zeros((t.rows, half), _exact(lhs_ref))
    return lax.fori_loop(0, _steps(place.expert, experts, place.start, place.stop, depth, t), step, (zeros, zeros))


def _store(ref, place: _Place, column, x) -> None:
    at = ref.at[pl.ds(place.start, x.shape[0]), pl.ds(column, x.shape[1])]
    triton.store(at, x.astype(ref.dtype), mask=place.rows[:, None] & place.columns[None])


def _outer(g_MN, lhs_MK, group_sizes_E, interpret, tiles: Tiles | None):
    """d_rhs [E, N, K]: each expert's rows of g transposed times its rows of lhs; zeros for one without rows."""
    (M, N), K, E = g_MN.shape, lhs_MK.shape[1], group_sizes_E.shape[0]

    def run(t: Tiles, g_MN, lhs_MK, group_sizes_E):
        stop_E = jnp.cumsum(group_sizes_E).astype(jnp.int32)
        grid = (pl.cdiv(K, t.rows), pl.cdiv(N, t.columns), E)
        result = jax.ShapeDtypeStruct((E, N, K), _exact(lhs_MK))
        arrays = (stop_E - group_sizes_E.astype(jnp.int32), stop_E, g_MN, lhs_MK)
        return _call(_outer_kernel, "grouped_matmul_d_rhs", grid, result, arrays, t, interpret)

    arrays = (g_MN, lhs_MK, group_sizes_E)
    return by_platform("grouped_matmul", run, _choice(tiles, M, E, lhs_MK.dtype), arrays, interpret)


def _outer_kernel(start_ref, stop_ref, g_ref, lhs_ref, out_ref, *, t: Tiles):
    expert = pl.program_id(2)
    start, stop = start_ref[expert], stop_ref[expert]
    column, row = pl.program_id(0) * t.rows, pl.program_id(1) * t.columns
    rows, columns = within(row, t.columns, out_ref.shape[1]), within(column, t.rows, out_ref.shape[2])

    def step(i, total):
        first = start + i * t.depth
        inner = within(first, t.depth, stop)
        g = _load(g_ref.at[pl.ds(first, t.depth), pl.ds(row, t.columns)], inner, rows)
        x = _load(lhs_ref.at[pl.ds(first, t.depth), pl.ds(column, t.rows)], inner, columns)
        return total + dot(g, x, trans_a=True)

    total = jnp.zeros((t.columns, t.rows), out_ref.dtype)
    total = lax.fori_loop(0, lax.div(stop - start + (t.depth - 1), jnp.int32(t.depth)), step, total)
    out = out_ref.at[expert, pl.ds(row, t.columns), pl.ds(column, t.rows)]
    triton.store(out, total, mask=rows[:, None] & columns[None])


def _steps(expert, experts: int, start, stop, depth: int, t: Tiles) -> jax.Array:
    """Of a tile's loop; none for one without an expert or without rows."""
    busy = ((expert < experts) & (start < stop)).astype(jnp.int32)
    return busy * pl.cdiv(depth, t.depth)  # not `where`, whose result the loop would take for a boolean


def _call(kernel, name: str, grid, result, arrays, t: Tiles, interpret: bool, **static) -> jax.Array:
    options = {"num_warps": t.num_warps, "num_stages": t.num_stages, "interpret": interpret}
    return call(kernel, name, grid, [result], arrays, t=t, **options, **static)[0]


def _exact(x) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _load(ref, rows, columns) -> jax.Array:
    return triton.load(ref, mask=rows[:, None] & columns[None], other=0)

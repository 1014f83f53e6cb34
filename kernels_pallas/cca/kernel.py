"""The CCA mix as kernels of Pallas' Triton backend, the one that compiles for MI300X.

A tile is some tokens of one head, of one row of the batch; in a decoding step, of which every row has one token, it is
some rows. Its latents are read three times, a place apart (the second and third time from cache), and every operand of
the grouped convolution is made in registers: the depthwise result, the means, the norm and the rotation never reach
memory. A head's output channels come in three parts, the two that are rotated into one another and the rest, for
registers cannot be cut.

The backward pass stores nothing but its inputs. `_d_sums` makes a tile once more and follows the gradient to the
convolution's result, `_d_depthwise` through the convolution, `_d_taps` to its weights; what is left is elementwise
(`gradients.py`).

Limits: a head of 128 channels does 2 * 2 * 128 * 128 operations a token on 512 bytes read and written, 128 a byte; an
MI300X has 1,307 TFLOP/s to 5.3 TB/s, 247 a byte. So memory bounds it, as long as the latents of a row tile, shared by
all heads, and the 64 KB of a head's taps are found in L2: heads are the grid's fastest axis. What the unfused form
writes and reads between its steps, five times the latents and in float32, is gone. On gfx942 64 rows take 195
registers a lane and 16 KB of LDS: of 8 waves, 2 a SIMD, one tile lives on a compute unit, for its 512 registers. The
taps are read 32 channels at a time; all 128 at once took 300 registers and spilled on sm_90. These figures are counted,
and the compiler's; no kernel of this file has run on an MI300X.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from kernels_pallas.call import by_platform, call, dot, fits, within
from kernels_pallas.cca import gradients
from kernels_pallas.cca.tiles import Tiles, tiles_for

_FLOOR = float(jnp.finfo(jnp.float32).eps) ** 2  # of a squared norm


def unmet(u_BTU, cos_BTR, w) -> str | None:
    """What the compiled kernels cannot take."""
    H, R = w.grouped_weight.shape[1], cos_BTR.shape[-1]
    if not fits(H, R, H - 2 * R):
        return f"the kernels need powers of two from 16 on, found heads of {H} channels with {R} rotated pairs"
    return "operands of float64" if u_BTU.dtype == jnp.float64 else None


def cca_mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w, *, interpret: bool = False, tiles: Tiles | None = None):
    """See `api.cca_mix`. cos and sin get no gradient: they come from positions."""
    follows_BT = jnp.asarray(follows_BT).at[:, 0].set(False).astype(jnp.int32)
    return _mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w, interpret, tiles)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w, interpret: bool, tiles: Tiles | None):
    (B, T, _), sizes = u_BTU.shape, _Sizes.of(u_BTU, cos_BTR, w, interpret)
    rows = _rows(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR)
    results = [jax.ShapeDtypeStruct((*rows[0].shape[:2], n * sizes.H), u_BTU.dtype) for n in (sizes.N, sizes.K)]

    def run(tiles: Tiles, *arrays):
        return _call(_mix_kernel, "cca_mix", sizes, results, arrays, interpret, tiles)

    arrays = rows + _operands(w, u_BTU.dtype, cos_BTR.dtype)
    q, k = by_platform("cca_mix", run, _choice(tiles, u_BTU), arrays, interpret)
    return q.reshape(B, T, sizes.N, sizes.H), k.reshape(B, T, sizes.K, sizes.H)


def _choice(tiles: Tiles | None, u_BTU):
    rows = u_BTU.shape[0] if u_BTU.shape[1] == 1 else u_BTU.shape[1]
    return lambda _: tiles or tiles_for(rows, u_BTU.dtype)


def _forward(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w, interpret, tiles):
    arguments = (u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w)
    return _mix(*arguments, interpret, tiles), arguments


def _backward(interpret, given: Tiles | None, saved, cotangents):
    u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w = saved
    sizes, exact = _Sizes.of(u_BTU, cos_BTR, w, interpret), cos_BTR.dtype
    rows, operands = _rows(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR), _operands(w, u_BTU.dtype, exact)
    (B, T, U), shape = rows[0].shape, u_BTU.shape
    like_u, slope = jax.ShapeDtypeStruct((B, T, U), u_BTU.dtype), jax.ShapeDtypeStruct((B, T, U // sizes.H), exact)

    def run(tiles: Tiles, rows, operands, g):
        u, state, follows, *_ = rows
        depthwise, taps, *_ = operands
        chunks = min(pl.cdiv(tiles.chunks, B), pl.cdiv(T, tiles.rows))
        partial = jax.ShapeDtypeStruct((B, chunks, 2, U, sizes.H), exact)
        call = functools.partial(_call, sizes=sizes, interpret=interpret, tiles=tiles)
        arrays = [*rows, *operands, *g]
        d_sums, d_scale = call(_d_sums_kernel, "cca_d_sums", results=[like_u, slope], arrays=arrays)
        arrays = [d_sums, follows, taps]
        (d_depthwise,) = call(_d_depthwise_kernel, "cca_d_depthwise", results=[like_u], arrays=arrays)
        arrays = [u, state, follows, depthwise, d_sums]
        wide = dataclasses.replace(tiles, rows=min(tiles.rows, 32), num_warps=8)  # two sums of H x H in registers
        (d_taps,) = call(_d_taps_kernel, "cca_d_taps", results=[partial], arrays=arrays, blocks=chunks, tiles=wide)
        return d_sums.reshape(shape), d_depthwise.reshape(shape), d_taps.sum((0, 1)), d_scale.sum((0, 1))

    arrays = (rows, operands, [x.astype(u_BTU.dtype).reshape(B, T, -1) for x in cotangents])
    sums = gradients.Sums(*by_platform("cca_mix", run, _choice(given, u_BTU), arrays, interpret))
    d_u, d_state, d_w = gradients.rest(u_BTU, state_B2U, follows_BT != 0, w, sums, exact)
    none = np.zeros(follows_BT.shape, jax.dtypes.float0)
    return d_u, d_state, none, jnp.zeros_like(cos_BTR), jnp.zeros_like(sin_BTR), d_w


_mix.defvjp(_forward, _backward)


class _Sizes(NamedTuple):
    """Static: query and key heads, channels of a head, rotated pairs; what is special of this call.

    Attributes:
        single: each row of the batch has one token. The batch is then the tokens' axis, all predecessors are states.
        lead: zeros put in front of the tokens, so that interpret mode finds what lies before the first one; a compiled
            kernel does not read there, for it is masked.
    """

    N: int
    K: int
    H: int
    R: int
    single: bool
    lead: int

    @classmethod
    def of(cls, u_BTU, cos_BTR, w, interpret: bool) -> _Sizes:
        H, K, single = w.grouped_weight.shape[1], w.temperature.shape[0], u_BTU.shape[1] == 1
        lead = 2 if interpret and not single else 0
        return cls(u_BTU.shape[2] // H - K, K, H, cos_BTR.shape[-1], single, lead)

    def parts(self) -> list[tuple[int, int]]:
        """First channel and width of a head's three parts."""
        parts = [(0, self.R), (self.R, self.R), (2 * self.R, self.H - 2 * self.R)]
        return [part for part in parts if part[1]]


def _rows(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR) -> list[jax.Array]:
    """As they are, and of a decoding step with the batch as the tokens' axis."""
    arrays = [u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR]
    if u_BTU.shape[1] > 1:
        return arrays
    return [x if x is state_B2U else jnp.swapaxes(x, 0, 1) for x in arrays]


def _operands(w, dtype, exact) -> list[jax.Array]:
    """Both depthwise taps and their bias [3, U], the grouped taps [2, U, H], their bias [U], every head's scale [X]."""
    U, H, _ = w.grouped_weight.shape
    depthwise_3U = jnp.concatenate([w.depthwise_weight[:, 0].T, w.depthwise_bias[None]]).astype(exact)
    taps_2UH = jnp.moveaxis(w.grouped_weight, -1, 0).astype(dtype)
    ones = jnp.ones((U // H - w.temperature.shape[0],), exact)
    scale_X = jnp.concatenate([ones, w.temperature.astype(exact)])
    return [depthwise_3U, taps_2UH, w.grouped_bias.astype(exact), scale_X]


def _mix_kernel(
    u_ref, state_ref, follows_ref, cos_ref, sin_ref, depthwise_ref, taps_ref, bias_ref, scale_ref, q_ref, k_ref,
    *, tiles: Tiles, sizes: _Sizes,
):  # fmt: skip
    place = _place(q_ref, tiles)
    sums = _sums(u_ref, state_ref, follows_ref, depthwise_ref, taps_ref, bias_ref, place, sizes, tiles)
    factor = (_inverse_norm(sums, sizes)[0] * scale_ref[place.head])[:, None]
    outs = [part * factor for part in _rotated(sums, *_angles(cos_ref, sin_ref, place))]
    for ref, first, count in ((q_ref, 0, sizes.N), (k_ref, sizes.N, sizes.K)):
        mine = place.real & (place.head >= first) & (place.head < first + count)
        column = jnp.clip(place.head - first, 0, count - 1) * sizes.H
        for (offset, _), out in zip(sizes.parts(), outs, strict=True):
            _store(ref, place, column + offset, out, mine)


def _d_sums_kernel(
    u_ref, state_ref, follows_ref, cos_ref, sin_ref, depthwise_ref, taps_ref, bias_ref, scale_ref, dq_ref, dk_ref,
    out_ref, d_scale_ref, *, tiles: Tiles, sizes: _Sizes,
):  # fmt: skip
    """The gradient of what the norm is taken of, and each token's share of the gradient of its head's scale."""
    place = _place(out_ref, tiles)
    sums = _sums(u_ref, state_ref, follows_ref, depthwise_ref, taps_ref, bias_ref, place, sizes, tiles)
    inverse, normal = _inverse_norm(sums, sizes)
    cos, sin = _angles(cos_ref, sin_ref, place)
    given = _rotated(_cotangent(dq_ref, dk_ref, place, sizes, cos.dtype), cos, -sin)
    # Of x = inverse * sums the gradient loses what points along x, whose length is fixed.
    along = sum(jnp.sum(part * g, -1) for part, g in zip(sums, given, strict=True)) * inverse
    scale = scale_ref[place.head]
    lost = (inverse * jnp.where(normal, along * inverse * (scale / sizes.H), 0))[:, None]
    factor = (inverse * scale)[:, None]
    for (offset, _), part, g in zip(sizes.parts(), sums, given, strict=True):
        _store(out_ref, place, place.head * sizes.H + offset, factor * g - lost * part, place.real)
    triton.store(d_scale_ref.at[place.batch, place.rows(), place.head], along, mask=place.real)


def _d_depthwise_kernel(d_sums_ref, follows_ref, taps_ref, out_ref, *, tiles: Tiles, sizes: _Sizes):
    """The gradient of the depthwise result: through the tap of its own place, and of the token that follows it."""
    place = _place(out_ref, tiles)
    column, H = place.head * sizes.H, sizes.H
    own = _load(d_sums_ref, place, column, H, place.real)
    through = dot(own, taps_ref[1, pl.ds(column, H), _all(H)])
    if not sizes.single:
        followed = within(place.row + 1, tiles.rows, out_ref.shape[1])
        followed &= triton.load(follows_ref.at[place.batch, place.rows(1)], mask=followed, other=0) != 0
        later = _load(d_sums_ref, place, column, H, followed, shift=1)
        through += dot(later, taps_ref[0, pl.ds(column, H), _all(H)])
    _store(out_ref, place, column, through, place.real)


def _d_taps_kernel(u_ref, state_ref, follows_ref, depthwise_ref, d_sums_ref, out_ref, *, tiles: Tiles, sizes: _Sizes):
    """A chunk's part of the gradient of a head's grouped taps."""
    (head, chunk, batch), (T, H) = map(pl.program_id, range(3)), (d_sums_ref.shape[1], sizes.H)
    per_chunk = pl.cdiv(pl.cdiv(T, tiles.rows), out_ref.shape[1])

    def step(i, totals):
        place = _Place.at(head, (chunk * per_chunk + i) * tiles.rows, batch, tiles.rows, T)
        g = _load(d_sums_ref, place, head * H, H, place.real)
        depthwise = _depthwise(u_ref, state_ref, follows_ref, depthwise_ref, place, head * H, H, sizes)
        return tuple(total + dot(g, d, trans_a=True) for total, d in zip(totals, depthwise, strict=True))

    zeros = jnp.zeros((H, H), out_ref.dtype)
    totals = lax.fori_loop(0, per_chunk, step, (zeros, zeros))
    for tap, total in enumerate(totals):
        triton.store(out_ref.at[batch, chunk, jnp.int32(tap), pl.ds(head * H, H), _all(H)], total)


class _Place(NamedTuple):
    """Where a tile lies: its head, first token and row of the batch; which of its tokens there are, [rows]."""

    head: jax.Array
    row: jax.Array
    batch: jax.Array
    real: jax.Array

    @classmethod
    def at(cls, head, row, batch, rows: int, stop: int) -> _Place:
        return cls(head, row, batch, within(row, rows, stop))

    def rows(self, shift: int = 0) -> pl.Slice:
        return pl.ds(self.row + shift, self.real.shape[0])


def _place(out_ref, tiles: Tiles) -> _Place:
    """Of this program."""
    head, block, batch = map(pl.program_id, range(3))
    return _Place.at(head, block * tiles.rows, batch, tiles.rows, out_ref.shape[1])


def _sums(u_ref, state_ref, follows_ref, depthwise_ref, taps_ref, bias_ref, place: _Place, sizes: _Sizes, tiles):
    """Both convolutions and the mean, part by part: what the norm is taken of.

    Some channels of the depthwise result at a time: the head's taps all at once would fill the registers.
    """
    column, depth, exact = place.head * sizes.H, min(tiles.depth, sizes.H), depthwise_ref.dtype

    def step(i, totals):
        inner = i * depth
        both = _depthwise(u_ref, state_ref, follows_ref, depthwise_ref, place, column + inner, depth, sizes)

        def products(offset: int, width: int):
            rows = pl.ds(column + offset, width)
            return [dot(d, taps_ref[tap, rows, pl.ds(inner, depth)], trans_b=True) for tap, d in enumerate(both)]

        return tuple(total + sum(products(*part)) for total, part in zip(totals, sizes.parts(), strict=True))

    zeros = tuple(jnp.zeros((tiles.rows, width), exact) for _, width in sizes.parts())
    totals = lax.fori_loop(0, sizes.H // depth, step, zeros)

    def rest(offset: int, width: int):
        return bias_ref[pl.ds(column + offset, width)][None] + _mean(u_ref, place, offset, width, sizes, exact)

    return [total + rest(*part) for total, part in zip(totals, sizes.parts(), strict=True)]


def _depthwise(u_ref, state_ref, follows_ref, depthwise_ref, place: _Place, column, width: int, sizes: _Sizes):
    """The first convolution's result one token before each of the tile and at it, rounded to the type of u."""
    tap0, tap1, bias = (depthwise_ref[i, pl.ds(column, width)][None] for i in range(3))
    u2, u1, u0 = _latents(u_ref, state_ref, follows_ref, place, column, width, sizes, tap0.dtype)
    return [(tap0 * left + tap1 * right + bias).astype(u_ref.dtype) for left, right in ((u2, u1), (u1, u0))]


def _latents(u_ref, state_ref, follows_ref, place: _Place, column, width: int, sizes: _Sizes, exact):
    """u two tokens before each of the tile, one before, and its own, [rows, width] each."""
    lead = sizes.lead

    def earlier(back: int, mask):
        return _load(u_ref, place, column, width, mask, shift=lead - back).astype(exact)

    now = earlier(0, place.real)
    if sizes.single:
        mask = jnp.broadcast_to(place.real[:, None], now.shape)
        states = [state_ref.at[place.rows(), jnp.int32(i), pl.ds(column, width)] for i in range(2)]
        return [*(triton.load(state, mask=mask, other=0).astype(exact) for state in states), now]
    follows, before = (
        triton.load(follows_ref.at[place.batch, place.rows(lead - back)], mask=place.real & there, other=0) != 0
        for back, there in ((0, True), (1, place.row + jnp.arange(place.real.shape[0]) > 0))
    )
    twice = follows & before
    older, newer = (state_ref[place.batch, i, pl.ds(column, width)].astype(exact)[None] for i in range(2))
    first = jnp.where(follows[:, None], newer, older)
    return [
        jnp.where(twice[:, None], earlier(2, place.real & twice), first),
        jnp.where(follows[:, None], earlier(1, place.real & follows), newer),
        now,
    ]


def _mean(u_ref, place: _Place, offset: int, width: int, sizes: _Sizes, exact):
    """Half of the key head's latents, and half of the query head's own, or for a key head, of its group's mean."""
    group, head = sizes.N // sizes.K, place.head
    is_key = (head >= sizes.N).astype(jnp.int32)
    key = is_key * (head - sizes.N) + (1 - is_key) * lax.div(head, jnp.int32(group))
    first, count = is_key * key * group + (1 - is_key) * head, is_key * group + (1 - is_key)

    def latents(h):
        return _load(u_ref, place, h * sizes.H + offset, width, place.real, shift=sizes.lead).astype(exact)

    zeros = jnp.zeros((place.real.shape[0], width), exact)
    queries = lax.fori_loop(first, first + count, lambda h, total: total + latents(h), zeros)
    return 0.5 * (queries * (1 / count.astype(exact)) + latents(sizes.N + key))


def _inverse_norm(sums, sizes: _Sizes):
    """sqrt(H) / |x| of each row, and whether its norm is above the floor."""
    square = sum(jnp.sum(part * part, -1) for part in sums)
    return sizes.H**0.5 * lax.rsqrt(jnp.maximum(square, _FLOOR)), square > _FLOOR


def _angles(cos_ref, sin_ref, place: _Place):
    return [_load(ref, place, np.int32(0), ref.shape[2], place.real) for ref in (cos_ref, sin_ref)]


def _rotated(parts, cos, sin):
    a, b, *rest = parts
    return [a * cos - b * sin, b * cos + a * sin, *rest]


def _cotangent(dq_ref, dk_ref, place: _Place, sizes: _Sizes, exact):
    """The head's part of the gradient of the queries, or of the keys."""
    head, is_query = place.head, place.head < sizes.N
    q_column, k_column = jnp.minimum(head, sizes.N - 1) * sizes.H, jnp.maximum(head - sizes.N, 0) * sizes.H

    def part(offset, width):
        of_query = _load(dq_ref, place, q_column + offset, width, place.real & is_query)
        return (of_query + _load(dk_ref, place, k_column + offset, width, place.real & ~is_query)).astype(exact)

    return [part(offset, width) for offset, width in sizes.parts()]


def _load(ref, place: _Place, column, width: int, mask, shift: int = 0) -> jax.Array:
    """[rows, width] from a column on, of the tile's tokens or those `shift` behind; zeros where the mask is False."""
    mask = jnp.broadcast_to(mask[:, None], (mask.shape[0], width))
    return triton.load(ref.at[place.batch, place.rows(shift), pl.ds(column, width)], mask=mask, other=0)


def _store(ref, place: _Place, column, x, mask) -> None:
    mask = jnp.broadcast_to(mask[:, None], x.shape)
    triton.store(ref.at[place.batch, place.rows(), pl.ds(column, x.shape[1])], x.astype(ref.dtype), mask=mask)


def _all(H: int) -> pl.Slice:
    return pl.ds(np.int32(0), H)


def _call(kernel, name: str, sizes: _Sizes, results, arrays, interpret: bool, tiles: Tiles, blocks: int | None = None):
    """The first array is the one whose tokens make the grid; interpret mode's zeros are put in front here."""
    B, T, _ = arrays[0].shape
    if sizes.lead and name != "cca_d_depthwise":
        u, state, follows, *rest = arrays
        arrays = [_led(u, sizes.lead), state, _led(follows, sizes.lead), *rest]
    grid = (sizes.N + sizes.K, blocks or pl.cdiv(T, tiles.rows), B)
    options = {"num_warps": tiles.num_warps, "num_stages": 1, "interpret": interpret}
    return call(kernel, name, grid, results, arrays, tiles=tiles, sizes=sizes, **options)


def _led(x, lead: int):
    return jnp.pad(x, [(lead if axis == 1 else 0, 0) for axis in range(x.ndim)])

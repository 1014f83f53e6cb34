"""Attention as kernels of Pallas' Triton backend, the one that compiles for MI300X.

A tile of queries is a few tokens with all heads of one group, which read the same key head: with 4 or 8 of them, keys
and values are read once for 4 or 8 heads. It meets its keys block by block with a running maximum and sum; blocks that
cannot be seen (`tiles.spans`) are left out. The backward pass computes the weights once more from the log-sum-exp:
`_d_queries` a tile of queries at a time, `_d_keys` a block of keys at a time, where a group's gradients are summed in
registers.

Limits: 64 rows and 32 keys of width 128 in bfloat16 are 4 * 64 * 32 * 128 operations on 16 KB of keys and values, 64 a
byte, from L2 when tiles of one row of the batch run side by side. Registers decide the tile, not the 16 KB of LDS: the
result, 64 x 128 in float32, and the scores take 232 of a lane's 512 on gfx942; 64 keys take 322, and in `_d_keys`, with
two such results, spill, so it takes half the rows. sm_90, whose warps are half as wide, takes 128 x 64 with 8 of them.
One stage: the second product's operands wait for the first.

In a decoding step memory is the bound: 4 operations a key's channel for each of the group's 4 or 8 rows, 4 to 8 a byte.
Where tiles are fewer than compute units, each takes a part of the keys that can be seen (`tiles.parts`), and the parts
are joined by their log-sum-exp: 304 parts of one row's cache of 131,072 tokens. The tile is small, 156 registers, for
three waves a SIMD to have keys under way. These figures are the compiler's; no kernel of this file has run on an
MI300X.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from kernels_pallas.call import by_platform, call, dot, fits, within
from kernels_pallas.flash_attention.tiles import Tiles, parts, spans, tiles_for

_LOWEST = -1e30  # finite: the difference of two is not NaN


def unmet(q_BTNH, k_BSKH) -> str | None:
    """What the compiled kernels cannot take."""
    group, H = q_BTNH.shape[2] // k_BSKH.shape[2], q_BTNH.shape[3]
    if not fits(H) or group & (group - 1):
        return f"the kernels need powers of two and heads from 16 on, found heads of {H} in groups of {group}"
    return "operands of float64" if q_BTNH.dtype == jnp.float64 else None


def attention(q, k, v, q_index, k_index, q_segments, k_segments, *, window=None, aligned=False, interpret=False):
    """See `api.attention`."""
    del aligned  # told from the indices
    masks = (x.astype(jnp.int32) for x in map(jnp.asarray, (q_index, k_index, q_segments, k_segments)))
    return attention_and_lse(q, k, v, *masks, window, interpret)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def attention_and_lse(
    q, k, v, q_index, k_index, q_segments, k_segments, window, interpret: bool, tiles: Tiles | None = None
):
    """The result, and the natural log of each query's sum of exponentials, [B, T, N]; the latter has no gradient.

    `tiles`: of all kernels; `tiles_for` the platform by default.
    """
    (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
    exact, group = jnp.promote_types(q.dtype, jnp.float32), N // K

    def run(tiles: Tiles, q, k, v, *masks):
        tokens = tiles.tokens(group)
        blocks, split = pl.cdiv(T, tokens), parts(pl.cdiv(T, tokens) * K * B, pl.cdiv(S, tiles.keys))
        first, stop = spans(*masks, window, tokens, tiles.keys)[:2]
        results = [
            jax.ShapeDtypeStruct((split, *q.shape), v.dtype if split == 1 else exact),
            jax.ShapeDtypeStruct((split, B, T, N), exact),
        ]
        static = {"tiles": tiles, "window": window, "group": group}
        arrays = (first, stop, *masks, q, k, v)
        found = _call(_forward_kernel, "attention", (blocks * split, K, B), results, arrays, interpret, **static)
        out, lse = (x[0] for x in found) if split == 1 else _joined(*found)
        return out.astype(v.dtype), lse

    arrays = (q, k, v, q_index, k_index, q_segments, k_segments)
    return by_platform("attention", run, _choice(tiles, q, k), arrays, interpret)


def _choice(tiles: Tiles | None, q, k):
    rows = q.shape[1] * (q.shape[2] // k.shape[2])
    return lambda platform: tiles or tiles_for(platform, q.dtype, rows)


def _joined(out_PBTNH, lse_PBTN):
    """What all parts of the keys give together, from what each gave alone."""
    greatest = lse_PBTN.max(0)
    weights = jnp.exp(lse_PBTN - greatest)
    total = weights.sum(0)
    out = jnp.sum(out_PBTNH * weights[..., None], 0) / total[..., None]
    return out, jnp.where(greatest > _LOWEST, greatest + jnp.log(total), _LOWEST)


def _forward(q, k, v, q_index, k_index, q_segments, k_segments, window, interpret, tiles):
    masks = (q_index, k_index, q_segments, k_segments)
    out, lse = attention_and_lse(q, k, v, *masks, window, interpret, tiles)
    return (out, lse), (q, k, v, *masks, out, lse)


def _backward(window, interpret, given: Tiles | None, saved, cotangents):
    q, k, v, *masks, out, lse = saved
    (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
    delta = jnp.sum(cotangents[0].astype(lse.dtype) * out.astype(lse.dtype), -1)

    def run(tiles: Tiles, q, k, v, g, lse, delta, *masks):
        group, halved = N // K, dataclasses.replace(tiles, rows=max(tiles.rows // 2, 16))
        span = spans(*masks, window, tiles.tokens(group), tiles.keys)[:2]
        q_span = spans(*masks, window, halved.tokens(group), halved.keys)[2:]
        like_q, like_k, like_v = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v))
        arrays, static = (*masks, q, k, v, g, lse, delta), {"window": window, "group": group, "interpret": interpret}
        grid = (pl.cdiv(T, tiles.tokens(group)), K, B)
        dq = _call(_d_queries_kernel, "attention_d_queries", grid, [like_q], (*span, *arrays), tiles=tiles, **static)
        grid = (pl.cdiv(S, halved.keys), K, B)
        results, arrays = [like_k, like_v], (*q_span, *arrays)
        return *dq, *_call(_d_keys_kernel, "attention_d_keys", grid, results, arrays, tiles=halved, **static)

    arrays = (q, k, v, cotangents[0].astype(v.dtype), lse, delta, *masks)
    gradients = by_platform("attention", run, _choice(given, q, k), arrays, interpret)
    return *gradients, *(np.zeros(mask.shape, jax.dtypes.float0) for mask in masks)


attention_and_lse.defvjp(_forward, _backward)


def _forward_kernel(
    first_ref, stop_ref, qi_ref, ki_ref, qs_ref, ks_ref, q_ref, k_ref, v_ref, out_ref, lse_ref, *, tiles, window, group
):
    (i, h, b), (T, H), parts = map(pl.program_id, range(3)), (q_ref.shape[1], q_ref.shape[3]), out_ref.shape[0]
    part, i = lax.rem(i, jnp.int32(parts)), lax.div(i, jnp.int32(parts))
    tokens = tiles.tokens(group)
    token, rows, exact = i * tokens, tokens * group, lse_ref.dtype
    q, qi, qs = _queries(q_ref, qi_ref, qs_ref, b, h, token, tokens, group)

    def step(j, carry):
        greatest, total, out = carry
        k, v, ki, ks = _keys(k_ref, v_ref, ki_ref, ks_ref, b, h, j * tiles.keys, tiles.keys)
        seen = _seen(qi, qs, ki, ks, window)
        scores = jnp.where(seen, dot(q, k, trans_b=True) * _scale(H), _LOWEST)
        now = jnp.maximum(greatest, scores.max(-1))
        weights = jnp.where(seen, jnp.exp2(scores - now[:, None]), 0)
        shrink = jnp.exp2(greatest - now)
        return now, total * shrink + weights.sum(-1), out * shrink[:, None] + dot(weights.astype(v.dtype), v)

    start = (jnp.full((rows,), _LOWEST, exact), jnp.zeros((rows,), exact), jnp.zeros((rows, H), exact))
    first, seen = first_ref[b, i], stop_ref[b, i] - first_ref[b, i]
    # A part takes its share of the blocks that can be seen, wherever they lie.
    low, high = (first + lax.div(seen * n, jnp.int32(parts)) for n in (part, part + 1))
    greatest, total, out = lax.fori_loop(low, high, step, start)
    some = total > 0
    out = jnp.where(some[:, None], out / jnp.where(some, total, 1)[:, None], 0).astype(out_ref.dtype)
    lse = jnp.where(some, (greatest + jnp.log2(jnp.where(some, total, 1))) * math.log(2), _LOWEST)
    real = within(token, tokens, T)
    at = (part, b, pl.ds(token, tokens), pl.ds(h * group, group))
    triton.store(out_ref.at[*at, _whole(H)], out.reshape(tokens, group, H), mask=_all(real, group, H))
    triton.store(lse_ref.at[*at], lse.reshape(tokens, group), mask=jnp.broadcast_to(real[:, None], (tokens, group)))


def _d_queries_kernel(
    first_ref, stop_ref, qi_ref, ki_ref, qs_ref, ks_ref, q_ref, k_ref, v_ref, g_ref, lse_ref, delta_ref, dq_ref,
    *, tiles, window, group,
):  # fmt: skip
    (i, h, b), (T, H) = map(pl.program_id, range(3)), (q_ref.shape[1], q_ref.shape[3])
    tokens = tiles.tokens(group)
    token = i * tokens
    q, qi, qs = _queries(q_ref, qi_ref, qs_ref, b, h, token, tokens, group)
    g, lse, delta = _cotangents(g_ref, lse_ref, delta_ref, b, h, token, tokens, group)

    def step(j, dq):
        k, v, ki, ks = _keys(k_ref, v_ref, ki_ref, ks_ref, b, h, j * tiles.keys, tiles.keys)
        _, d_scores = _slopes(q, k, v, g, lse, delta, _seen(qi, qs, ki, ks, window))
        return dq + dot(d_scores.astype(k.dtype), k)

    dq = lax.fori_loop(first_ref[b, i], stop_ref[b, i], step, jnp.zeros((tokens * group, H), lse.dtype))
    out = dq_ref.at[b, pl.ds(token, tokens), pl.ds(h * group, group), _whole(H)]
    real = within(token, tokens, T)
    triton.store(out, dq.reshape(tokens, group, H).astype(dq_ref.dtype), mask=_all(real, group, H))


def _d_keys_kernel(
    first_ref, stop_ref, qi_ref, ki_ref, qs_ref, ks_ref, q_ref, k_ref, v_ref, g_ref, lse_ref, delta_ref, dk_ref, dv_ref,
    *, tiles, window, group,
):  # fmt: skip
    (j, h, b), (S, H) = map(pl.program_id, range(3)), (k_ref.shape[1], k_ref.shape[3])
    tokens, key = tiles.tokens(group), j * tiles.keys
    k, v, ki, ks = _keys(k_ref, v_ref, ki_ref, ks_ref, b, h, key, tiles.keys)

    def step(i, sums):
        dk, dv = sums
        q, qi, qs = _queries(q_ref, qi_ref, qs_ref, b, h, i * tokens, tokens, group)
        g, lse, delta = _cotangents(g_ref, lse_ref, delta_ref, b, h, i * tokens, tokens, group)
        weights, d_scores = _slopes(q, k, v, g, lse, delta, _seen(qi, qs, ki, ks, window))
        dk = dk + dot(d_scores.astype(q.dtype), q, trans_a=True)
        return dk, dv + dot(weights.astype(g.dtype), g, trans_a=True)

    zeros = jnp.zeros((tiles.keys, H), lse_ref.dtype)
    sums = lax.fori_loop(first_ref[b, j], stop_ref[b, j], step, (zeros, zeros))
    real = jnp.broadcast_to(within(key, tiles.keys, S)[:, None], (tiles.keys, H))
    for ref, total in zip((dk_ref, dv_ref), sums, strict=True):
        out = ref.at[b, pl.ds(key, tiles.keys), h, _whole(H)]
        triton.store(out, total.astype(ref.dtype), mask=real)


def _slopes(q, k, v, g, lse, delta, seen):
    """The weights, and the gradient of q k before its scale."""
    H = q.shape[1]
    scores = dot(q, k, trans_b=True) * _scale(H)
    weights = jnp.where(seen, jnp.exp2(scores - lse[:, None] * math.log2(math.e)), 0)
    return weights, weights * (dot(g, v, trans_b=True) - delta[:, None]) * H**-0.5


def _queries(q_ref, qi_ref, qs_ref, b, h, token, tokens: int, group: int):
    """Rows (a token's heads side by side) with their index and segment; what lies behind the end is padding."""
    H = q_ref.shape[3]
    real = within(token, tokens, q_ref.shape[1])
    at = q_ref.at[b, pl.ds(token, tokens), pl.ds(h * group, group), _whole(H)]
    q = triton.load(at, mask=_all(real, group, H), other=0).reshape(tokens * group, H)
    index, segment = (triton.load(ref.at[b, pl.ds(token, tokens)], mask=real, other=0) for ref in (qi_ref, qs_ref))
    return q, _each_head(index, group), _each_head(segment, group)


def _cotangents(g_ref, lse_ref, delta_ref, b, h, token, tokens: int, group: int):
    H = g_ref.shape[3]
    real = within(token, tokens, g_ref.shape[1])
    at = (b, pl.ds(token, tokens), pl.ds(h * group, group))
    g = triton.load(g_ref.at[*at, _whole(H)], mask=_all(real, group, H), other=0).reshape(tokens * group, H)
    some = jnp.broadcast_to(real[:, None], (tokens, group))
    lse, delta = (triton.load(ref.at[*at], mask=some, other=0).reshape(tokens * group) for ref in (lse_ref, delta_ref))
    return g, lse, delta


def _keys(k_ref, v_ref, ki_ref, ks_ref, b, h, key, keys: int):
    H = k_ref.shape[3]
    real = within(key, keys, k_ref.shape[1])
    some = jnp.broadcast_to(real[:, None], (keys, H))
    k, v = (triton.load(ref.at[b, pl.ds(key, keys), h, _whole(H)], mask=some, other=0) for ref in (k_ref, v_ref))
    index = triton.load(ki_ref.at[b, pl.ds(key, keys)], mask=real, other=-1)
    segment = triton.load(ks_ref.at[b, pl.ds(key, keys)], mask=real, other=0)
    return k, v, index, segment


def _seen(qi, qs, ki, ks, window):
    """As `reference.visible`, for rows and a block of keys."""
    distance = qi[:, None] - ki[None]
    seen = (distance >= 0) & (qs[:, None] == ks[None]) & (qs != 0)[:, None] & (ki >= 0)[None]
    return seen if window is None else seen & (distance < window)


def _each_head(x, group: int):
    return jnp.broadcast_to(x[:, None], (x.shape[0], group)).reshape(x.shape[0] * group)


def _all(real, group: int, H: int):
    return jnp.broadcast_to(real[:, None, None], (real.shape[0], group, H))


def _whole(H: int) -> pl.Slice:
    """All channels; with a start of 32 bits, for interpret mode mixes no types of indices where 64 are the default."""
    return pl.ds(np.int32(0), H)


def _scale(H: int) -> float:
    """Of the scores, to the base of 2."""
    return H**-0.5 * math.log2(math.e)


def _call(kernel, name: str, grid, results, arrays, interpret: bool, *, tiles: Tiles, **static) -> list[jax.Array]:
    options = {"num_warps": tiles.num_warps, "num_stages": 1, "interpret": interpret}
    return call(kernel, name, grid, results, arrays, tiles=tiles, **options, **static)

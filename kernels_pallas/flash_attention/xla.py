"""Attention in plain XLA, block of queries by block of queries, so that [T, S] never exists as a whole."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.bits import moved
from kernels_pallas.flash_attention.reference import visible

_BLOCK = 128  # queries: enough rows for the products, few enough that the scores stay in cache
_KEYS = 256  # of a decoding step, read together


def attention(
    q_BTNH, k_BSKH, v_BSKH, q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, *, window=None, aligned=False
):
    """See `api.attention`. The backward pass recomputes each block's weights."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    if T == 1:
        seen_BS = visible(q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, window)[:, 0]
        return _one_query(q_BTNH[:, 0], k_BSKH, v_BSKH, seen_BS)[:, None]
    q = q_BTNH.reshape(B, T, K, N // K, H)
    block = max(_BLOCK, -(-T // 32))  # no more than 32 blocks: they are unrolled
    run = functools.partial(_block, window=window)
    if T > block:
        run = jax.checkpoint(run)
    outputs = []
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        columns = slice(0, rows.stop) if aligned else slice(None)
        outputs.append(
            run(
                q[:, rows],
                k_BSKH[:, columns],
                v_BSKH[:, columns],
                q_index_BT[:, rows],
                k_index_BS[:, columns],
                q_segments_BT[:, rows],
                k_segments_BS[:, columns],
            )
        )
    return jnp.concatenate(outputs, axis=1).reshape(B, T, N, H)


def _one_query(q_BNH, k_BSKH, v_BSKH, seen_BS):
    """The decoding step. Keys and values stay as they lie, [S, K * H]: a product per head would transpose them first.

    Each query is laid out over all heads' channels, with zeros for those of other heads; of its result over all heads'
    channels, its own are taken. That is K times the products, of which there are few.
    """
    B, S, K, H = k_BSKH.shape
    G = q_BNH.shape[1] // K
    dtype = jnp.promote_types(q_BNH.dtype, jnp.float32)
    own_KK = jnp.eye(K, dtype=q_BNH.dtype)
    q_BMX = (q_BNH.reshape(B, K, G, 1, H) * own_KK[:, None, :, None]).reshape(B, K * G, K * H)
    keys, values = k_BSKH.reshape(B, S, K * H), v_BSKH.reshape(B, S, K * H)
    sums = _sums_by_block if S > _KEYS and S % _KEYS == 0 else _sums
    total, out = sums(q_BMX, keys, values, seen_BS, H)
    out = (out.reshape(B, K, G, K, H) * own_KK.astype(dtype)[:, None, :, None]).sum(3).reshape(B, K * G, H)
    out = out / total[..., None]
    return jnp.where(seen_BS.any(-1)[:, None, None], out, 0).astype(v_BSKH.dtype)


def _sums(q_BMX, k_BSX, v_BSX, seen_BS, H: int):
    """The weights' sum [B, M] and the weighted values' [B, M, X]."""
    scores = _scores(q_BMX, k_BSX, seen_BS, H)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    return weights.sum(-1), _weighted(weights, v_BSX)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums_by_block(q_BMX, k_BSX, v_BSX, seen_BS, H: int):
    """`_sums` up to a common factor, block by block and only as far as any row's keys reach: a cache has room for more.

    A block in which a row sees nothing changes no bit of its sums, so that they do not depend on other rows.
    """
    (B, M, X), dtype = q_BMX.shape, jnp.promote_types(q_BMX.dtype, jnp.float32)
    reach = jnp.max(jnp.where(seen_BS.any(0), jnp.arange(1, seen_BS.shape[1] + 1, dtype=jnp.int32), 0))

    def add(i, carry):
        most_BM, total_BM, out_BMX = carry
        k, v, seen = (
            moved(lambda a: lax.dynamic_slice_in_dim(a, i * _KEYS, _KEYS, 1), x) for x in (k_BSX, v_BSX, seen_BS)
        )
        scores = _scores(q_BMX, k, seen, H)
        now_BM = jnp.maximum(most_BM, scores.max(-1))
        weights, shrunk_BM = jnp.exp(scores - now_BM[..., None]), jnp.exp(most_BM - now_BM)
        return (
            now_BM,
            total_BM * shrunk_BM + weights.sum(-1),
            out_BMX * shrunk_BM[..., None] + _weighted(weights, v),
        )

    none = (jnp.full((B, M), jnp.finfo(dtype).min), jnp.zeros((B, M), dtype), jnp.zeros((B, M, X), dtype))
    _, total_BM, out_BMX = lax.fori_loop(0, -(-reach // _KEYS), add, none)
    return total_BM, out_BMX


def _sums_by_block_forward(q_BMX, k_BSX, v_BSX, seen_BS, H: int):
    return _sums_by_block(q_BMX, k_BSX, v_BSX, seen_BS, H), (q_BMX, k_BSX, v_BSX, seen_BS)


def _sums_by_block_backward(H: int, saved, cotangents):
    *arrays, seen_BS = saved
    _, back = jax.vjp(lambda *x: _sums(*x, seen_BS, H), *arrays)
    return (*back(cotangents), np.zeros(seen_BS.shape, jax.dtypes.float0))


_sums_by_block.defvjp(_sums_by_block_forward, _sums_by_block_backward)


def _scores(q_BMX, k_BSX, seen_BS, H: int):
    """[B, M, S]."""
    dtype = jnp.promote_types(q_BMX.dtype, jnp.float32)
    scores = lax.dot_general(q_BMX, k_BSX, (((2,), (2,)), ((0,), (0,))), preferred_element_type=dtype)
    return jnp.where(seen_BS[:, None], scores * jnp.asarray(H**-0.5, dtype), jnp.finfo(dtype).min)


def _weighted(weights_BMS, v_BSX):
    """[B, M, X]."""
    contracted = (((2,), (1,)), ((0,), (0,)))
    return lax.dot_general(weights_BMS.astype(v_BSX.dtype), v_BSX, contracted, preferred_element_type=weights_BMS.dtype)


def _block(q_BTKGH, k_BSKH, v_BSKH, q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, *, window):
    B, T, K, G, H = q_BTKGH.shape
    dtype = jnp.promote_types(q_BTKGH.dtype, jnp.float32)
    seen = visible(q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, window)
    # The group's queries are the rows of one product per key head.
    q = jnp.transpose(q_BTKGH, (0, 2, 3, 1, 4)).reshape(B, K, G * T, H)
    scores = lax.dot_general(q, k_BSKH, (((3,), (3,)), ((0, 1), (0, 2))), preferred_element_type=dtype)
    scores = scores.reshape(B, K, G, T, -1) * jnp.asarray(H**-0.5, dtype)
    scores = jnp.where(seen[:, None, None], scores, jnp.finfo(dtype).min)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1)
    weights = weights.reshape(B, K, G * T, -1).astype(v_BSKH.dtype)
    out = lax.dot_general(weights, v_BSKH, (((3,), (1,)), ((0, 1), (0, 2))), preferred_element_type=dtype)
    out = out.reshape(B, K, G, T, H) / total[..., None]
    out = jnp.where(seen.any(-1)[:, None, None, :, None], out, 0).astype(v_BSKH.dtype)
    return jnp.transpose(out, (0, 3, 1, 2, 4))

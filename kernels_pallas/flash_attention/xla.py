"""Attention in plain XLA, block of queries by block of queries, so that [T, S] never exists as a whole."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.flash_attention.reference import visible

_BLOCK = 128  # queries: enough rows for the products, few enough that the scores stay in cache


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
    scores = lax.dot_general(q_BMX, keys, (((2,), (2,)), ((0,), (0,))), preferred_element_type=dtype)
    scores = jnp.where(seen_BS[:, None], scores * jnp.asarray(H**-0.5, dtype), jnp.finfo(dtype).min)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1)
    out = lax.dot_general(
        weights.astype(values.dtype), values, (((2,), (1,)), ((0,), (0,))), preferred_element_type=dtype
    )
    out = (out.reshape(B, K, G, K, H) * own_KK.astype(dtype)[:, None, :, None]).sum(3).reshape(B, K * G, H)
    out = out / total[..., None]
    return jnp.where(seen_BS.any(-1)[:, None, None], out, 0).astype(v_BSKH.dtype)


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

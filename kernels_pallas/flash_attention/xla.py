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

"""Attention written as its definition. Materialises [B, N, T, S]: the oracle, not a fast path."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention(
    q_BTNH, k_BSKH, v_BSKH, q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, *, window=None, aligned=False
):
    """See `api.attention`."""
    del aligned  # a hint about the mask, which is computed in full here
    dtype = jnp.promote_types(q_BTNH.dtype, jnp.float32)
    q, k, v = (x.astype(dtype) for x in (q_BTNH, k_BSKH, v_BSKH))
    groups = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, groups, axis=2), jnp.repeat(v, groups, axis=2)
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) / jnp.sqrt(jnp.asarray(q.shape[-1], dtype))
    seen = visible(q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, window)[:, None]
    # Masked twice: a query that sees nothing gets zeros, and gradients without the NaN of an unbounded exponential.
    weights = jnp.where(seen, jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(dtype).min), axis=-1), 0)
    return jnp.einsum("bnts,bsnh->btnh", weights, v).astype(v_BSKH.dtype)


def visible(q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, window):
    """Which keys each query sees, boolean [B, T, S]."""
    distance = q_index_BT[:, :, None] - k_index_BS[:, None, :]
    seen = (distance >= 0) & (q_segments_BT[:, :, None] == k_segments_BS[:, None, :])
    seen &= (q_segments_BT != 0)[:, :, None] & (k_index_BS >= 0)[:, None, :]
    return seen if window is None else seen & (distance < window)

"""The CCA mix written as its definition: one position after the other. The oracle, not a fast path."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cca_mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w):
    """See `api.cca_mix`."""
    dtype = cos_BTR.dtype
    exact = jax.tree.map(lambda a: a.astype(dtype), w)
    row = jax.vmap(lambda *row: _one_row(*row, exact))
    q, k = row(u_BTU.astype(dtype), state_B2U.astype(dtype), follows_BT, cos_BTR, sin_BTR)
    return q.astype(u_BTU.dtype), k.astype(u_BTU.dtype)


def _one_row(u_TU, state_2U, follows_T, cos_TR, sin_TR, w):
    def position(past_2U, now):
        u_U, follows, cos_R, sin_R = now
        past_2U = jnp.where(follows, past_2U, state_2U)
        q, k = _one_position(past_2U[0], past_2U[1], u_U, cos_R, sin_R, w)
        return jnp.stack([past_2U[1], u_U]), (q, k)

    _, (q_TNH, k_TKH) = jax.lax.scan(position, state_2U, (u_TU, follows_T, cos_TR, sin_TR))
    return q_TNH, k_TKH


def _one_position(before_U, previous_U, u_U, cos_R, sin_R, w):
    U, H, _ = w.grouped_weight.shape
    K = w.temperature.shape[0]
    N = U // H - K

    def depthwise(left_U, right_U):
        return w.depthwise_weight[:, 0, 0] * left_U + w.depthwise_weight[:, 0, 1] * right_U + w.depthwise_bias

    d_previous, d_now = depthwise(before_U, previous_U), depthwise(previous_U, u_U)
    taps = w.grouped_weight.reshape(N + K, H, H, 2)
    y = jnp.einsum("goi,gi->go", taps[..., 0], d_previous.reshape(N + K, H))
    y = y + jnp.einsum("goi,gi->go", taps[..., 1], d_now.reshape(N + K, H)) + w.grouped_bias.reshape(N + K, H)

    q0, k0 = u_U[: N * H].reshape(N, H), u_U[N * H :].reshape(K, H)
    q_mean = 0.5 * (q0 + jnp.repeat(k0, N // K, axis=0))
    k_mean = q_mean.reshape(K, N // K, H).mean(axis=1)
    q, k = _normalize(y[:N] + q_mean), _normalize(y[N:] + k_mean) * w.temperature[:, None]
    return _rotate(q, cos_R, sin_R), _rotate(k, cos_R, sin_R)


def _normalize(x):
    """sqrt(H) x / |x|; the floor of |x| is that of transformers, and only matters at exact zero."""
    norm = jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), jnp.finfo(jnp.float32).eps ** 2))
    return jnp.sqrt(jnp.asarray(x.shape[-1], x.dtype)) * x / norm


def _rotate(x, cos_R, sin_R):
    """Rotates the pairs (i, i + R); the rest of the head keeps no position."""
    R = cos_R.shape[-1]
    a, b, rest = x[..., :R], x[..., R : 2 * R], x[..., 2 * R :]
    return jnp.concatenate([a * cos_R - b * sin_R, b * cos_R + a * sin_R, rest], axis=-1)

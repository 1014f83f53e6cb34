"""The CCA mix over whole sequences at once, in plain XLA."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax


def cca_mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w):
    """See `api.cca_mix`."""
    dtype = cos_BTR.dtype
    B, T, U = u_BTU.shape
    H, K = w.grouped_weight.shape[1], w.temperature.shape[0]
    N = U // H - K
    u = u_BTU.astype(dtype)

    y = _convolutions(u, state_B2U.astype(dtype), follows_BT, w, u_BTU.dtype).reshape(B, T, N + K, H)
    latent = u.reshape(B, T, N + K, H)
    q0, k0 = latent[:, :, :N].reshape(B, T, K, N // K, H), latent[:, :, N:]
    q_mean = (0.5 * (q0 + k0[:, :, :, None])).reshape(B, T, N, H)
    k_mean = 0.5 * (q0.mean(axis=3) + k0)

    q = _normalize(y[:, :, :N] + q_mean)
    k = _normalize(y[:, :, N:] + k_mean) * w.temperature.astype(dtype)[:, None]
    cos, sin = cos_BTR[:, :, None], sin_BTR[:, :, None]
    return _rotate(q, cos, sin).astype(u_BTU.dtype), _rotate(k, cos, sin).astype(u_BTU.dtype)


def _convolutions(u, state, follows_BT, w, operand_dtype):
    """Both convolutions: the first one elementwise, the second one a product per head with both taps side by side."""
    B, T, U = u.shape
    H = w.grouped_weight.shape[1]
    tap0, tap1 = w.depthwise_weight[:, 0, 0].astype(u.dtype), w.depthwise_weight[:, 0, 1].astype(u.dtype)
    bias = w.depthwise_bias.astype(u.dtype)
    d = tap0 * _previous(u, state[:, 1], follows_BT) + tap1 * u + bias
    d_previous = _previous(d, tap0 * state[:, 0] + tap1 * state[:, 1] + bias, follows_BT)
    # Both taps are one product: the weights hold them interleaved, so the inputs are interleaved too.
    both = jnp.stack([d_previous, d], axis=-1).reshape(B * T, U // H, 2 * H).astype(operand_dtype)
    taps = w.grouped_weight.reshape(U // H, H, 2 * H).astype(operand_dtype)
    y = lax.dot_general(both, taps, (((2,), (2,)), ((1,), (0,))), preferred_element_type=u.dtype)
    return jnp.swapaxes(y, 0, 1).reshape(B, T, U) + w.grouped_bias.astype(u.dtype)


def _previous(x_BTU, first_BU, follows_BT):
    shifted = jnp.pad(x_BTU[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.where(follows_BT[..., None], shifted, first_BU[:, None])


def _normalize(x):
    square = jnp.maximum(jnp.sum(x * x, -1, keepdims=True), jnp.finfo(jnp.float32).eps ** 2)
    return x * (x.shape[-1] ** 0.5 * lax.rsqrt(square))


def _rotate(x, cos, sin):
    R = cos.shape[-1]
    a, b, rest = x[..., :R], x[..., R : 2 * R], x[..., 2 * R :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

"""The CCA mix over whole sequences at once, in plain XLA, heads first: each head's channels are rows of its products.

bfloat16 is brought to other places as integers (`bits.moved`), and rounded before it is moved rather than after.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.bits import moved


def cca_mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, w):
    """See `api.cca_mix`. X counts the N query heads and, behind them, the K key heads."""
    dtype, out = cos_BTR.dtype, u_BTU.dtype
    K = w.temperature.shape[0]
    y_XBTH = _convolutions(u_BTU, state_B2U.astype(dtype), follows_BT, w)
    x_XBTH = _normalize(y_XBTH + _means_and_bias(u_BTU, w, dtype))
    q_NBTH, k_KBTH = x_XBTH[:-K], x_XBTH[-K:] * w.temperature.astype(dtype)[:, None, None, None]
    # Both halves of a rotated pair in one multiplication and addition.
    cos, sin = jnp.concatenate([cos_BTR, cos_BTR], -1), jnp.concatenate([-sin_BTR, sin_BTR], -1)
    return tuple(moved(_tokens_first, _rotate(x, cos, sin, out)) for x in (q_NBTH, k_KBTH))


def _convolutions(u_BTU, state_B2U, follows_BT, w):
    """Both convolutions without the second's bias: one elementwise, one a product per head, both taps side by side."""
    B, T, U = u_BTU.shape
    H = w.grouped_weight.shape[1]
    dtype, operand = state_B2U.dtype, u_BTU.dtype
    tap0, tap1 = w.depthwise_weight[:, 0, 0].astype(dtype), w.depthwise_weight[:, 0, 1].astype(dtype)
    bias = w.depthwise_bias.astype(dtype)
    follows = follows_BT[..., None]
    before = jnp.where(follows, moved(_shift, u_BTU).astype(dtype), state_B2U[:, 1:])
    d_BTU = (tap0 * before + tap1 * u_BTU + bias).astype(operand)
    d_first = (tap0 * state_B2U[:, :1] + tap1 * state_B2U[:, 1:] + bias).astype(operand)
    d_before = jnp.where(follows, moved(_shift, d_BTU), d_first)
    both = moved(lambda *taps: jnp.concatenate([_heads_first(tap, H) for tap in taps], -1), d_before, d_BTU)
    taps = jnp.swapaxes(w.grouped_weight.reshape(U // H, H, H, 2), 2, 3).reshape(U // H, H, 2 * H).astype(operand)
    y = lax.dot_general(
        both.reshape(U // H, B * T, 2 * H), taps, (((2,), (2,)), ((0,), (0,))), preferred_element_type=dtype
    )
    return y.reshape(U // H, B, T, H)


def _means_and_bias(u_BTU: jax.Array, w, dtype) -> jax.Array:
    """What is added to the convolutions' products: their bias, and the means of queries and keys."""
    B, T, U = u_BTU.shape
    H, K = w.grouped_weight.shape[1], w.temperature.shape[0]
    N = U // H - K
    heads = _heads_first(u_BTU.astype(dtype), H)
    q_KGBTH, k_KBTH = heads[:N].reshape(K, N // K, B, T, H), heads[N:]
    q_mean = (0.5 * (q_KGBTH + k_KBTH[:, None])).reshape(N, B, T, H)
    k_mean = 0.5 * (sum(q_KGBTH[:, i] for i in range(N // K)) * (K / N) + k_KBTH)
    bias = w.grouped_bias.astype(dtype).reshape(N + K, 1, 1, H)
    return jnp.concatenate([q_mean + bias[:N], k_mean + bias[N:]])


def _heads_first(u_BTU, H: int):
    B, T, U = u_BTU.shape
    return jnp.transpose(u_BTU.reshape(B, T, U // H, H), (2, 0, 1, 3))


def _tokens_first(x_XBTH):
    return jnp.transpose(x_XBTH, (1, 2, 0, 3))


def _shift(x_BTU):
    """Each token's predecessor; the first one is its own, to be replaced."""
    return jnp.concatenate([x_BTU[:, :1], x_BTU[:, :-1]], axis=1)


def _normalize(x):
    square = jnp.maximum(jnp.sum(x * x, -1, keepdims=True), jnp.finfo(jnp.float32).eps ** 2)
    return x * (x.shape[-1] ** 0.5 * lax.rsqrt(square))


def _rotate(x_XBTH, cos, sin, dtype):
    """Turns the first channels, all cosines and signed sines given, and rounds to `dtype`."""
    R = cos.shape[-1] // 2
    pairs = x_XBTH[..., : 2 * R]
    swapped = jnp.concatenate([pairs[..., R:], pairs[..., :R]], -1)
    parts = [(pairs * cos + swapped * sin).astype(dtype), x_XBTH[..., 2 * R :].astype(dtype)]
    return moved(lambda *halves: jnp.concatenate(halves, -1), *parts)

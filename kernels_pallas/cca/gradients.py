"""What the CCA kernels leave to XLA of the backward pass: elementwise work and sums over tokens."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sums(NamedTuple):
    """What the kernels give.

    Attributes:
        d_sums_BTU: of what each head's norm is taken of, before it.
        d_depthwise_BTU: of the depthwise result, but for those that are made of the state alone.
        d_taps_2UH: of the grouped convolution's taps.
        d_scale_X: of each head's scale: that of the last K heads is their temperature.
    """

    d_sums_BTU: jax.Array
    d_depthwise_BTU: jax.Array
    d_taps_2UH: jax.Array
    d_scale_X: jax.Array


def rest(u_BTU, state_B2U, follows_BT, w, sums: Sums, exact):
    """The gradients of u, of the state and of the weights, in their types.

    A token that follows none has the states as its two predecessors: d_-1 = tap0 state0 + tap1 state1 + bias, and
    d_t = tap0 state1 + tap1 u_t + bias.
    """
    follows = follows_BT[..., None]
    g, d = sums.d_sums_BTU.astype(exact), sums.d_depthwise_BTU.astype(exact)
    u, state = u_BTU.astype(exact), state_B2U.astype(exact)
    tap0, tap1 = w.depthwise_weight[:, 0, 0].astype(exact), w.depthwise_weight[:, 0, 1].astype(exact)
    inside, started = jnp.where(follows, d, 0), jnp.where(follows, 0, d).sum(1)

    first_BU = _through_first_taps(jnp.where(follows, 0, g).sum(1), w, exact)
    d_state = jnp.stack([tap0 * first_BU, tap1 * first_BU + tap0 * started], axis=1)
    d_u = tap1 * d + tap0 * _left(inside) + _through_means(g, w)

    d_tap0 = (inside * _right(u)).sum((0, 1)) + (started * state[:, 1] + first_BU * state[:, 0]).sum(0)
    d_tap1 = (d * u).sum((0, 1)) + (first_BU * state[:, 1]).sum(0)
    d_bias = d.sum((0, 1)) + first_BU.sum(0)
    d_w = type(w)(
        depthwise_weight=jnp.stack([d_tap0, d_tap1], -1)[:, None],
        depthwise_bias=d_bias,
        grouped_weight=jnp.moveaxis(sums.d_taps_2UH, 0, -1),
        grouped_bias=g.sum((0, 1)),
        temperature=sums.d_scale_X[-w.temperature.shape[0] :],
    )
    d_w = jax.tree.map(lambda found, like: found.astype(like.dtype), d_w, w)
    return d_u.astype(u_BTU.dtype), d_state.astype(state_B2U.dtype), d_w


def _through_first_taps(g_BU, w, exact):
    """The gradient of the grouped convolution's earlier operand."""
    (U, H, _), B = w.grouped_weight.shape, g_BU.shape[0]
    taps = w.grouped_weight[..., 0].astype(exact).reshape(U // H, H, H)
    return jnp.einsum("bxo,xoi->bxi", g_BU.reshape(B, U // H, H), taps).reshape(B, U)


def _through_means(g_BTU, w):
    """Each query head's mean holds half of itself and half of its key head; a key head's the mean of its group's."""
    (B, T, U), H, K = g_BTU.shape, w.grouped_weight.shape[1], w.temperature.shape[0]
    N = U // H - K
    g = g_BTU.reshape(B, T, U // H, H)
    queries, keys = g[:, :, :N].reshape(B, T, K, N // K, H), g[:, :, N:]
    to_queries = 0.5 * (queries + keys[:, :, :, None] * (K / N))
    to_keys = 0.5 * (queries.sum(3) + keys)
    return jnp.concatenate([to_queries.reshape(B, T, N, H), to_keys], axis=2).reshape(B, T, U)


def _left(x_BTU):
    """Each token's successor, zeros for the last."""
    return jnp.pad(x_BTU[:, 1:], ((0, 0), (0, 1), (0, 0)))


def _right(x_BTU):
    """Each token's predecessor, zeros for the first."""
    return jnp.pad(x_BTU[:, :-1], ((0, 0), (1, 0), (0, 0)))

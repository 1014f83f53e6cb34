"""CCA mix: two causal convolutions, q-k mean, norm, temperature, half RoPE (arXiv 2510.04476; ZAYA1 report, App. C)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax

from kernels_pallas.cca import kernel, reference, xla
from kernels_pallas.choose import choose

_MIX = {
    "xla": xla.cca_mix,
    "reference": reference.cca_mix,
    "pallas": kernel.cca_mix,
    "interpret": functools.partial(kernel.cca_mix, interpret=True),
}


class CCAWeights(NamedTuple):
    """Weights of the mix, as the checkpoints hold them. Tap 0 multiplies position t - 1, tap 1 position t.

    Attributes:
        depthwise_weight: [U, 1, 2].
        depthwise_bias: [U].
        grouped_weight: [U, H, 2], one group a head: N query heads first, then K key heads.
        grouped_bias: [U].
        temperature: [K], multiplies the normalised keys as it is.
    """

    depthwise_weight: jax.Array
    depthwise_bias: jax.Array
    grouped_weight: jax.Array
    grouped_bias: jax.Array
    temperature: jax.Array


def cca_mix(
    u_BTU: jax.Array,
    state_B2U: jax.Array,
    follows_BT: jax.Array,
    cos_BTR: jax.Array,
    sin_BTR: jax.Array,
    weights: CCAWeights,
    *,
    implementation: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Queries and keys for attention from the projected latents.

    d_t = w0 u_{t-1} + w1 u_t + b      depthwise
    y_t = W0 d_{t-1} + W1 d_t + c      per head
    q = y + m_q, k = y + m_k           m_q = (q0 + k0) / 2 of the latents before the convs, m_k its mean over the group
    q, k -> sqrt(H) q / |q|, sqrt(H) k / |k| * temperature, then rotate the first half of each head.

    Args:
        u_BTU: [B, T, U], projected queries and keys [q | k].
        state_B2U: [B, 2, U], the u of the two tokens before each row's first one; zeros where there is none. The
            depthwise result before that first token is then its bias, not zero: the checkpoints were trained so.
        follows_BT: [B, T] bool; False where a token does not continue the one on its left. It sees `state_B2U` instead.
        cos_BTR, sin_BTR: [B, T, R], of the rotary angles, R = half of the rotated width, float32 or float64.
        weights: see `CCAWeights`.
        implementation: "auto", "xla", "pallas" (on a GPU), "interpret" (the same kernels, slowly, anywhere) or
            "reference". The kernels give cos and sin no gradient.

    Returns:
        q_BTNH, k_BTKH in the type of u, computed in the type of `cos_BTR`.

    Raises:
        ValueError: shapes that do not fit, or an implementation that does not exist.
    """
    _check(u_BTU, state_B2U, follows_BT, cos_BTR, weights)
    mix = choose("cca_mix", implementation, _MIX, kernel.unmet(u_BTU, cos_BTR, weights))
    return mix(u_BTU, state_B2U, follows_BT, cos_BTR, sin_BTR, weights)


def _check(u, state, follows, cos, w: CCAWeights) -> None:
    B, T, U = u.shape
    heads, H = U // w.grouped_weight.shape[1], w.grouped_weight.shape[1]
    expected = {
        "state_B2U": (state.shape, (B, 2, U)),
        "follows_BT": (follows.shape, (B, T)),
        "cos_BTR": (cos.shape[:2], (B, T)),
        "depthwise_weight": (w.depthwise_weight.shape, (U, 1, 2)),
        "grouped_weight": (w.grouped_weight.shape, (heads * H, H, 2)),
    }
    for name, (found, want) in expected.items():
        if tuple(found) != want:
            raise ValueError(f"cca_mix: {name} has shape {tuple(found)}, expected {want} for u of shape {u.shape}")
    K = w.temperature.shape[0]
    if heads <= K or (heads - K) % K:
        raise ValueError(f"cca_mix: {heads} heads with {K} temperatures; query heads must be a multiple of key heads")

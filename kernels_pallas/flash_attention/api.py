"""Causal grouped-query attention."""

from __future__ import annotations

import functools

import jax

from kernels_pallas.choose import choose
from kernels_pallas.flash_attention import kernel, reference, xla


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_index_BT: jax.Array,
    k_index_BS: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    *,
    window: int | None = None,
    aligned: bool = False,
    implementation: str = "auto",
) -> jax.Array:
    """softmax(q k / sqrt(H)) v, where a query sees the keys of its own segment that are not younger than itself.

    Args:
        q_BTNH, k_BSKH, v_BSKH: queries, keys and values; N is a multiple of K and head n reads key head n // (N / K).
        q_index_BT, k_index_BS: each token's index in its row's history; key s is visible to query t when
            k_index <= q_index, and with a window when q_index - k_index < window.
        q_segments_BT, k_segments_BS: documents; 0 is padding or an empty slot. A query of segment 0 sees nothing and
            returns zeros.
        window: number of keys that a query sees, itself included; None is all.
        aligned: a promise that S == T and that no query sees a key of a later column. Half of the work is then left
            out.
        implementation: "auto", "xla", "pallas" (on a GPU), "interpret" (the same kernels, slowly, anywhere) or
            "reference".

    Returns:
        [B, T, N, H] in the type of v; the softmax is computed in float32 (float64 for float64 queries).

    Raises:
        ValueError: shapes that do not fit, or an implementation that does not exist.
    """
    _check(q_BTNH, k_BSKH, v_BSKH, q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, aligned)
    available = {
        "xla": xla.attention,
        "reference": reference.attention,
        "pallas": kernel.attention,
        "interpret": functools.partial(kernel.attention, interpret=True),
    }
    run = choose("attention", implementation, available, kernel.unmet(q_BTNH, k_BSKH))
    return run(
        q_BTNH, k_BSKH, v_BSKH, q_index_BT, k_index_BS, q_segments_BT, k_segments_BS, window=window, aligned=aligned
    )


def _check(q, k, v, q_index, k_index, q_segments, k_segments, aligned) -> None:
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    expected = {
        "k_BSKH": (k.shape, (B, S, K, H)),
        "v_BSKH": (v.shape, (B, S, K, H)),
        "q_index_BT": (q_index.shape, (B, T)),
        "k_index_BS": (k_index.shape, (B, S)),
        "q_segments_BT": (q_segments.shape, (B, T)),
        "k_segments_BS": (k_segments.shape, (B, S)),
    }
    for name, (found, want) in expected.items():
        if tuple(found) != want:
            raise ValueError(f"attention: {name} has shape {tuple(found)}, expected {want} for q of shape {q.shape}")
    if N % K:
        raise ValueError(f"attention: {N} query heads are not a multiple of {K} key heads")
    if aligned and S != T:
        raise ValueError(f"attention: aligned needs as many keys as queries, found S = {S} and T = {T}")

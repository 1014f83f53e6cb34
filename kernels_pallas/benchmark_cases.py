"""What `kernels_pallas.benchmark` times: each operation in named shapes, with its operations and bytes counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.cca import CCAWeights, cca_mix
from kernels_pallas.flash_attention import attention
from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu
from kernels_pallas.production import MODELS, Model

Arguments = tuple[jax.Array, ...]


class Case(NamedTuple):
    """An operation and a shape.

    Attributes:
        operation: takes an `implementation` besides the arguments.
        others: what jax has for it, by name, functions of the same arguments.
        make: the arguments, random.
        floating: how many of the arguments, the first ones, have a gradient that training wants.
        flops, bytes: of the forward pass, each array read or written once; a backward pass has twice the operations.
        backward: whether it is part of training.
    """

    operation: Callable
    others: dict[str, Callable]
    make: Callable[[], Arguments]
    floating: int
    flops: float
    bytes: float
    backward: bool = True


SMALL = {"small": Model(64, 64, 4, 4, 2, 64)}


def cases(small: bool) -> dict[str, Case]:
    """By name; the small ones are for machines without a GPU, and tell nothing of one."""
    train, prefill, decode, cache = (256, 64, 4, 512) if small else (32768, 4096, 64, 8192)
    found = {}
    for name, model in (SMALL if small else MODELS).items():
        found[f"{name}/train/gate_up"] = _experts(grouped_swiglu, _ragged_swiglu, train, model.D, 2 * model.F, model.E)
        found[f"{name}/train/down"] = _experts(grouped_matmul, _ragged, train, model.F, model.D, model.E)
        found[f"{name}/decode/gate_up"] = _experts(
            grouped_swiglu, _ragged_swiglu, decode, model.D, 2 * model.F, model.E, backward=False
        )
        found[f"{name}/train/attention"] = _attention(1, train, train, model)
        found[f"{name}/prefill/attention"] = _attention(1, prefill, prefill, model, backward=False)
        found[f"{name}/decode/attention"] = _attention(decode, 1, cache, model, backward=False)
        found[f"{name}/decode/attention_long"] = _attention(1, 1, 16 * cache, model, backward=False)
        found[f"{name}/train/cca_mix"] = _cca(1, train, model)
        found[f"{name}/decode/cca_mix"] = _cca(decode, 1, model, backward=False)
    return found


def _normal(seed: int, *shape: int, dtype=jnp.bfloat16) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def _routing(rows: int, experts: int) -> np.ndarray:
    """Rows of each expert as of a router that is not balanced: shares are log-normal."""
    random = np.random.RandomState(0)
    shares = np.exp(random.standard_normal(experts))
    return np.bincount(random.choice(experts, rows, p=shares / shares.sum()), minlength=experts).astype(np.int32)


def _experts(operation, ragged, M: int, K: int, N: int, E: int, backward: bool = True) -> Case:
    sizes = _routing(M, E)
    out = N // 2 if operation is grouped_swiglu else N
    read = int((sizes > 0).sum()) * N * K
    return Case(
        operation,
        {"ragged_dot": ragged},
        lambda: (_normal(0, M, K), _normal(1, E, N, K), jnp.asarray(sizes)),
        2,
        flops=2.0 * M * N * K,
        bytes=2.0 * (M * K + M * out + read),
        backward=backward,
    )


def _ragged(lhs, rhs, sizes):
    """jax's own."""
    return lax.ragged_dot(lhs, jnp.swapaxes(rhs, 1, 2), sizes, preferred_element_type=jnp.float32).astype(lhs.dtype)


def _ragged_swiglu(lhs, rhs, sizes):
    gated, up = jnp.split(_ragged(lhs, rhs, sizes).astype(jnp.float32), 2, axis=-1)
    return (jax.nn.silu(gated) * up).astype(lhs.dtype)


def _attention(B: int, T: int, S: int, model: Model, backward: bool = True) -> Case:
    _, _, _, N, K, H = model

    def make():
        index = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))
        ones = jnp.ones((B, S), jnp.int32)
        return _normal(0, B, T, N, H), _normal(1, B, S, K, H), _normal(2, B, S, K, H), index[:, S - T :], index, ones

    def ours(q, k, v, q_index, k_index, segments, *, implementation):
        q_segments = segments[:, : q.shape[1]]
        masks = (q_index, k_index, q_segments, segments)
        return attention(q, k, v, *masks, aligned=q.shape[1] == k.shape[1], implementation=implementation)

    pairs = B * N * (T * (S - T) + T * (T + 1) / 2)
    return Case(
        ours,
        {"dot_product_attention": _jax_attention},
        make,
        3,
        flops=4.0 * pairs * H,
        bytes=2.0 * (2 * B * T * N * H + 2 * B * S * K * H),
        backward=backward,
    )


def _jax_attention(q, k, v, q_index, k_index, segments):
    """jax's own. It has no other mask than causality; a decoding step sees everything."""
    del q_index, k_index, segments
    return jax.nn.dot_product_attention(q, k, v, is_causal=q.shape[1] > 1)


def _cca(B: int, T: int, model: Model, backward: bool = True) -> Case:
    _, _, _, N, K, H = model
    U, R = (N + K) * H, H // 4

    def make():
        angles = jnp.arange(T, dtype=jnp.float32)[None, :, None] / (1 + jnp.arange(R))
        angles = jnp.broadcast_to(angles, (B, T, R))
        w = CCAWeights(_normal(2, U, 1, 2), _normal(3, U), _normal(4, U, H, 2) * H**-0.5, _normal(5, U), jnp.ones(K))
        follows = jnp.broadcast_to(jnp.arange(T) > 0, (B, T))
        state = jnp.zeros((B, 2, U), jnp.float32)
        return _normal(0, B, T, U), w, state, follows, jnp.cos(angles), jnp.sin(angles)

    def ours(u, w, state, follows, cos, sin, *, implementation):
        return cca_mix(u, state, follows, cos, sin, w, implementation=implementation)

    return Case(
        ours,
        {},
        make,
        2,
        flops=2.0 * B * T * U * 2 * H,
        bytes=2.0 * (2 * B * T * U + 2 * U * H),
        backward=backward,
    )

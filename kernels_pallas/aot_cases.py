"""What `kernels_pallas.aot` compiles: every kernel, in the shapes of training, prefill and decoding."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels_pallas.cca import CCAWeights
from kernels_pallas.cca import kernel as cca
from kernels_pallas.flash_attention import kernel as flash
from kernels_pallas.grouped_matmul import kernel as grouped

Case = tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]

# Hidden width, expert width, experts (zaya_jax.model.config has the presets; kernels stand alone).
_EXPERTS = {"8b": (2048, 2048, 16), "74b": (4096, 4096, 24)}
_HEADS = {"8b": (8, 2, 128), "74b": (16, 2, 128)}  # queries', keys', width
_TOKENS = {"train_32k": 32768, "train_4k": 4096, "prefill_512": 512, "decode_64": 64, "decode_1": 1}


def cases() -> dict[str, Case]:
    """Name -> a function and the shapes of its arguments."""
    found = {}
    for model, (D, F, E) in _EXPERTS.items():
        for use, rows in _TOKENS.items():
            found |= _experts(f"{model}/{use}", rows, D, F, E, jnp.bfloat16, gradients=use.startswith("train"))
    for model, heads in _HEADS.items():
        for tokens in (32768, 4096):
            found[f"{model}/train_{tokens // 1024}k/attention"] = _attention(tokens, *heads, gradients=True)
            found[f"{model}/train_{tokens // 1024}k/cca_mix"] = _cca(1, tokens, *heads, gradients=True)
        for use, T in {"prefill_512": 512, "prefill_32k": 32768}.items():
            found[f"{model}/{use}/attention"] = _attention(T, *heads, gradients=False)
            found[f"{model}/{use}/cca_mix"] = _cca(1, T, *heads, gradients=False)
        for rows, cache in ((1, 131072), (64, 8192)):
            found[f"{model}/decode_{rows}/attention_{cache // 1024}k"] = _decode(rows, cache, *heads)
            found[f"{model}/decode_{rows}/cca_mix"] = _cca(rows, 1, *heads, gradients=False)
    return found | _experts("8b/train_4k/float32", 4096, *_EXPERTS["8b"], jnp.float32, gradients=True)


def _experts(name: str, rows: int, D: int, F: int, E: int, dtype, gradients: bool) -> dict[str, Case]:
    sizes = jax.ShapeDtypeStruct((E,), jnp.int32)

    def shapes(*dims):
        return jax.ShapeDtypeStruct(dims, dtype)

    wide, narrow = (shapes(rows, D), shapes(E, 2 * F, D), sizes), (shapes(rows, F), shapes(E, D, F), sizes)
    return {
        f"{name}/gate_up": (_with_gradients(grouped.grouped_swiglu, gradients), wide),
        f"{name}/down": (_with_gradients(grouped.grouped_matmul, gradients), (*narrow, shapes(rows))),
    }


def _attention(T: int, N: int, K: int, H: int, gradients: bool) -> Case:
    def forward(q, k, v, index, segments):
        return flash.attention(q, k, v, index, index, segments, segments)

    def both(q, k, v, index, segments):
        out, pull = jax.vjp(lambda *x: forward(*x, index, segments), q, k, v)
        return out, pull(out)

    q, k = (jax.ShapeDtypeStruct((1, T, heads, H), jnp.bfloat16) for heads in (N, K))
    whole = jax.ShapeDtypeStruct((1, T), jnp.int32)
    return both if gradients else forward, (q, k, k, whole, whole)


def _decode(B: int, S: int, N: int, K: int, H: int) -> Case:
    """One token a row, against a cache."""

    def run(q, k, v, q_index, k_index, q_segments, k_segments):
        return flash.attention(q, k, v, q_index, k_index, q_segments, k_segments)

    q, k = jax.ShapeDtypeStruct((B, 1, N, H), jnp.bfloat16), jax.ShapeDtypeStruct((B, S, K, H), jnp.bfloat16)
    one, whole = (jax.ShapeDtypeStruct((B, T), jnp.int32) for T in (1, S))
    return run, (q, k, k, one, whole, one, whole)


def _cca(B: int, T: int, N: int, K: int, H: int, gradients: bool) -> Case:
    def shapes(*dims, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(dims, dtype)

    U, R = (N + K) * H, H // 4
    state, angles = shapes(B, 2, U, dtype=jnp.float32), shapes(B, T, R, dtype=jnp.float32)
    w = CCAWeights(shapes(U, 1, 2), shapes(U), shapes(U, H, 2), shapes(U), shapes(K))

    def forward(u, follows, cos, sin, state, w):
        return cca.cca_mix(u, state, follows, cos, sin, w)

    def both(u, follows, cos, sin, state, w):
        out, pull = jax.vjp(lambda u, state, w: forward(u, follows, cos, sin, state, w), u, state, w)
        return out, pull(out)

    return both if gradients else forward, (shapes(B, T, U), shapes(B, T, dtype=bool), angles, angles, state, w)


def _with_gradients(kernel: Callable, gradients: bool) -> Callable:
    def both(lhs, rhs, sizes, *scale):
        out, pull = jax.vjp(lambda a, b, *c: kernel(a, b, sizes, *c), lhs, rhs, *scale)
        return out, pull(out)

    return both if gradients else kernel

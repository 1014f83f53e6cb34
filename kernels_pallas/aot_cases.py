"""What `kernels_pallas.aot` compiles: every kernel, in the shapes of training, prefill and decoding."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
        found[f"{model}/prefill_512/attention"] = _attention(512, *heads, gradients=False)
    return found | _experts("8b/train_4k/float32", 4096, *_EXPERTS["8b"], jnp.float32, gradients=True)


def _experts(name: str, rows: int, D: int, F: int, E: int, dtype, gradients: bool) -> dict[str, Case]:
    sizes = jax.ShapeDtypeStruct((E,), jnp.int32)

    def shapes(*dims):
        return jax.ShapeDtypeStruct(dims, dtype)

    wide, narrow = (shapes(rows, D), shapes(E, 2 * F, D), sizes), (shapes(rows, F), shapes(E, D, F), sizes)
    return {
        f"{name}/gate_up": (_with_gradients(grouped.grouped_swiglu, gradients), wide),
        f"{name}/down": (_with_gradients(grouped.grouped_matmul, gradients), narrow),
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


def _with_gradients(kernel: Callable, gradients: bool) -> Callable:
    def both(lhs, rhs, sizes):
        out, pull = jax.vjp(lambda a, b: kernel(a, b, sizes), lhs, rhs)
        return out, pull(out)

    return both if gradients else kernel

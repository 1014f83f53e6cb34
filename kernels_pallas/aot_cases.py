"""What `kernels_pallas.aot` compiles: every kernel, in the shapes of training, prefill and decoding."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels_pallas.cca import CCAWeights
from kernels_pallas.cca import kernel as cca
from kernels_pallas.flash_attention import kernel as flash
from kernels_pallas.grouped_matmul import kernel as grouped
from kernels_pallas.production import MODELS, Model, with_gradients

Case = tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]

_TOKENS = {"train_32k": 32768, "train_4k": 4096, "prefill_512": 512, "decode_64": 64, "decode_1": 1}


def cases() -> dict[str, Case]:
    """Name -> a function and the shapes of its arguments."""
    found = {}
    for name, model in MODELS.items():
        for use, rows in _TOKENS.items():
            found |= _experts(f"{name}/{use}", rows, model, jnp.bfloat16, gradients=use.startswith("train"))
        for use, T in {"train_32k": 32768, "train_4k": 4096, "prefill_512": 512, "prefill_32k": 32768}.items():
            gradients = use.startswith("train")
            found[f"{name}/{use}/attention"] = _attention(1, T, T, model, gradients)
            found[f"{name}/{use}/cca_mix"] = _cca(1, T, model, gradients)
        for rows, cache in ((1, 131072), (64, 8192)):
            found[f"{name}/decode_{rows}/attention_{cache // 1024}k"] = _attention(rows, 1, cache, model)
            found[f"{name}/decode_{rows}/cca_mix"] = _cca(rows, 1, model)
    return found | _experts("8b/train_4k/float32", 4096, MODELS["8b"], jnp.float32, gradients=True)


def _shape(*dims: int, dtype=jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def _experts(name: str, rows: int, model: Model, dtype, gradients: bool) -> dict[str, Case]:
    D, F, E = model.D, model.F, model.E
    sizes, gate = _shape(E, dtype=jnp.int32), _shape(rows, dtype=jnp.float32)

    def down(lhs, rhs, gate, sizes):
        return grouped.grouped_matmul(lhs, rhs, sizes, gate)

    wide = (_shape(rows, D, dtype=dtype), _shape(E, 2 * F, D, dtype=dtype), sizes)
    narrow = (_shape(rows, F, dtype=dtype), _shape(E, D, F, dtype=dtype), gate, sizes)
    return {
        f"{name}/gate_up": (_case(grouped.grouped_swiglu, 2, gradients), wide),
        f"{name}/down": (_case(down, 3, gradients), narrow),
    }


def _attention(B: int, T: int, S: int, model: Model, gradients: bool = False) -> Case:
    q, k = _shape(B, T, model.N, model.H), _shape(B, S, model.K, model.H)
    queries, keys = (_shape(B, length, dtype=jnp.int32) for length in (T, S))
    return _case(flash.attention, 3, gradients), (q, k, k, queries, keys, queries, keys)


def _cca(B: int, T: int, model: Model, gradients: bool = False) -> Case:
    H, K = model.H, model.K
    U, R = (model.N + K) * H, H // 4
    state, angles = _shape(B, 2, U, dtype=jnp.float32), _shape(B, T, R, dtype=jnp.float32)
    w = CCAWeights(_shape(U, 1, 2), _shape(U), _shape(U, H, 2), _shape(U), _shape(K))

    def mix(u, state, w, follows, cos, sin):
        return cca.cca_mix(u, state, follows, cos, sin, w)

    return _case(mix, 3, gradients), (_shape(B, T, U), state, w, _shape(B, T, dtype=bool), angles, angles)


def _case(function: Callable, floating: int, gradients: bool) -> Callable:
    return with_gradients(function, floating) if gradients else function

"""Compressed convolutional attention (arXiv 2510.04476; ZAYA1 report, App. C)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.bits import moved
from kernels_pallas.cca import CCAWeights, cca_mix
from kernels_pallas.flash_attention import attention
from zaya_jax.model.cache import LayerCache, compact, conv_state, last_real, ring_size, stored_index, write
from zaya_jax.model.config import LayerType, ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import dense, rotary_angles, shift
from zaya_jax.parallel import each_device


def attend(
    config: ModelConfig,
    execution: Execution,
    layer_type: LayerType,
    w: dict[str, jax.Array],
    x_BTD: jax.Array,
    inputs,
    cache: LayerCache | None,
) -> tuple[jax.Array, LayerCache | None]:
    """One attention sub-block from its normed input to its output, and the cache after it.

    Args:
        inputs: the call's `Inputs` (see `zaya.py`): positions, segments, `follows_BT`, and with a cache its `Span`.
        cache: this layer's memory, or None.
    """
    B, T, _ = x_BTD.shape
    dtype = execution.compute_dtype
    past = cache if cache is not None else _no_past(config, execution, B)
    # Pads see no past and leave none: a document that starts behind them begins as if at the row's start.
    q_size = config.num_query_heads * config.head_dim
    u_BTU = moved(
        lambda *p: jnp.concatenate(p, -1),
        dense(execution, x_BTD, w["q_proj"]).astype(dtype),
        dense(execution, x_BTD, w["k_proj"]).astype(dtype),
    )
    assert u_BTU.shape[-1] == q_size + config.num_kv_heads * config.head_dim
    cos, sin = rotary_angles(inputs.positions_BT, config.rope(layer_type), config.head_dim, execution.exact_dtype)
    mix_weights = CCAWeights(*(w[name] for name in CCAWeights._fields))

    def mix(rows, weights):
        return cca_mix(*rows, weights, implementation=execution.cca)

    rows = (u_BTU, past.conv_B2U, inputs.follows_BT, cos, sin)
    q_BTNH, k_BTKH = each_device(execution.mesh, mix, rows, mix_weights)
    v_BTKH, delayed_BTX = _values(config, execution, w, x_BTD, past, inputs.follows_BT)

    out, k_BSKH, v_BSKH = _attend(config, execution, layer_type, q_BTNH, k_BTKH, v_BTKH, inputs, cache)
    out_BTD = dense(execution, out.reshape(B, T, q_size), w["o_proj"])
    if cache is None:
        return out_BTD, None
    state = conv_state(u_BTU, past.conv_B2U, inputs.span)
    delayed = last_real(delayed_BTX, past.delayed_BX, inputs.span, back=0)
    return out_BTD, LayerCache(k_BSKH, v_BSKH, state, delayed)


def _no_past(config: ModelConfig, execution: Execution, batch: int) -> LayerCache:
    kv = jnp.zeros((batch, 0, config.num_kv_heads, config.head_dim), execution.compute_dtype)
    conv = jnp.zeros((batch, 2, config.conv_channels), execution.exact_dtype)
    return LayerCache(kv, kv, conv, jnp.zeros((batch, config.delayed_size), execution.exact_dtype))


def _values(config, execution, w, x_BTD, past: LayerCache, follows_BT):
    """Half of the value channels come from this token, half from the previous one.

    With two KV heads, head 0 is the current token and head 1 the previous one.
    """
    B, T, _ = x_BTD.shape
    dtype = execution.compute_dtype
    current_BTX = dense(execution, x_BTD, w["v_current"]).astype(dtype)
    delayed_BTX = dense(execution, x_BTD, w["v_delayed"]).astype(dtype)
    previous_BTX = shift(delayed_BTX, past.delayed_BX, follows_BT)
    v = jnp.concatenate([current_BTX, previous_BTX], axis=-1)
    return v.reshape(B, T, config.num_kv_heads, config.head_dim), delayed_BTX


def _attend(config, execution, layer_type, q_BTNH, k_BTKH, v_BTKH, inputs, cache: LayerCache | None):
    """Attention over what the call brings and what the cache holds; returns the cache's new keys and values too."""
    window, segments, span = config.window(layer_type), inputs.segments_BT, inputs.span
    T = q_BTNH.shape[1]
    if cache is None or cache.k_BSKH.shape[1] == 0:  # no past
        index = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), segments.shape)
        run = _runner(execution, window, aligned=True)
        out = run(q_BTNH, k_BTKH, v_BTKH, index, index, segments, segments)
        if cache is None:
            return out, None, None
        slots = ring_size(config, layer_type, T)
        return out, compact(k_BTKH, span, slots), compact(v_BTKH, span, slots)

    slots = cache.k_BSKH.shape[1]
    k_BSKH, v_BSKH = write(cache.k_BSKH, k_BTKH, span), write(cache.v_BSKH, v_BTKH, span)
    real = span.real_BT.astype(jnp.int32)
    run = _runner(execution, window, aligned=False)
    if window is None or T == 1:  # every token that is seen is still in its slot
        index, stored = _stored(slots, span.length_B + span.count_B)
        return run(q_BTNH, k_BSKH, v_BSKH, span.index_BT, index, real, stored), k_BSKH, v_BSKH
    # A ring may already have lost what the call's first tokens see: attend to the old ring and the new tokens.
    index, stored = _stored(slots, span.length_B)
    k, v = jnp.concatenate([cache.k_BSKH, k_BTKH], 1), jnp.concatenate([cache.v_BSKH, v_BTKH], 1)
    index, stored = jnp.concatenate([index, span.index_BT], 1), jnp.concatenate([stored, real], 1)
    return run(q_BTNH, k, v, span.index_BT, index, real, stored), k_BSKH, v_BSKH


def _runner(execution: Execution, window: int | None, aligned: bool):
    def local(rows, weights):
        del weights  # there are none
        return attention(*rows, window=window, aligned=aligned, implementation=execution.attention)

    return lambda *rows: each_device(execution.mesh, local, rows, ())


def _stored(slots: int, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Token index of every slot, and 1 where a slot holds one (its segment), both [B, S]."""
    index = stored_index(jnp.arange(slots, dtype=jnp.int32)[None], length_B[:, None], slots)
    return index, (index >= 0).astype(jnp.int32)

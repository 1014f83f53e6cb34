"""Compressed convolutional attention (arXiv 2510.04476; ZAYA1 report, App. C)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from kernels_pallas.bits import moved
from kernels_pallas.cca import CCAWeights, cca_mix
from kernels_pallas.flash_attention import attention
from zaya_jax.model.cache import LayerCache, compact, conv_state, last_real, ring_size, stored_index, write
from zaya_jax.model.config import LayerType, ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import dense, rotary_angles, shift
from zaya_jax.parallel import all_columns, column_index, column_shards, each_device, from_left


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
    q_BTNH, k_BTKH = _mix(config, execution, layer_type, w, u_BTU, past, inputs)
    v_BTKH, delayed_BTX = _values(config, execution, w, x_BTD, past, inputs)

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


def _chunked(execution: Execution, inputs) -> bool:
    """Whether each device has a chunk of the call's columns only; what comes before them is then with its neighbour."""
    return inputs.span is None and column_shards(execution.mesh) > 1


def _mix(config, execution, layer_type, w, u_BTU, past: LayerCache, inputs):
    """Queries and keys."""
    cos, sin = rotary_angles(inputs.positions_BT, config.rope(layer_type), config.head_dim, execution.exact_dtype)
    weights = CCAWeights(*(w[name] for name in CCAWeights._fields))
    run = functools.partial(cca_mix, implementation=execution.cca)
    if _chunked(execution, inputs):
        rows = (u_BTU, inputs.follows_BT, cos, sin)
        return each_device(execution.mesh, functools.partial(_mix_chunk, run), rows, weights, columns=True)
    rows = (u_BTU, past.conv_B2U, inputs.follows_BT, cos, sin)
    return each_device(execution.mesh, lambda rows, weights: run(*rows, weights), rows, weights)


def _mix_chunk(run, rows, weights: CCAWeights):
    """`run` for a chunk and the two tokens on its left, which the convolutions see. What it gives for them is cut off.

    They are no `state` of `cca_mix`: every document of the chunk would see that.
    """
    u_BTU, follows_BT, cos_BTR, sin_BTR = rows
    # The older one is nothing to the newer one if they are of two documents, which the neighbour knows.
    seen_B2 = jnp.stack([follows_BT[:, -1], jnp.ones_like(follows_BT[:, -1])], axis=1)
    before_B2U = from_left(jnp.where(seen_B2[..., None], u_BTU[:, -2:], 0), 2)
    u = moved(lambda *parts: jnp.concatenate(parts, 1), before_B2U, u_BTU)
    follows = jnp.concatenate([jnp.zeros_like(seen_B2[:, :1]), jnp.ones_like(seen_B2[:, :1]), follows_BT], 1)
    cos, sin = (jnp.pad(x, ((0, 0), (2, 0), (0, 0))) for x in (cos_BTR, sin_BTR))
    q_BTNH, k_BTKH = run(u, jnp.zeros(before_B2U.shape, cos.dtype), follows, cos, sin, weights)
    return q_BTNH[:, 2:], k_BTKH[:, 2:]


def _values(config, execution, w, x_BTD, past: LayerCache, inputs):
    """Half of the value channels come from this token, half from the previous one.

    With two KV heads, head 0 is the current token and head 1 the previous one.
    """
    B, T, _ = x_BTD.shape
    dtype = execution.compute_dtype
    current_BTX = dense(execution, x_BTD, w["v_current"]).astype(dtype)
    delayed_BTX = dense(execution, x_BTD, w["v_delayed"]).astype(dtype)
    if _chunked(execution, inputs):
        rows = (delayed_BTX, inputs.follows_BT)
        previous_BTX = each_device(execution.mesh, lambda rows, _: _shift_chunk(*rows), rows, (), columns=True)
    else:
        previous_BTX = shift(delayed_BTX, past.delayed_BX, inputs.follows_BT)
    v = jnp.concatenate([current_BTX, previous_BTX], axis=-1)
    return v.reshape(B, T, config.num_kv_heads, config.head_dim), delayed_BTX


def _shift_chunk(x_BTX, follows_BT):
    """`shift` of a chunk, without a past."""
    previous = jnp.concatenate([from_left(x_BTX, 1), x_BTX[:, :-1]], axis=1)
    return jnp.where(follows_BT[..., None], previous, 0)


def _attend(config, execution, layer_type, q_BTNH, k_BTKH, v_BTKH, inputs, cache: LayerCache | None):
    """Attention over what the call brings and what the cache holds; returns the cache's new keys and values too."""
    window, segments, span = config.window(layer_type), inputs.segments_BT, inputs.span
    T = q_BTNH.shape[1]
    if _chunked(execution, inputs):
        local = functools.partial(_attend_chunk, execution, window)
        return each_device(execution.mesh, local, (q_BTNH, k_BTKH, v_BTKH, segments), (), columns=True), None, None
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


def _attend_chunk(execution: Execution, window: int | None, rows, weights):
    """A chunk's queries with the keys of all chunks. Those of later ones are seen by none, and skipped by kernels."""
    del weights  # there are none
    q_BTNH, *own = rows
    k_BSKH, v_BSKH, segments_BS = map(all_columns, own)
    index_BT = column_index(q_BTNH)
    index_BS = jnp.broadcast_to(jnp.arange(k_BSKH.shape[1], dtype=jnp.int32), segments_BS.shape)
    arguments = (q_BTNH, k_BSKH, v_BSKH, index_BT, index_BS, own[-1], segments_BS)
    return attention(*arguments, window=window, implementation=execution.attention)


def _runner(execution: Execution, window: int | None, aligned: bool):
    def local(rows, weights):
        del weights  # there are none
        return attention(*rows, window=window, aligned=aligned, implementation=execution.attention)

    return lambda *rows: each_device(execution.mesh, local, rows, ())


def _stored(slots: int, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Token index of every slot, and 1 where a slot holds one (its segment), both [B, S]."""
    index = stored_index(jnp.arange(slots, dtype=jnp.int32)[None], length_B[:, None], slots)
    return index, (index >= 0).astype(jnp.int32)

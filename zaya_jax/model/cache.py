"""What decoding remembers of the past: keys and values, the convolutions' last inputs, the last delayed value.

Slot s of a layer holds its row's s-th real token. Padding (segment 0) is never stored, wherever it stands in a call.
A sliding layer is a ring: slot s holds the newest token whose index is s modulo the ring's size.
No gradient passes the keys and values of a bfloat16 cache (`bits.as_integers`).
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from kernels_pallas.bits import as_integers, like
from zaya_jax.model.config import LayerType, ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layout import Layout


@flax.struct.dataclass
class LayerCache:
    """One layer's memory (with a leading layer axis in the stacked layout).

    Attributes:
        k_BSKH, v_BSKH: keys (normalised, rotated) and values, in the compute type.
        conv_B2U: the last two tokens' projected queries and keys, before the convolutions; exact type.
        delayed_BX: the last token's projected delayed value, X = K * H / 2; exact type.
    """

    k_BSKH: jax.Array
    v_BSKH: jax.Array
    conv_B2U: jax.Array
    delayed_BX: jax.Array


@flax.struct.dataclass
class Cache:
    """All layers' memory, and how many real tokens each row has stored.

    `layers` has one entry a layer (unstacked) or one a block of the period, with a leading layer axis (stacked).
    """

    layers: tuple[LayerCache, ...]
    length_B: jax.Array


@flax.struct.dataclass
class Span:
    """Where the tokens of one call stand in their rows' histories; the same for every layer.

    Attributes:
        real_BT: False for padding.
        start_B: the column of the first real token; the real tokens of a row are contiguous.
        count_B: how many there are.
        index_BT: each real token's index in its row's history.
        length_B: stored tokens before the call.
    """

    real_BT: jax.Array
    start_B: jax.Array
    count_B: jax.Array
    index_BT: jax.Array
    length_B: jax.Array


def init_cache(config: ModelConfig, execution: Execution, batch: int, capacity: int) -> Cache:
    """An empty cache for `batch` rows of up to `capacity` tokens.

    Capacity 0 is special: the call that meets it knows, while it is being traced, that there is no past. It attends
    to its own tokens only and returns a cache of just their size; `grow_cache` then makes room for more.
    """

    def layer(layer_type: LayerType, copies: tuple[int, ...]) -> LayerCache:
        slots = ring_size(config, layer_type, capacity)
        kv = (*copies, batch, slots, config.num_kv_heads, config.head_dim)
        return LayerCache(
            k_BSKH=jnp.zeros(kv, execution.compute_dtype),
            v_BSKH=jnp.zeros(kv, execution.compute_dtype),
            conv_B2U=jnp.zeros((*copies, batch, 2, config.conv_channels), execution.exact_dtype),
            delayed_BX=jnp.zeros((*copies, batch, config.delayed_size), execution.exact_dtype),
        )

    layers = tuple(layer(layer_type, copies) for layer_type, copies in _entries(config, execution.layout))
    return Cache(layers, jnp.zeros((batch,), jnp.int32))


def grow_cache(config: ModelConfig, layout: Layout, cache: Cache, capacity: int) -> Cache:
    """The same cache with room for `capacity` tokens a row. No stored token moves."""

    def grow(entry: LayerCache, layer_type: LayerType) -> LayerCache:
        axis = entry.k_BSKH.ndim - 3
        more = max(ring_size(config, layer_type, capacity) - entry.k_BSKH.shape[axis], 0)
        pad = [(0, more if i == axis else 0) for i in range(entry.k_BSKH.ndim)]
        return entry.replace(k_BSKH=jnp.pad(entry.k_BSKH, pad), v_BSKH=jnp.pad(entry.v_BSKH, pad))

    types = [layer_type for layer_type, _ in _entries(config, layout)]
    return cache.replace(layers=tuple(grow(e, t) for e, t in zip(cache.layers, types, strict=True)))


def ring_size(config: ModelConfig, layer_type: LayerType, capacity: int) -> int:
    """Slots of a layer: a sliding one never needs more than its window."""
    window = config.window(layer_type)
    return capacity if window is None else min(capacity, window)


def span(segments_BT: jax.Array, length_B: jax.Array) -> Span:
    """Places a call's tokens behind `length_B` stored ones."""
    real = segments_BT != 0
    index = length_B[:, None] + jnp.cumsum(real, axis=1, dtype=jnp.int32) - 1
    return Span(real, jnp.argmax(real, axis=1), jnp.sum(real, axis=1, dtype=jnp.int32), index, length_B)


def last_real(x_BTX: jax.Array, before_BX: jax.Array, s: Span, back: int) -> jax.Array:
    """x of the last real token, `back` tokens before it; `before_BX` (of the past) where the call has no such token."""
    column = jnp.maximum(s.start_B + s.count_B - 1 - back, 0)
    value = jnp.take_along_axis(x_BTX, column[:, None, None], axis=1)[:, 0]
    return jnp.where((s.count_B > back)[:, None], value.astype(before_BX.dtype), before_BX)


def conv_state(u_BTU: jax.Array, state_B2U: jax.Array, s: Span) -> jax.Array:
    """The last two inputs of the convolutions after a call."""
    # With a single new token, the older of the two is the newer one of the past.
    older = jnp.where((s.count_B == 1)[:, None], state_B2U[:, 1], state_B2U[:, 0])
    return jnp.stack([last_real(u_BTU, older, s, back=1), last_real(u_BTU, state_B2U[:, 1], s, back=0)], axis=1)


def compact(x_BTKH: jax.Array, s: Span, slots: int) -> jax.Array:
    """The first call's keys or values in their slots: [B, slots, K, H], the last ones where a ring is shorter."""
    slot = jnp.arange(slots, dtype=jnp.int32)[None]
    column = s.start_B[:, None] + stored_index(slot, s.count_B[:, None], slots)
    column = jnp.clip(column, 0, x_BTKH.shape[1] - 1)[..., None, None]
    return like(jnp.take_along_axis(as_integers(x_BTKH), column, axis=1), x_BTKH)


def write(cached_BSKH: jax.Array, new_BTKH: jax.Array, s: Span) -> jax.Array:
    """Stores a call's real tokens in their slots."""
    slots = cached_BSKH.shape[1]
    newest = s.real_BT & (s.index_BT >= (s.length_B + s.count_B)[:, None] - slots)
    slot = jnp.where(newest, s.index_BT % slots, slots)  # out of bounds: dropped
    row = jnp.arange(cached_BSKH.shape[0])[:, None]
    new = as_integers(new_BTKH.astype(cached_BSKH.dtype))
    return like(as_integers(cached_BSKH).at[row, slot].set(new, mode="drop"), cached_BSKH)


def stored_index(slot: jax.Array, length: jax.Array, slots: int) -> jax.Array:
    """Index of the token that a slot holds after `length` tokens; negative for an empty slot."""
    newest = length - 1
    return newest - (newest - slot) % slots


def _entries(config: ModelConfig, layout: Layout) -> list[tuple[LayerType, tuple[int, ...]]]:
    if layout == "stacked":
        copies = (config.num_layers // config.period,)
        return [(layer_type, copies) for layer_type in config.layer_types[: config.period]]
    return [(layer_type, ()) for layer_type in config.layer_types]

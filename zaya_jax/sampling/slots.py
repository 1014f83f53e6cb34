"""The engine's memory on the device: rows of a cache that requests come into and leave.

A prompt is read piece by piece (`run_read`) into its row. What a piece has left there, its keys, values and the state
behind it, can be kept (`Piece`) and put into another row (`run_put`), bit by bit what reading it again would leave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from kernels_pallas.bits import as_integers, like
from zaya_jax.model import Cache, ModelConfig, Zaya, init_cache
from zaya_jax.model.cache import LayerCache
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import call
from zaya_jax.parallel import batch_shards, rows_spec
from zaya_jax.sampling import decode
from zaya_jax.sampling.decode import EMPTY, Batch, State, Tape, prompt_place


@flax.struct.dataclass
class Piece:
    """What reading C tokens (with padding) left behind, for R rows.

    Attributes:
        layers: of each layer (or block of the period, with a leading layer axis) the keys and values of the C tokens
            and the state behind the last real one.
        count_R: int32, how many of the tokens are real.
    """

    layers: tuple[LayerCache, ...]
    count_R: jax.Array


def rows_read_together(model: Zaya) -> int:
    """How many rows `run_read` takes: one for each device that rows are spread over."""
    return batch_shards(model.execution.mesh)


def empty(model: Zaya, slots: int, capacity: int) -> State:
    """`slots` rows without a request, with room for `capacity` tokens each; spread over a mesh if there is one."""
    mesh, make = model.execution.mesh, functools.partial(_empty, model, slots, capacity)
    if mesh is None:
        return jax.jit(make)()
    first = 1 if model.execution.layout == "stacked" else 0  # of the arrays of layers, the axis of rows

    def place(path, x):
        axis = first if "layers" in jax.tree_util.keystr(path) else 0
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, *rows_spec()))

    return jax.jit(make, out_shardings=jax.tree_util.tree_map_with_path(place, jax.eval_shape(make)))()


def _empty(model: Zaya, slots: int, capacity: int) -> State:
    none_B = jnp.zeros(slots, jnp.int32)
    return State(
        cache=init_cache(model.config, model.execution, slots, capacity),
        token_B=none_B,
        step_B=none_B,
        finish_B=jnp.full(slots, EMPTY, jnp.int8),
        thinking_B=jnp.zeros(slots, bool),
        spent_B2=jnp.zeros((slots, 2), jnp.int32),
    )


def read(
    model: Zaya,
    apply: Callable,
    variables: Variables,
    cache: Cache,
    slot_R: jax.Array,
    tokens_RC: jax.Array,
    count_R: jax.Array,
    room: int,
    last: bool,
) -> tuple[Cache, Piece, jax.Array | None, jax.Array]:
    """Reads the next tokens of R prompts.

    Args:
        apply: the model's call; `model.apply` inside of a program.
        cache: of all slots.
        slot_R: which row each prompt has; one beyond the last is nobody's.
        tokens_RC: right-padded tokens.
        count_R: how many of them are real.
        room: a bound of the tokens a row has when these are read; 0 if these are its first.
        last: whether these are the prompts' last tokens, behind which logits are wanted.

    Returns:
        The cache, what was added to it, the logits [R, V] behind the prompts or None, and the routes [L, R, C].
    """
    rows = _fresh(model, slot_R.shape[0]) if room == 0 else _take(model, cache, slot_R, room)
    start_R = rows.length_B
    out = apply(
        variables, tokens_RC, *_place(tokens_RC, count_R, start_R), cache=rows, logits="last" if last else "none"
    )
    piece = _cut(model, out.cache, start_R, count_R, tokens_RC.shape[1])
    return run_put(model, cache, slot_R, start_R, piece), piece, out.logits, out.routes_LBT


def put(model: Zaya, cache: Cache, slot_R: jax.Array, start_R: jax.Array, piece: Piece) -> Cache:
    """The cache with a piece behind the first `start_R` tokens of R rows, which end with it."""

    def keep(entry: LayerCache, new: LayerCache) -> LayerCache:
        return LayerCache(
            k_BSKH=_store(entry.k_BSKH, new.k_BSKH, slot_R, start_R, piece.count_R),
            v_BSKH=_store(entry.v_BSKH, new.v_BSKH, slot_R, start_R, piece.count_R),
            conv_B2U=entry.conv_B2U.at[slot_R].set(new.conv_B2U, mode="drop"),
            delayed_BX=entry.delayed_BX.at[slot_R].set(new.delayed_BX, mode="drop"),
        )

    pairs = zip(cache.layers, piece.layers, strict=True)
    length_B = cache.length_B.at[slot_R].set(start_R + piece.count_R, mode="drop")
    return Cache(tuple(_each_layer(model, keep)(*pair) for pair in pairs), length_B)


def one_row(model: Zaya, row: int, piece: Piece, logits_RV, routes_LRC) -> tuple[Piece, jax.Array | None, jax.Array]:
    """What several have read together, of one of them: its piece, its logits [1, V], its routes [L, C]."""
    if piece.count_R.shape[0] == 1:
        return piece, logits_RV, _first_routes(routes_LRC)
    return _one_row(model, row, piece, logits_RV, routes_LRC)


@functools.partial(jax.jit, static_argnames="model")
def _one_row(model: Zaya, row, piece: Piece, logits_RV, routes_LRC):
    def pick(x, axis):
        return lax.dynamic_slice_in_dim(x, row, 1, axis)

    axis = 1 if model.execution.layout == "stacked" else 0
    own = Piece(jax.tree.map(lambda x: pick(x, axis), piece.layers), pick(piece.count_R, 0))
    return own, jax.tree.map(lambda x: pick(x, 0), logits_RV), pick(routes_LRC, 1)[:, 0]


@jax.jit
def _first_routes(routes_LRC):
    return routes_LRC[:, 0]


def nbytes(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def begin(batch: Batch, state: State, slot_R: jax.Array, logits_RV: jax.Array) -> tuple[State, Tape]:
    """Draws the first token of R rows whose prompts are read. `state` is without its cache."""
    none_LR = jnp.zeros((1, slot_R.shape[0]), jnp.int8)  # the routes of the token before are among the prompt's
    first, column = decode.first_token(batch, jnp.ones_like(slot_R), logits_RV, none_LR)
    values = {name: getattr(first, name) for name in ("token_B", "step_B", "finish_B", "thinking_B", "spent_B2")}
    placed = {name: getattr(state, name).at[slot_R].set(value, mode="drop") for name, value in values.items()}
    return state.replace(**placed), column


def _fresh(model: Zaya, rows: int) -> Cache:
    return init_cache(model.config, model.execution, rows, 0)


def _take(model: Zaya, cache: Cache, slot_R: jax.Array, room: int) -> Cache:
    """R rows of the cache, cut to their first `room` slots where a layer sees all tokens."""
    slot_R = jnp.minimum(slot_R, cache.length_B.shape[0] - 1)

    def take(entry: LayerCache, window: int | None) -> LayerCache:
        def rows(x_BSKH):
            x_BSKH = x_BSKH[:, :room] if window is None else x_BSKH
            return like(jnp.take(as_integers(x_BSKH), slot_R, axis=0), x_BSKH)

        return LayerCache(rows(entry.k_BSKH), rows(entry.v_BSKH), entry.conv_B2U[slot_R], entry.delayed_BX[slot_R])

    layers = tuple(
        _each_layer(model, functools.partial(take, window=window))(entry)
        for entry, window in zip(cache.layers, _windows(model), strict=True)
    )
    return Cache(layers, cache.length_B[slot_R])


def _cut(model: Zaya, rows: Cache, start_R: jax.Array, count_R: jax.Array, columns: int) -> Piece:
    """The last call's part of R rows. Where a ring has already lost a token, another stands in its place."""
    index_RC = start_R[:, None] + jnp.arange(columns, dtype=jnp.int32)

    def cut(entry: LayerCache) -> LayerCache:
        def part(x_RSKH):
            slot_RC = index_RC % x_RSKH.shape[1]
            return like(jnp.take_along_axis(as_integers(x_RSKH), slot_RC[..., None, None], axis=1), x_RSKH)

        return entry.replace(k_BSKH=part(entry.k_BSKH), v_BSKH=part(entry.v_BSKH))

    return Piece(tuple(_each_layer(model, cut)(entry) for entry in rows.layers), count_R)


def _store(cached_BSKH, new_RCKH, slot_R, start_R, count_R):
    """Tokens of R rows in their slots; of a ring's, the newest."""
    slots, column_C = cached_BSKH.shape[1], jnp.arange(new_RCKH.shape[1], dtype=jnp.int32)
    kept_RC = (column_C < count_R[:, None]) & (column_C >= count_R[:, None] - slots)
    place_RC = jnp.where(kept_RC, (start_R[:, None] + column_C) % slots, slots)  # out of bounds: dropped
    new = as_integers(new_RCKH.astype(cached_BSKH.dtype))
    return like(as_integers(cached_BSKH).at[slot_R[:, None], place_RC].set(new, mode="drop"), cached_BSKH)


def _each_layer(model: Zaya, function: Callable) -> Callable:
    return jax.vmap(function) if model.execution.layout == "stacked" else function


def _windows(model: Zaya) -> list[int | None]:
    config: ModelConfig = model.config
    types = config.layer_types[: config.period] if model.execution.layout == "stacked" else config.layer_types
    return [config.window(layer_type) for layer_type in types]


_place = jax.jit(prompt_place)
_fresh = jax.jit(_fresh, static_argnames=("model", "rows"))
_take = jax.jit(_take, static_argnames=("model", "room"))
_cut = jax.jit(_cut, static_argnames=("model", "columns"))
run_put = jax.jit(put, static_argnames="model", donate_argnames="cache")
run_begin = jax.jit(begin)


@functools.partial(jax.jit, static_argnames=("model", "room", "last"), donate_argnames=("cache",))
def run_read(model, variables, cache, slot_R, tokens_RC, count_R, room: int, last: bool):
    """`read` as one program. The cache is used up: it is written in place."""
    return read(model, model.apply, variables, cache, slot_R, tokens_RC, count_R, room, last)


def run_read_by_layer(model, variables, cache, slot_R, tokens_RC, count_R, room: int, last: bool):
    """`read` for a model whose layers are programs of their own."""
    apply = functools.partial(call, model)
    return read(model, apply, variables, cache, slot_R, np.asarray(tokens_RC), np.asarray(count_R), room, last)

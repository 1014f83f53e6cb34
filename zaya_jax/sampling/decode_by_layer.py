"""`decode` for a model whose layers are programs of their own (`model.programs`): the host takes every step."""

from __future__ import annotations

import functools

import jax
import numpy as np

from zaya_jax.model import Cache, Zaya, init_cache
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import call
from zaya_jax.sampling import decode
from zaya_jax.sampling.decode import RUNNING, Batch, State, Tape


def run_prefill(
    model: Zaya,
    variables: Variables,
    batch: Batch,
    tokens_BT: np.ndarray,
    count_B: np.ndarray,
    cache: Cache | None,
    capacity: int,
) -> tuple[State, Tape, jax.Array]:
    """See `decode.run_prefill`."""
    fresh = cache is None
    cache = _empty(model, rows=tokens_BT.shape[0]) if fresh else cache
    place = _prompt_place(tokens_BT, count_B, cache.length_B)
    out = call(model, variables, tokens_BT, *place, cache=cache, logits="last")
    grown = decode.run_grow(model, out.cache, capacity=capacity) if fresh else out.cache
    state, column = _first_token(batch, count_B, out.logits, out.routes_LBT)
    return state.replace(cache=grown), column, out.routes_LBT


def run_decode(
    model: Zaya,
    variables: Variables,
    batch: Batch,
    state: State,
    stopped_B: np.ndarray,
    steps: int,
    columns: int,
    fewest: int = 1,
) -> tuple[State, Tape]:
    """See `decode.run_decode`; at least one step is taken. The tape has as many columns as steps were."""
    del columns
    cache, state = state.cache, _stop_rows(state.replace(cache=None), stopped_B)
    tape = []
    for _ in range(steps):
        out = call(model, variables, *_step_inputs(state, cache.length_B), cache=cache, logits="last")
        cache = out.cache
        state, column = _draw(batch, state, out.logits, out.routes_LBT)
        tape.append(jax.device_get(column))
        if (np.asarray(state.finish_B) == RUNNING).sum() < fewest:
            break
    return state.replace(cache=cache), jax.tree.map(lambda *column: np.stack(column, axis=-1), *tape)


@functools.partial(jax.jit, static_argnames=("model", "rows"))
def _empty(model: Zaya, rows: int) -> Cache:
    return init_cache(model.config, model.execution, rows, 0)


@jax.jit
def _first_token(batch, count_B, logits_BV, routes_LBT):
    return decode.first_token(batch, count_B, logits_BV, routes_LBT[:, :, 0])


@jax.jit
def _draw(batch, state, logits_BV, routes_LBT):
    return decode.draw(batch, state, logits_BV, routes_LBT[:, :, 0])


_prompt_place = jax.jit(decode.prompt_place)
_step_inputs = jax.jit(decode.step_inputs)
_stop_rows = jax.jit(decode.stop_rows)

"""The sampler on the device: read the prompts, then draw a token a step, all in one program.

A `Batch` says what each row asks for, a `State` where each row stands, a `Tape` what the steps have recorded. `_step`
is the whole of decoding; the one-program form and the streaming form differ only in how many steps they take at once.

Shapes are rounded up to a few sizes (`bucket`), so that few programs are compiled. Padding changes no result.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.bits import as_integers, like
from zaya_jax.model import Cache, Zaya, grow_cache, init_cache
from zaya_jax.model.layout import Variables
from zaya_jax.sampling.logits import Controls, controls, exact, logprob, sample, sample_kept
from zaya_jax.sampling.request import Request

RUNNING, STOP, LENGTH, EMPTY = 0, 1, 2, 3  # a row's `finish_B`; an empty row has no request
NOBODY = Request("", (), max_new_tokens=1)  # of an empty row
SMALLEST_BUCKET = 16
_NO_LIMIT = 2**30
_STOP_IDS = 8  # columns of stop ids come in multiples of this


@flax.struct.dataclass
class Batch:
    """What the rows ask for; it does not change while they are decoded.

    Attributes:
        controls: the sampling parameters.
        limit_B: int32, the most new tokens.
        stop_ids_BS: int32, ids that end a row; -1 where a row has fewer.
        think_B2: int32, the ids of `<think>` and `</think>`; -1 where a row has none.
        budget_B2: int32, the most tokens of reasoning and of the rest.
        force_B: bool, whether a spent budget of reasoning forces its end; else it ends the row.
        thinking_B: bool, whether the prompt ends inside a block of reasoning.
        kept: K, how many ids a token is drawn from at most, which then are on the tape; 0 draws from all.
    """

    controls: Controls
    limit_B: jax.Array
    stop_ids_BS: jax.Array
    think_B2: jax.Array
    budget_B2: jax.Array
    force_B: jax.Array
    thinking_B: jax.Array
    kept: int = flax.struct.field(pytree_node=False, default=0)


@flax.struct.dataclass
class State:
    """Where the rows stand.

    Attributes:
        cache: memory of every token the model has read; `cache.length_B` counts them.
        token_B: int32, the last token drawn, which the model has not read yet.
        step_B: int32, how many tokens have been drawn.
        finish_B: int8, RUNNING, or why the row ended.
        thinking_B: bool, whether the next token belongs to a block of reasoning.
        spent_B2: int32, how many tokens of reasoning and of the rest have been drawn, marks not counted.
    """

    cache: Cache
    token_B: jax.Array
    step_B: jax.Array
    finish_B: jax.Array
    thinking_B: jax.Array
    spent_B2: jax.Array


@flax.struct.dataclass
class Tape:
    """What steps have recorded, a column a step. A row that ends leaves the columns behind as they were made.

    Attributes:
        token_BN: int32, the token drawn.
        logprob_model_BN, logprob_sampling_BN: of the exact type, its log-probabilities (`logits.Sampled`).
        routes_LBN: int8, the routes of the token read in that step, which is the one drawn a step earlier.
        kept_KBN: int32, the ids that each token was drawn from, -1 behind them; None unless `Batch.kept`.
    """

    token_BN: jax.Array
    logprob_model_BN: jax.Array
    logprob_sampling_BN: jax.Array
    routes_LBN: jax.Array
    kept_KBN: jax.Array | None = None


def bucket(size: int) -> int:
    """The smallest of 16, 32, 64, 128, 192, 256, 384, 512, 768, ... that is not below `size`.

    Powers of two; from 128 on, where padding costs more than another program, the halves between them as well.
    """
    power = max(SMALLEST_BUCKET, 1 << (size - 1).bit_length())
    return power * 3 // 4 if power > 128 and size <= power * 3 // 4 else power


def make_batch(requests: Sequence[Request], kept: int = 0) -> Batch:
    """The rows of a list of requests, in order. `kept`: of the batch."""
    widest = max(len(request.stop_ids) for request in requests)
    stop_ids_BS = np.full((len(requests), max(-(-widest // _STOP_IDS), 1) * _STOP_IDS), -1, np.int32)
    for row, request in zip(stop_ids_BS, requests, strict=True):
        row[: len(request.stop_ids)] = request.stop_ids
    budgets = [(request.thinking_budget, request.answer_budget) for request in requests]
    return Batch(
        controls(requests),
        limit_B=np.array([request.max_new_tokens for request in requests], np.int32),
        stop_ids_BS=stop_ids_BS,
        think_B2=np.array([request.think_ids or (-1, -1) for request in requests], np.int32),
        budget_B2=np.array([[_NO_LIMIT if b is None else b for b in pair] for pair in budgets], np.int32),
        force_B=np.array([request.force_end and request.answer_budget != 0 for request in requests], bool),
        thinking_B=np.array([request.in_thinking for request in requests], bool),
        kept=kept,
    )


def pad_right(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one int32 array [B, T] of bucketed length, and their own lengths [B]."""
    count_B = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens_BT = np.zeros((len(prompts), bucket(int(count_B.max()))), np.int32)
    for row, prompt in zip(tokens_BT, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens_BT, count_B


def prefill(
    model: Zaya,
    variables: Variables,
    batch: Batch,
    tokens_BT: jax.Array,
    count_B: jax.Array,
    cache: Cache | None,
    capacity: int,
) -> tuple[State, Tape, jax.Array]:
    """Reads the prompts and draws each row's first token.

    Args:
        tokens_BT: right-padded prompts, or what is new of them if there is a cache.
        count_B: how many tokens of each row are real; a row of none is EMPTY.
        cache: what has been read before, with `capacity` slots; None for nothing.
        capacity: how many tokens a row of the cache can hold.

    Returns:
        The state, a tape of one column (whose routes are meaningless), and the routes [L, B, T] of `tokens_BT`.
    """
    config, execution = model.config, model.execution
    fresh = cache is None
    cache = init_cache(config, execution, tokens_BT.shape[0], 0) if fresh else cache
    place = prompt_place(tokens_BT, count_B, cache.length_B)
    out = model.apply(variables, tokens_BT, *place, cache=cache, logits="last")
    grown = grow_cache(config, execution.layout, out.cache, capacity) if fresh else out.cache
    state, column = first_token(batch, count_B, out.logits, out.routes_LBT[:, :, 0])
    return state.replace(cache=grown), column, out.routes_LBT


def prompt_place(tokens_BT: jax.Array, count_B: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions and segments of right-padded prompts behind `length_B` stored tokens."""
    column_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32), tokens_BT.shape)
    segments_BT = (column_BT < count_B[:, None]).astype(jnp.int32)
    return (length_B[:, None] + column_BT) * segments_BT, segments_BT


def first_token(batch: Batch, count_B: jax.Array, logits_BV: jax.Array, routes_LB: jax.Array) -> tuple[State, Tape]:
    """Draws each row's first token: a state (without cache) and a tape of one column."""
    none_B = jnp.zeros(count_B.shape[0], jnp.int32)
    empty_B = jnp.where(count_B > 0, RUNNING, EMPTY).astype(jnp.int8)
    spent_B2 = jnp.zeros((count_B.shape[0], 2), jnp.int32)
    state = State(None, none_B, none_B, empty_B, jnp.asarray(batch.thinking_B), spent_B2)
    state, column = draw(batch, state, logits_BV, routes_LB)
    return state, jax.tree.map(lambda x: x[..., None], column)


def decode(
    model: Zaya, variables: Variables, batch: Batch, state: State, steps: jax.Array, columns: int, fewest=1
) -> tuple[State, Tape]:
    """Takes up to `steps` steps (at most `columns`, the tape's width) while `fewest` rows are running."""
    tape = _blank_tape(model, state.token_B.shape[0], columns, batch.kept)
    cache = state.cache
    # XLA:CPU writes a cache of bfloat16 as integers, and would copy it whole to them and back at every step.
    pack, unpack = (as_integers, like) if model.execution.layout == "unstacked" else (lambda x: x, lambda x, _: x)

    def unfinished(carry: tuple[State, Tape, jax.Array]) -> jax.Array:
        state, _, step = carry
        return (step < steps) & ((state.finish_B == RUNNING).sum() >= fewest)

    def advance(carry: tuple[State, Tape, jax.Array]) -> tuple[State, Tape, jax.Array]:
        state, tape, step = carry
        state = state.replace(cache=jax.tree.map(unpack, state.cache, cache))
        state, column = _step(model, variables, batch, state)
        state = state.replace(cache=jax.tree.map(pack, state.cache))
        return state, jax.tree.map(lambda x, new: x.at[..., step].set(new), tape, column), step + 1

    state = state.replace(cache=jax.tree.map(pack, cache))
    state, tape, _ = lax.while_loop(unfinished, advance, (state, tape, jnp.int32(0)))
    return state.replace(cache=jax.tree.map(unpack, state.cache, cache)), tape


def _step(model: Zaya, variables: Variables, batch: Batch, state: State) -> tuple[State, Tape]:
    """Reads each running row's last token and draws its next; returns one column of the tape, [B] and [L, B]."""
    out = model.apply(variables, *step_inputs(state, state.cache.length_B), cache=state.cache, logits="last")
    return draw(batch, state.replace(cache=out.cache), out.logits, out.routes_LBT[:, :, 0])


def step_inputs(state: State, length_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens, positions and segments of a step, [B, 1]."""
    # To the model, a finished row is padding: it is stored nowhere and costs no expert.
    running_B = (state.finish_B == RUNNING).astype(jnp.int32)
    return state.token_B[:, None], length_B[:, None], running_B[:, None]


def draw(batch: Batch, state: State, logits_BV: jax.Array, routes_LB: jax.Array) -> tuple[State, Tape]:
    """Draws a token for each running row and sees whether it ends the row.

    A row that has spent its budget of reasoning may be given `</think>`, whose probability was 1 then.
    """
    if batch.kept:
        drawn = sample_kept(logits_BV, batch.controls, state.step_B, batch.kept)
    else:
        drawn = sample(logits_BV, batch.controls, state.step_B)
    forced_B = state.thinking_B & (state.spent_B2[:, 0] >= batch.budget_B2[:, 0]) & batch.force_B
    token_B = jnp.where(forced_B, batch.think_B2[:, 1], drawn.token_B)
    model_B = lax.cond(forced_B.any(), lambda: logprob(exact(logits_BV), token_B), lambda: drawn.logprob_model_B)
    running_B = state.finish_B == RUNNING
    new = _after(batch, state, token_B)
    state = state.replace(
        **{name: jnp.where(_like(running_B, value), value, getattr(state, name)) for name, value in new.items()}
    )
    return state, Tape(token_B, model_B, jnp.where(forced_B, 0, drawn.logprob_sampling_B), routes_LB, drawn.kept_KB)


def _after(batch: Batch, state: State, token_B: jax.Array) -> dict[str, jax.Array]:
    """Where rows stand after a token."""
    step_B = state.step_B + 1
    opens_B, closes_B = (token_B == batch.think_B2[:, side] for side in (0, 1))
    thinking_B = (state.thinking_B | opens_B) & ~closes_B
    of_reasoning_B = state.thinking_B & ~closes_B
    counted_B2 = jnp.stack([of_reasoning_B, ~of_reasoning_B], axis=1) & ~(opens_B | closes_B)[:, None]
    spent_B2 = state.spent_B2 + counted_B2

    spent_thinking_B, spent_answer_B = (spent_B2[:, side] >= batch.budget_B2[:, side] for side in (0, 1))
    closed_B = closes_B & (batch.budget_B2[:, 1] == 0)
    stopped_B = (token_B[:, None] == batch.stop_ids_BS).any(axis=1) | closed_B
    spent_B = jnp.where(thinking_B, spent_thinking_B & ~batch.force_B, spent_answer_B)
    ended_B = jnp.where(stopped_B, STOP, jnp.where(spent_B | (step_B >= batch.limit_B), LENGTH, RUNNING))
    return {
        "token_B": token_B,
        "step_B": step_B,
        "finish_B": ended_B.astype(jnp.int8),
        "thinking_B": thinking_B,
        "spent_B2": spent_B2,
    }


def _like(mask_B: jax.Array, x: jax.Array) -> jax.Array:
    return mask_B.reshape(-1, *[1] * (x.ndim - 1))


def parts(tape: Tape) -> list[jax.Array]:
    """What `answers.Answer.take` takes a row of."""
    found = [tape.token_BN, tape.logprob_model_BN, tape.logprob_sampling_BN, tape.routes_LBN]
    return found if tape.kept_KBN is None else [*found, tape.kept_KBN]


def fetch(tape: Tape) -> list[np.ndarray]:
    """`parts` on the host."""
    return jax.device_get(parts(tape))


def stop_rows(state: State, stopped_B: jax.Array) -> State:
    """Ends the rows that the host has seen to be finished."""
    return state.replace(finish_B=jnp.where(stopped_B & (state.finish_B == RUNNING), STOP, state.finish_B))


def _blank_tape(model: Zaya, rows: int, columns: int, kept: int) -> Tape:
    config = model.config
    routes_dtype = jnp.int8 if config.num_experts < 127 else jnp.int16
    logprob_BN = jnp.zeros((rows, columns), model.execution.exact_dtype)
    routes_LBN = jnp.full((config.num_layers, rows, columns), -1, routes_dtype)
    kept_KBN = jnp.full((kept, rows, columns), -1, jnp.int32) if kept else None
    return Tape(jnp.zeros((rows, columns), jnp.int32), logprob_BN, logprob_BN, routes_LBN, kept_KBN)


@functools.partial(jax.jit, static_argnames=("model", "capacity", "columns"))
def run_whole(model, variables, batch, tokens_BT, count_B, steps, capacity: int, columns: int):
    """`prefill` and `decode` as one program. Returns the state less its cache, both tapes and the prompts' routes."""
    state, first, routes_LBT = prefill(model, variables, batch, tokens_BT, count_B, None, capacity)
    state, tape = decode(model, variables, batch, state, steps, columns)
    return state.replace(cache=None), first, tape, routes_LBT


@functools.partial(jax.jit, static_argnames=("model", "capacity"), donate_argnames=("cache",))
def run_prefill(model, variables, batch, tokens_BT, count_B, cache, capacity: int):
    """`prefill` as a program of its own, for streaming. A given cache is used up."""
    return prefill(model, variables, batch, tokens_BT, count_B, cache, capacity)


@functools.partial(jax.jit, static_argnames=("model", "columns"), donate_argnames=("state",))
def run_decode(model, variables, batch, state, stopped_B, steps, columns: int, fewest=1):
    """`decode` as a program of its own. The state is used up: its cache is written in place.

    `stopped_B` has the rows that the host has ended, whose answer holds a stop string.
    """
    state = stop_rows(state, stopped_B)
    return decode(model, variables, batch, state, steps, columns, fewest)


@functools.partial(jax.jit, static_argnames=("model", "capacity"))
def run_grow(model, cache, capacity: int):
    """The cache with room for `capacity` tokens a row."""
    return grow_cache(model.config, model.execution.layout, cache, capacity)

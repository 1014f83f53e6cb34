"""Logits and log-probabilities of given tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from zaya_jax.errors import mistake
from zaya_jax.model import ModelConfig, Zaya
from zaya_jax.model.layers import dense, positions_from_segments
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import call
from zaya_jax.sampling.request import check_ids

Kind = Literal["logits", "logprobs"]

_TOKENS = 4096  # of the rows that go through the layers together
_LOGITS = 2**25  # of the columns that go through the head together: 128 MiB in float32


def score(
    model: Zaya,
    variables: Variables,
    tokens_BT: np.ndarray,
    mask_BT: np.ndarray | None = None,
    *,
    kind: Kind = "logits",
    batch_rows: int | None = None,
    out: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """The model's opinion on every token of some texts.

    The logits of only a few columns are ever held at once; of "logits", beside the result itself.

    Args:
        tokens_BT: integers, a text a row.
        mask_BT: 1 for tokens, 0 for padding before or behind a row's text; None for no padding.
        kind: "logits", float32 [B, T, V]: those of the token that follows. "logprobs", float32 [B, T - 1]: the
            log-probability of each next token, tokens[:, 1:] given all before it.
        batch_rows: rows computed together; by default as many as make about 4,096 tokens.
        out: where to write the result, for instance a memory-mapped file; by default a new array.
        progress: is told the finished rows and all rows.

    Returns:
        `out`. Padding has 0: the logits at it, and the log-probability of it or of what follows it.

    Raises:
        UserError: tokens or mask are not what they should be, or an id is outside of the vocabulary.
    """
    tokens_BT, mask_BT = check_tokens(model.config, tokens_BT, mask_BT)
    B, T = tokens_BT.shape
    shape = result_shape(model.config, tokens_BT, kind)
    out = np.empty(shape, np.float32) if out is None else out
    if (out.shape, out.dtype) != (shape, np.float32):
        found = f"{out.dtype}{list(out.shape)}"
        raise mistake("wrong shape", where="out", expected=f"float32{list(shape)}", found=found)
    rows = min(B, batch_rows or max(_TOKENS // T, 1))
    columns = max(min(_LOGITS // (rows * model.config.vocab_size), T), 1)
    for start in range(0, B, rows):
        part = slice(start, min(start + rows, B))
        write = _write_logits if kind == "logits" else _write_logprobs
        write(model, variables, tokens_BT[part], mask_BT[part], rows, columns, out[part])
        if progress:
            progress(part.stop, B)
    return out


def result_shape(config: ModelConfig, tokens_BT: np.ndarray, kind: Kind) -> tuple[int, ...]:
    """Shape of the result of `score`."""
    B, T = tokens_BT.shape
    return (B, T, config.vocab_size) if kind == "logits" else (B, T - 1)


def check_tokens(
    config: ModelConfig,
    tokens_BT: np.ndarray,
    mask_BT: np.ndarray | None = None,
    *,
    where: object = "tokens",
    mask_where: object = "mask",
) -> tuple[np.ndarray, np.ndarray]:
    """Checks what `score` is given; `where` and `mask_where` name the two in messages.

    Returns:
        int32 tokens (0 for padding) and mask.

    Raises:
        UserError: naming what is wrong, and the row where there is one.
    """
    tokens_BT = np.asarray(tokens_BT)
    if tokens_BT.ndim != 2:
        raise mistake("wrong number of dimensions", where=where, expected="[rows, tokens]", found=list(tokens_BT.shape))
    if not np.issubdtype(tokens_BT.dtype, np.integer):
        raise mistake("not token ids", where=where, expected="integers", found=tokens_BT.dtype)
    mask_BT = np.ones(tokens_BT.shape, np.int32) if mask_BT is None else _check_mask(mask_BT, tokens_BT, mask_where)
    if 0 in tokens_BT.shape:
        raise mistake("no tokens", where=where, expected="at least one", found=list(tokens_BT.shape))
    if tokens_BT.shape[1] > config.max_position_embeddings:
        expected, found = f"at most {config.max_position_embeddings} tokens", tokens_BT.shape[1]
        raise mistake("rows longer than the context", where=where, expected=expected, found=found)
    tokens_BT = np.where(mask_BT == 0, 0, tokens_BT)
    check_ids(tokens_BT, config.vocab_size, where)
    return tokens_BT.astype(np.int32), mask_BT


def _check_mask(mask_BT: np.ndarray, tokens_BT: np.ndarray, where: object) -> np.ndarray:
    mask_BT = np.asarray(mask_BT)
    if mask_BT.shape != tokens_BT.shape:
        raise mistake("wrong shape", where=where, expected=list(tokens_BT.shape), found=list(mask_BT.shape))
    if not np.isin(mask_BT, (0, 1)).all():
        odd = mask_BT[~np.isin(mask_BT, (0, 1))][0]
        raise mistake("not a mask", where=where, expected="1 for tokens and 0 for padding", found=odd)
    mask_BT = mask_BT.astype(np.int32)
    empty_B = mask_BT.sum(axis=1) == 0
    if empty_B.any():
        raise mistake("a row is all padding", where=f"{where}, row {np.argmax(empty_B)}", expected="at least one token")
    starts_B = mask_BT[:, 0] + (np.diff(mask_BT, axis=1) == 1).sum(axis=1)
    if (starts_B > 1).any():
        expected = "padding before or behind the tokens only"
        raise mistake("padding among the tokens", where=f"{where}, row {np.argmax(starts_B > 1)}", expected=expected)
    return mask_BT


def _write_logits(model, variables, tokens_BT, mask_BT, rows: int, columns: int, out_BTV: np.ndarray) -> None:
    B, T = tokens_BT.shape
    hidden_BTD = _hidden(model, variables, _fill(tokens_BT, rows), _fill(mask_BT, rows), columns=columns)
    for start in range(0, T, columns):
        part = slice(start, min(start + columns, T))
        logits_BTV = np.asarray(_logits(model, variables, hidden_BTD, start, columns=columns))
        real_BT1 = mask_BT[:, part, None] != 0
        out_BTV[:, part] = np.where(real_BT1, logits_BTV[:B, : part.stop - start], 0)


def _write_logprobs(model, variables, tokens_BT, mask_BT, rows: int, columns: int, out_BT: np.ndarray) -> None:
    B, T = tokens_BT.shape
    hidden_BTD = _hidden(model, variables, _fill(tokens_BT, rows), _fill(mask_BT, rows), columns=columns)
    next_BT = _fill(np.pad(tokens_BT[:, 1:], ((0, 0), (0, hidden_BTD.shape[1] - T + 1))), rows)
    for start in range(0, T - 1, columns):
        part = slice(start, min(start + columns, T - 1))
        logprobs_BT = np.asarray(_logprobs(model, variables, hidden_BTD, next_BT, start, columns=columns))
        real_BT = (mask_BT[:, :-1] * mask_BT[:, 1:])[:, part] != 0
        out_BT[:, part] = np.where(real_BT, logprobs_BT[:B, : part.stop - start], 0)


def _fill(x_BT: np.ndarray, rows: int) -> np.ndarray:
    """Pads a last, smaller group of rows, which then needs no program of its own."""
    return np.pad(x_BT, ((0, rows - len(x_BT)), (0, 0)))


def _hidden(model: Zaya, variables: Variables, tokens_BT: np.ndarray, mask_BT: np.ndarray, columns: int) -> jax.Array:
    """What the head reads, [B, T, D], with T rounded up to a multiple of `columns`."""
    positions_BT = _positions(mask_BT)
    hidden_BTD = call(model, variables, tokens_BT, positions_BT, mask_BT, logits="none").hidden_BTD
    return _pad(hidden_BTD, columns)


_positions = jax.jit(positions_from_segments)


@functools.partial(jax.jit, static_argnames="columns")
def _pad(hidden_BTD: jax.Array, columns: int) -> jax.Array:
    return jnp.pad(hidden_BTD, ((0, 0), (0, -hidden_BTD.shape[1] % columns), (0, 0)))


@functools.partial(jax.jit, static_argnames=("model", "columns"))
def _logits(model: Zaya, variables: Variables, hidden_BTD: jax.Array, start: jax.Array, columns: int) -> jax.Array:
    """Logits of some columns, float32 [B, columns, V]."""
    part_BTD = lax.dynamic_slice_in_dim(hidden_BTD, start, columns, axis=1)
    return dense(model.execution, part_BTD, variables["params"]["embedding"]).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("model", "columns"))
def _logprobs(model, variables, hidden_BTD, next_BT, start, columns: int) -> jax.Array:
    """Log-probabilities of what follows some columns, float32 [B, columns]."""
    logits_BTV = _logits(model, variables, hidden_BTD, start, columns)
    next_BT1 = lax.dynamic_slice_in_dim(next_BT, start, columns, axis=1)[..., None]
    chosen_BT = jnp.take_along_axis(logits_BTV, next_BT1, axis=-1)[..., 0]
    return chosen_BT - jax.nn.logsumexp(logits_BTV, axis=-1)

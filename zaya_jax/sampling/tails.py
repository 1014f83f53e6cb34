"""Tails: the last tokens of a line of reasoning, and prompts put together around them, on the device.

Tails are token ids from the moment they are drawn to the moment they are read again. They are never decoded: another
cut of the same text into tokens would be another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@flax.struct.dataclass
class Tails:
    """The tails of N candidates, each at the start of its row.

    Attributes:
        tokens_NX: int32, at most X tokens each.
        count_N: int32, how many there are.
    """

    tokens_NX: jax.Array
    count_N: jax.Array


@flax.struct.dataclass
class Template:
    """What stands around the tails of a prompt: J pieces, one more than tails.

    Attributes:
        tokens_Y: int32, all pieces one after the other.
        count_J: int32, the length of each.
    """

    tokens_Y: jax.Array
    count_J: jax.Array


def make_template(between: Sequence[Sequence[int]]) -> Template:
    """The pieces of `text.aggregation.Pieces`, joined."""
    return Template(np.concatenate([np.array(part, np.int32) for part in between]), np.array([*map(len, between)]))


def cut_tails(tokens_NT, drawn_N, think_2, stop_ids_NS, tau: int) -> Tails:
    """The last `tau` tokens of reasoning of what was drawn behind prompts that open it; on the device.

    Args:
        tokens_NT: what was drawn, `drawn_N` tokens a row.
        think_2: the ids of the marks.
        stop_ids_NS: ids that end an answer, -1 for none.
    """
    index_T = jnp.arange(tokens_NT.shape[1], dtype=jnp.int32)
    starts, closes = tokens_NT == think_2[0], tokens_NT == think_2[1]
    last_start, last_close = (lax.cummax(jnp.where(mark, index_T, -1), axis=1) for mark in (starts, closes))
    inside = (last_start >= last_close) & ~starts & (index_T < drawn_N[:, None])
    inside &= ~(tokens_NT[:, :, None] == stop_ids_NS[:, None, :]).any(axis=-1)
    place = jnp.cumsum(inside, axis=1, dtype=jnp.int32) - 1
    total_N = inside.sum(axis=1, dtype=jnp.int32)
    place -= jnp.maximum(total_N - tau, 0)[:, None]
    place = jnp.where(inside & (place >= 0), place, tau)  # out of bounds: dropped
    row = jnp.arange(tokens_NT.shape[0])[:, None]
    tokens_NX = jnp.zeros((tokens_NT.shape[0], tau), jnp.int32).at[row, place].set(tokens_NT, mode="drop")
    return Tails(tokens_NX, jnp.minimum(total_N, tau))


def assemble(template: Template, tails: Tails, parents_MC: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Prompts with the tails of C parents each, right-padded int32 [M, width], and their lengths [M].

    Every token of a prompt is looked up: which part it is in, and how far into it.
    """
    X, (M, C), Y = tails.tokens_NX.shape[1], parents_MC.shape, template.tokens_Y.shape[0]
    source = jnp.concatenate([template.tokens_Y, tails.tokens_NX.reshape(-1)])
    count_J, parents_MC = jnp.asarray(template.count_J), jnp.asarray(parents_MC)
    pieces_M = jnp.broadcast_to(count_J, (M, C + 1))
    starts_M = jnp.broadcast_to(jnp.cumsum(count_J) - count_J, (M, C + 1))
    counts = _interleaved(pieces_M, jnp.asarray(tails.count_N)[parents_MC])
    starts = _interleaved(starts_M, Y + parents_MC * X)
    ends = jnp.cumsum(counts, axis=1)

    column = jnp.arange(width, dtype=jnp.int32)
    part = (column[None, :, None] >= ends[:, None, :]).sum(axis=-1)
    part = jnp.minimum(part, counts.shape[1] - 1)
    offset = column - jnp.take_along_axis(ends - counts, part, axis=1)
    place = jnp.take_along_axis(starts, part, axis=1) + offset
    tokens = jnp.take(source, place, mode="clip")
    return jnp.where(column < ends[:, -1:], tokens, 0), ends[:, -1]


def _interleaved(pieces_MJ: jax.Array, tails_MC: jax.Array) -> jax.Array:
    """Piece, tail, piece, ..., piece: [M, 2 C + 1]."""
    pairs = jnp.stack([pieces_MJ[:, :-1], tails_MC], axis=-1).reshape(tails_MC.shape[0], -1)
    return jnp.concatenate([pairs, pieces_MJ[:, -1:]], axis=1)

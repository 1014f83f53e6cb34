"""What neighbours along the columns give each other, inside of `each_device(..., columns=True)`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from zaya_jax.parallel.local import COLUMN_AXIS


def from_left(x_BTX: jax.Array, tokens: int) -> jax.Array:
    """The halo: the last `tokens` columns of the chunk on the left; zeros for the first chunk, which has none."""
    last = lax.axis_size(COLUMN_AXIS) - 1
    return lax.ppermute(x_BTX[:, -tokens:], COLUMN_AXIS, [(i, i + 1) for i in range(last)])


def all_columns(x_BTX: jax.Array) -> jax.Array:
    """All chunks in their order, [B, S, ...]. Its gradient goes back to each chunk's device, summed."""
    return lax.all_gather(x_BTX, COLUMN_AXIS, axis=1, tiled=True)


def column_index(x_BTX: jax.Array) -> jax.Array:
    """Each column's index among the columns of all chunks, int32 [B, T]."""
    B, T = x_BTX.shape[:2]
    first = lax.axis_index(COLUMN_AXIS).astype(jnp.int32) * T
    return jnp.broadcast_to(first + jnp.arange(T, dtype=jnp.int32), (B, T))

"""Slabs: an expert's rows are multiplied as one product of a few fixed sizes, a little longer than they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SHARES = 4
_SMALL = 32  # rows that are one product whatever the share: it takes as long as reading the matrix
_SLABS = (8, 16, 32, 48, 64, 96, 128, 192, 256)  # rows; finer steps waste less and compile longer


def slab_sizes(rows: int, experts: int) -> tuple[int, ...]:
    """The slab sizes worth compiling for that many rows: up to four even shares, for few experts have more.

    What a remainder writes is padded to the largest size. An expert of more rows takes several slabs.
    """
    enough = max(_SHARES * rows / experts, min(rows, _SMALL))
    large = next((size for size in _SLABS if size >= enough), _SLABS[-1])
    return tuple(size for size in _SLABS if size <= large)


def which_slab(sizes: tuple[int, ...], rest: jax.Array) -> jax.Array:
    """0 if no row remains, else 1 + the index of the smallest size that holds them."""
    return jnp.where(rest == 0, 0, 1 + jnp.searchsorted(jnp.asarray(sizes), rest))

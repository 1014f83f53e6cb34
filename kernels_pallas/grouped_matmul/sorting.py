"""Bringing rows into expert order and back, with gradients that are gathers too."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.bits import as_integers, like


class Order(NamedTuple):
    """A stable sort of rows by expert.

    Attributes:
        order_M: row of each place in the sorted sequence.
        inverse_M: place of each row.
        group_sizes_E: rows of each expert; rows that belong to none come last and are not counted.
    """

    order_M: jax.Array
    inverse_M: jax.Array
    group_sizes_E: jax.Array


def sort_by_expert(expert_M: jax.Array, num_experts: int) -> Order:
    """Orders rows by `expert_M`; an id outside of 0..E-1 (skip class, padding) belongs to no expert."""
    inside = (expert_M >= 0) & (expert_M < num_experts)
    key_M = jnp.where(inside, expert_M, num_experts).astype(jnp.int32)
    hits_ME = key_M[:, None] == jnp.arange(num_experts + 1, dtype=jnp.int32)
    sizes_E = hits_ME.sum(axis=0, dtype=jnp.int32)
    # A counting sort: the place of a row is its group's start plus the number of earlier rows of that group.
    rank_M = jnp.take_along_axis(jnp.cumsum(hits_ME, axis=0, dtype=jnp.int32), key_M[:, None], axis=1)[:, 0] - 1
    inverse_M = jnp.take(jnp.cumsum(sizes_E) - sizes_E, key_M) + rank_M
    rows = jnp.arange(expert_M.shape[0], dtype=jnp.int32)
    order_M = jnp.zeros_like(rows).at[inverse_M].set(rows, unique_indices=True)
    return Order(order_M, inverse_M, sizes_E[:num_experts])


def _take(x_MD, index_M):
    return like(jnp.take(as_integers(x_MD), index_M, axis=0), x_MD)


@jax.custom_vjp
def _permute(x_MD, index_M, inverse_M):
    return _take(x_MD, index_M)


def _permute_forward(x_MD, index_M, inverse_M):
    return _permute(x_MD, index_M, inverse_M), (index_M, inverse_M)


def _permute_backward(indices, g_MD):
    index_M, inverse_M = indices
    none = np.zeros(index_M.shape, jax.dtypes.float0)
    return _take(g_MD, inverse_M), none, none


_permute.defvjp(_permute_forward, _permute_backward)


def take_sorted(x_MD: jax.Array, order: Order) -> jax.Array:
    """x in expert order."""
    return _permute(x_MD, order.order_M, order.inverse_M)


def unsort(x_MD: jax.Array, order: Order) -> jax.Array:
    """The inverse of `take_sorted`."""
    return _permute(x_MD, order.inverse_M, order.order_M)

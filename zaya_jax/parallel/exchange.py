"""Rows to the devices that own their experts and back: an all-to-all over the mesh axis `expert`. No row is dropped.

Of X devices along the axis, each owns E/X consecutive experts and holds P rows, sorted by expert: the rows of one
owner are consecutive. All of them might choose experts of one owner, so each device makes room for X * P rows.

"dense" sends X blocks of P rows, filled up with zeros, whatever is in them: every platform has that. "ragged" sends the
rows alone; XLA:CPU does not have it. Both are used inside of `each_device`.
"""

from __future__ import annotations

import functools
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels_pallas.bits import as_integers, like

AXIS = "expert"
Kind = Literal["dense", "ragged"]


def best_kind(mesh: jax.sharding.Mesh) -> Kind:
    """ "ragged" where the platform of the mesh's devices has it."""
    return "dense" if mesh.devices.flat[0].platform == "cpu" else "ragged"


class Offsets(flax.struct.PyTreeNode):
    """Where the rows of one device lie, int32 [X] each; entry i is about the device i of the axis.

    Attributes:
        first: of those for owner i, in this device's rows.
        count: how many there are.
        received_first: of those from device i, in what this device receives, if no room is left between them.
        received_count: how many there are.
        there_first: of this device's rows, in what owner i receives.
        back_first: of what this device sends back, in the rows of device i.
    """

    first: jax.Array
    count: jax.Array
    received_first: jax.Array
    received_count: jax.Array
    there_first: jax.Array
    back_first: jax.Array


def offsets(counts_XX: jax.Array, me: jax.Array | int) -> Offsets:
    """The offsets of device `me`, from how many rows each device (first axis) has for each owner (second axis)."""
    by_owner, by_sender = (jnp.cumsum(counts_XX, axis) - counts_XX for axis in (1, 0))
    return Offsets(
        first=by_owner[me],
        count=counts_XX[me],
        received_first=by_sender[:, me],
        received_count=counts_XX[:, me],
        there_first=by_sender[me],
        back_first=by_owner[:, me],
    )


class Exchange(flax.struct.PyTreeNode):
    """One exchange, known to every device of the axis.

    Attributes:
        counts_XE: rows that each device has for each expert.
        kind: how rows travel.
    """

    counts_XE: jax.Array
    kind: Kind = flax.struct.field(pytree_node=False)

    @property
    def offsets(self) -> Offsets:
        """Of this device."""
        X, E = self.counts_XE.shape
        return offsets(self.counts_XE.reshape(X, X, E // X).sum(-1), lax.axis_index(AXIS))

    def send(self, x_PD: jax.Array) -> jax.Array:
        """This device's rows, sorted by expert, to their owners: what this one receives, [X * P, D]."""
        return _send(self.kind, x_PD, self.offsets)

    def bring_back(self, y_QD: jax.Array) -> jax.Array:
        """What became of the received rows, to where they came from: [P, D], zeros for a row without an expert."""
        return _bring_back(self.kind, y_QD, self.offsets)

    def received(self, rows: int) -> jax.Array:
        """Which of its own experts, from 0, each received row is for, int32 [X * P]; -1 where nothing was received."""
        X, E = self.counts_XE.shape
        mine_XE = lax.dynamic_slice_in_dim(self.counts_XE, lax.axis_index(AXIS) * (E // X), E // X, axis=1)
        return received_experts(self.kind, mine_XE, rows)


def exchange(kind: Kind, group_sizes_E: jax.Array) -> Exchange:
    """Tells all devices of the axis how many rows this one has for each expert."""
    return Exchange(lax.all_gather(group_sizes_E, AXIS), kind)


def received_experts(kind: Kind, mine_XE: jax.Array, rows: int) -> jax.Array:
    """`Exchange.received`, from how many rows each device has for each of this owner's experts."""
    (X, own), total = mine_XE.shape, mine_XE.shape[0] * rows
    if kind == "dense":  # a block of `rows` places from each device
        stops = jnp.cumsum(mine_XE, 1)[:, None]
        place = (jnp.arange(rows, dtype=jnp.int32)[:, None] >= stops).sum(-1, dtype=jnp.int32).reshape(total)
        return jnp.where(place < own, place, -1)
    stops = jnp.cumsum(mine_XE.reshape(-1))
    place = (jnp.arange(total, dtype=jnp.int32)[:, None] >= stops).sum(-1, dtype=jnp.int32)
    return jnp.where(place < X * own, place % own, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _send(kind: Kind, x_PD: jax.Array, at: Offsets) -> jax.Array:
    (P, D), X = x_PD.shape, at.count.shape[0]
    if kind == "ragged":
        room = jnp.zeros((X * P, D), x_PD.dtype)
        return lax.ragged_all_to_all(x_PD, room, at.first, at.count, at.there_first, at.received_count, axis_name=AXIS)
    place = jnp.arange(P, dtype=jnp.int32)
    blocks_XPD = _rows(x_PD, at.first[:, None] + place, place < at.count[:, None])
    return lax.all_to_all(blocks_XPD, AXIS, 0, 0).reshape(X * P, D)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bring_back(kind: Kind, y_QD: jax.Array, at: Offsets) -> jax.Array:
    X, (Q, D) = at.count.shape[0], y_QD.shape
    P = Q // X
    if kind == "ragged":
        room = jnp.zeros((P, D), y_QD.dtype)
        return lax.ragged_all_to_all(
            y_QD, room, at.received_first, at.received_count, at.back_first, at.count, axis_name=AXIS
        )
    blocks_QD = lax.all_to_all(y_QD.reshape(X, P, D), AXIS, 0, 0).reshape(Q, D)
    row = jnp.arange(P, dtype=jnp.int32)
    owner = (row[:, None] >= jnp.cumsum(at.count)).sum(-1, dtype=jnp.int32)
    near = jnp.minimum(owner, X - 1)
    return _rows(blocks_QD, near * P + row - at.first[near], owner < X)


def _rows(x_PD: jax.Array, index: jax.Array, some: jax.Array) -> jax.Array:
    """Rows of x, zeros where not `some`."""
    taken = jnp.take(as_integers(x_PD), index, axis=0, mode="clip")
    return like(jnp.where(some[..., None], taken, 0), x_PD)


def _forward(function, kind, x, at):
    return function(kind, x, at), at


def _backward(function, kind, at, g):
    """There and back are each other's transposes."""
    return function(kind, g, at), jax.tree.map(lambda a: np.zeros(a.shape, jax.dtypes.float0), at)


_send.defvjp(functools.partial(_forward, _send), functools.partial(_backward, _bring_back))
_bring_back.defvjp(functools.partial(_forward, _bring_back), functools.partial(_backward, _send))

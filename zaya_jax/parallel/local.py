"""Calls that each device makes for its own rows of the batch.

XLA knows nothing of what a Pallas kernel computes: in a program that it splits over devices by itself, every device
would be given all rows. Inside of `jax.shard_map` each has its own.

The axis `expert` shards rows like `data` and `fsdp`: experts are taken whole here, whatever axis they are stored over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.errors import mistake

BATCH_AXES = ("data", "fsdp", "expert")


def batch_shards(mesh: Mesh | None) -> int:
    """Over how many devices the rows of a batch are spread."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rows_spec() -> PartitionSpec:
    """How an array with the batch as its first axis lies on a mesh."""
    return PartitionSpec(BATCH_AXES)


def each_device(mesh: Mesh | None, function: Callable[[Any, Any], Any], rows: Any, weights: Any) -> Any:
    """`function(rows, weights)`, made by every device with its own rows and all of the weights.

    Args:
        mesh: with the axes of `mesh.AXES`; None, or one that does not spread the batch, is a plain call.
        function: pure; the batch is the first axis of everything in its result.
        rows: a tree of arrays with the batch as their first axis.
        weights: a tree of arrays; one that is stored in parts is gathered, and its gradient summed over the devices.

    Raises:
        UserError: the batch does not divide evenly.
    """
    if batch_shards(mesh) == 1:
        return function(rows, weights)
    _check(mesh, rows)
    specs = (rows_spec(), PartitionSpec())
    run = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows_spec(), check_vma=False)
    return run(rows, weights)


def spread(mesh: Mesh | None, x: jax.Array) -> jax.Array:
    """x, its rows spread over the devices. Left alone, XLA may let the way that a weight is stored decide it."""
    if batch_shards(mesh) == 1:
        return x
    _check(mesh, x)
    return lax.with_sharding_constraint(x, NamedSharding(mesh, rows_spec()))


def _check(mesh: Mesh, rows: Any) -> None:
    shards, found = batch_shards(mesh), {x.shape[0] for x in jax.tree.leaves(rows)}
    if uneven := [size for size in found if size % shards]:
        fix = "give more rows, or a mesh of fewer devices"
        axes = ", ".join(BATCH_AXES)
        expected = f"a multiple of {shards}, the devices of the mesh axes {axes}"
        raise mistake("the batch does not divide evenly", expected=expected, found=uneven[0], fix=fix)

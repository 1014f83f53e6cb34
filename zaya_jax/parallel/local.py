"""Calls that each device makes for its own part of the batch.

XLA knows nothing of what a Pallas kernel computes: in a program that it splits over devices by itself, every device
would be given all rows. Inside of `jax.shard_map` each has its own.

Rows of a batch are spread over `data`, `fsdp` and `expert`. Columns, the tokens of a row, are spread over `context` in
consecutive chunks where the caller says so: in calls without a cache. With one, devices that differ in `context` only
compute the same.
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
COLUMN_AXIS = "context"
SHORTEST_CHUNK = 2  # columns: the convolutions of CCA see two tokens back, and ask one neighbour only

_WHOLE = PartitionSpec()


def batch_shards(mesh: Mesh | None) -> int:
    """Over how many devices the rows of a batch are spread."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def column_shards(mesh: Mesh | None) -> int:
    """Over how many devices the columns of a batch are spread."""
    return 1 if mesh is None else mesh.shape[COLUMN_AXIS]


def rows_spec(columns: bool = False) -> PartitionSpec:
    """How an array with the batch as its first axis (and its columns as the second) lies on a mesh."""
    return PartitionSpec(BATCH_AXES, COLUMN_AXIS) if columns else PartitionSpec(BATCH_AXES)


def each_device(
    mesh: Mesh | None,
    function: Callable[[Any, Any], Any],
    rows: Any,
    weights: Any,
    *,
    columns: bool = False,
    weights_spec: PartitionSpec = _WHOLE,
) -> Any:
    """`function(rows, weights)`, made by every device with its own rows and all of the weights.

    Args:
        mesh: with the axes of `mesh.AXES`; None, or one that does not spread the batch, is a plain call.
        function: pure; the batch is the first axis of everything in its result.
        rows: a tree of arrays with the batch as their first axis.
        weights: a tree of arrays; one that is stored in parts is gathered, and its gradient summed over the devices.
        columns: every array, given or returned, has the columns as its second axis; each device has its chunk of them.
        weights_spec: what is not gathered, of every weight: the axes named stay split.

    Raises:
        UserError: the batch does not divide evenly.
    """
    columns = columns and column_shards(mesh) > 1
    if batch_shards(mesh) == 1 and not columns:
        return function(rows, weights)
    _check(mesh, rows, columns)
    specs, out = (rows_spec(columns), weights_spec), rows_spec(columns)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(rows, weights)


def spread(mesh: Mesh | None, x: jax.Array, *, columns: bool = False) -> jax.Array:
    """x, its rows (and columns) spread over the devices, where XLA would let the way a weight is stored decide it."""
    columns = columns and column_shards(mesh) > 1
    if batch_shards(mesh) == 1 and not columns:
        return x
    _check(mesh, x, columns)
    return lax.with_sharding_constraint(x, NamedSharding(mesh, rows_spec(columns)))


def _check(mesh: Mesh, rows: Any, columns: bool) -> None:
    leaves = jax.tree.leaves(rows)
    check_rows(mesh, *{x.shape[0] for x in leaves})
    if columns:
        check_columns(mesh, *{x.shape[1] for x in leaves})


def check_rows(mesh: Mesh, *sizes: int) -> None:
    """Raises a UserError where a batch of so many rows does not divide evenly."""
    shards = batch_shards(mesh)
    if uneven := [size for size in sizes if size % shards]:
        fix = "give more rows, or a mesh of fewer devices"
        expected = f"a multiple of {shards}, the devices of the mesh axes {', '.join(BATCH_AXES)}"
        raise mistake("the batch does not divide evenly", expected=expected, found=uneven[0], fix=fix)


def check_columns(mesh: Mesh, *sizes: int) -> None:
    """Raises a UserError where rows of so many tokens do not divide evenly, or into chunks that are too short."""
    shards = column_shards(mesh)
    if shards > 1 and (bad := [size for size in sizes if size % shards or size < SHORTEST_CHUNK * shards]):
        expected = f"a multiple of {shards}, the size of the mesh axis context, and {SHORTEST_CHUNK} tokens each"
        fix = "take another length, or a mesh with a smaller context"
        raise mistake("the tokens of a row do not divide evenly", expected=expected, found=bad[0], fix=fix)

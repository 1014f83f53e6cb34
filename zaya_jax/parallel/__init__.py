"""Meshes, the rules that map logical axes of arrays to axes of a mesh, calls that each device makes for its part."""

from zaya_jax.parallel.collectives import all_columns, column_index, from_left
from zaya_jax.parallel.exchange import Kind, best_kind, exchange
from zaya_jax.parallel.local import (
    BATCH_AXES,
    COLUMN_AXIS,
    batch_shards,
    check_columns,
    check_rows,
    column_shards,
    each_device,
    rows_spec,
    spread,
)
from zaya_jax.parallel.mesh import AXES, make_mesh, mesh_shape
from zaya_jax.parallel.multihost import global_batch, initialize, local_rows
from zaya_jax.parallel.rules import RULES, partition_spec

__all__ = [
    "AXES",
    "BATCH_AXES",
    "COLUMN_AXIS",
    "RULES",
    "Kind",
    "all_columns",
    "batch_shards",
    "best_kind",
    "check_columns",
    "check_rows",
    "column_index",
    "column_shards",
    "each_device",
    "exchange",
    "from_left",
    "global_batch",
    "initialize",
    "local_rows",
    "make_mesh",
    "mesh_shape",
    "partition_spec",
    "rows_spec",
    "spread",
]

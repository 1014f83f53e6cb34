"""Meshes, the rules that map logical axes of arrays to axes of a mesh, calls that each device makes for its rows."""

from zaya_jax.parallel.local import BATCH_AXES, batch_shards, each_device, rows_spec, spread
from zaya_jax.parallel.mesh import AXES, make_mesh
from zaya_jax.parallel.rules import RULES, partition_spec

__all__ = [
    "AXES",
    "BATCH_AXES",
    "RULES",
    "batch_shards",
    "each_device",
    "make_mesh",
    "partition_spec",
    "rows_spec",
    "spread",
]

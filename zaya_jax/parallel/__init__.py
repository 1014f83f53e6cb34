"""Meshes, and the rules that map logical axes of arrays to axes of a mesh."""

from zaya_jax.parallel.mesh import AXES, make_mesh
from zaya_jax.parallel.rules import RULES, partition_spec

__all__ = ["AXES", "RULES", "make_mesh", "partition_spec"]

"""Sharding as data: which mesh axis each logical axis of an array is split over."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec

from zaya_jax.errors import mistake

# Matrices are split over their model-width axis, experts over theirs; what is not named stays whole.
RULES: Mapping[str, str] = {"embed": "fsdp", "experts": "expert"}


def partition_spec(
    axes: tuple[str, ...], shape: tuple[int, ...], mesh: jax.sharding.Mesh, rules: Mapping[str, str] = RULES
) -> PartitionSpec:
    """How an array with these logical axes lies on a mesh. An axis that does not divide evenly stays whole.

    Raises:
        UserError: two axes of one array fall on the same mesh axis, or a rule names an axis that the mesh lacks.
    """
    spec: list[str | None] = []
    for axis, size in zip(axes, shape, strict=True):
        target = rules.get(axis)
        if target is not None and target not in mesh.shape:
            raise mistake(
                "a sharding rule names an unknown mesh axis", where=axis, expected=mesh.axis_names, found=target
            )
        if target is not None and target in spec:
            raise mistake("two axes of one array fall on one mesh axis", where=axes, found=target)
        spec.append(target if target is not None and size % mesh.shape[target] == 0 else None)
    return PartitionSpec(*spec)

"""The mesh of devices."""

from __future__ import annotations

import math

import jax
from jax.sharding import AxisType

from zaya_jax.errors import mistake

AXES = ("data", "fsdp", "expert", "context")


def make_mesh(**sizes: int) -> jax.sharding.Mesh:
    """A mesh with the axes data, fsdp, expert and context; an axis that is not named has size 1.

    `make_mesh(fsdp=4, expert=2)` takes the first 8 devices.

    Raises:
        UserError: an unknown axis, or more devices than there are.
    """
    unknown = set(sizes) - set(AXES)
    if unknown:
        raise mistake("unknown mesh axis", expected=AXES, found=sorted(unknown)[0])
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    needed, available = math.prod(shape), len(jax.devices())
    if needed > available:
        raise mistake("the mesh is larger than the machine", expected=f"{needed} devices", found=available)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:needed])

"""The mesh of devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType

from zaya_jax.errors import mistake

AXES = ("data", "fsdp", "expert", "context")


def make_mesh(devices: Sequence[jax.Device] | None = None, **sizes: int) -> jax.sharding.Mesh:
    """A mesh with the axes data, fsdp, expert and context; an axis that is not named has size 1.

    `make_mesh(fsdp=4, expert=2)` takes the first 8 of `devices`, this machine's by default.

    Raises:
        UserError: an unknown axis, or more devices than there are.
    """
    unknown = set(sizes) - set(AXES)
    if unknown:
        raise mistake("unknown mesh axis", expected=AXES, found=sorted(unknown)[0])
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    devices = jax.devices() if devices is None else list(devices)
    needed, available = math.prod(shape), len(devices)
    if needed > available:
        raise mistake("the mesh is larger than the machine", expected=f"{needed} devices", found=available)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:needed])

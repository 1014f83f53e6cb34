"""The mesh of devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType

from zaya_jax.errors import mistake

# What talks most comes last: devices are dealt out in their order, a node's one after the other.
AXES = ("data", "fsdp", "expert", "context")


def make_mesh(devices: Sequence[jax.Device] | None = None, **sizes: int) -> jax.sharding.Mesh:
    """A mesh with the axes data, fsdp, expert and context; an axis that is not named has size 1.

    `make_mesh(fsdp=4, expert=2)` takes the first 8 of `devices`, all there are by default. `make_mesh(data=-1,
    context=2)` takes all of them: one axis may be -1, the rest. Neighbours along `context`, and then along `expert`,
    are next to each other in the order of the devices, which is by process: a node, as far as the sizes fit into it.

    Raises:
        UserError: an unknown axis, a size that is none, more devices than there are, or sizes that do not divide them.
            With several processes all devices have to be taken.
    """
    if unknown := set(sizes) - set(AXES):
        raise mistake("unknown mesh axis", expected=AXES, found=sorted(unknown)[0])
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(sizes, len(devices))
    taken, processes = devices[: math.prod(shape)], {device.process_index for device in devices}
    if len(processes) > 1 and len(taken) < len(devices):
        fix = "-1 for an axis is the rest"
        raise mistake(
            "a mesh over several processes takes all devices", expected=len(devices), found=len(taken), fix=fix
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=taken)


def mesh_shape(given: Mapping[str, int], available: int) -> tuple[int, ...]:
    """Sizes in the order of the axes, -1 replaced by what the others leave of the devices.

    Args:
        given: sizes by axis; one that is not named has size 1.
        available: devices.

    Raises:
        UserError: a size that is none, more devices than there are, or sizes that do not divide them.
    """
    sizes = tuple(given.get(axis, 1) for axis in AXES)
    found = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True) if size != 1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise mistake("no mesh has these sizes", expected="positive numbers, one of them -1 at most", found=found)
    known = math.prod(size for size in sizes if size != -1)
    if known > available:
        raise mistake("the mesh is larger than the machine", expected=f"{known} devices", found=available)
    if available % known:
        raise mistake("the mesh does not divide the devices", expected=f"a divisor of {available}", found=found)
    return tuple(available // known if size == -1 else size for size in sizes)

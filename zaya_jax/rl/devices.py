"""Which devices learn and which sample, and how weights come from one to the other.

One after the other, both have all devices: the learner as its mesh says, the engine with the slots spread over them.
At the same time, in a pipeline, each has its own: two threads that start programs on the same devices could wait for
each other for ever.

The engine's weights are whole on each of its devices. Split as the learner's, every token would have to wait until all
layers' weights are gathered.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.errors import mistake
from zaya_jax.model import Execution, Zaya
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Variables, unstack
from zaya_jax.parallel import batch_shards, column_shards, make_mesh
from zaya_jax.rl.config import RlConfig

_WHOLE = PartitionSpec()


class Devices(NamedTuple):
    """Who computes.

    Attributes:
        learner: the mesh of updates; None is the first device alone.
        engine: the mesh of sampling; None is that device, too.
    """

    learner: Mesh | None
    engine: Mesh | None


def divide(config: RlConfig) -> Devices:
    """The devices of a run, of those that this machine has.

    Raises:
        UserError: there are several processes, the mesh does not fit, rows, tokens or slots do not divide evenly, or
            a pipeline on several devices gives the engine none.
    """
    if jax.process_count() > 1:
        fix = "start one process, which has all devices of its machine"
        raise mistake("reinforcement learning has one process", expected=1, found=jax.process_count(), fix=fix)
    devices = jax.devices()
    own = engine_devices(config, len(devices))
    learner = config.mesh.make(devices[: len(devices) - own])
    if config.pipeline is not None and learner is not None and own == 0:
        fix = "give the engine some, or set mesh.data=1"
        raise mistake("on a mesh both need their own", where="pipeline.devices", expected="1 or more", found=0, fix=fix)
    shared = None if learner is None else make_mesh(list(learner.devices.flat), data=-1)
    engine = make_mesh(devices[-own:], data=-1) if own else shared
    check_sizes(config, batch_shards(learner), column_shards(learner), batch_shards(engine))
    return Devices(learner, engine)


def engine_devices(config: RlConfig, count: int) -> int:
    """How many of `count` devices are the engine's alone. Raises a UserError if none is left for the learner."""
    own = 0 if config.pipeline is None else config.pipeline.devices
    if own >= count:
        expected = f"at most {count - 1} of {count}"
        raise mistake("leaves the learner no device", where="pipeline.devices", expected=expected, found=own)
    return own


def check_sizes(config: RlConfig, rows: int, columns: int, slots: int) -> None:
    """Raises a UserError where so many devices cannot share the learner's rows, their tokens, or the slots evenly."""
    sizes = {
        "rows": (config.rows, rows),
        "length": (config.length, columns),
        "decoding.slots": (config.decoding.slots, slots),
    }
    for where, (size, shards) in sizes.items():
        if size % shards:
            expected = f"a multiple of {shards}, the devices that share them"
            fix = "give another, or a smaller mesh"
            raise mistake("does not divide evenly", where=where, expected=expected, found=size, fix=fix)


def shape(mesh: Mesh | None) -> dict[str, int]:
    """Of a mesh, for a record; {} is one device."""
    return {} if mesh is None else dict(mesh.shape)


def engine_model(config: RlConfig, model: ModelConfig, mesh: Mesh | None) -> Zaya:
    """The model as the engine computes it. One CPU takes layers and experts apart, which decodes much faster."""
    apart = jax.default_backend() == "cpu" and batch_shards(mesh) == 1
    return Zaya(model, Execution(config.execution.dtype, "unstacked" if apart else "stacked", mesh=mesh))


def weights_for(model: Zaya, learner: Mesh | None, variables: Variables) -> Variables:
    """The learner's weights as an engine takes them, parameters and router biases together, on its devices.

    Args:
        model: the engine's.
        learner: where the variables lie, stacked.
    """
    taken, mesh = _taken(model, learner, variables), model.execution.mesh
    return taken if mesh is None else jax.device_put(taken, NamedSharding(mesh, _WHOLE))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _taken(model: Zaya, learner: Mesh | None, variables: Variables) -> Variables:
    """Copies: the learner's next step uses its own up. They are made whole where links are fast: parts on devices that
    the engine does not have would come through the host."""
    apart = model.execution.layout == "unstacked"
    taken = unstack(model.config, variables) if apart else jax.tree.map(jnp.copy, variables)
    return taken if learner is None else lax.with_sharding_constraint(taken, NamedSharding(learner, _WHOLE))

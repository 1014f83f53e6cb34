"""Bytes of a device during reinforcement learning, item by item, without the devices.

The learner's are those of a training step that adds up gradients (`train.plan_memory`). The engine's are counted here:
its weights are whole on each of its devices, its slots are spread over them. The engine's have not been compared with
a compiled program.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax

from zaya_jax.model import Execution, init_cache
from zaya_jax.model.config import ModelConfig
from zaya_jax.parallel import mesh_shape
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.devices import check_sizes, engine_devices
from zaya_jax.sampling.decode import bucket
from zaya_jax.train.plan_memory import Item, Memory, biases, layer_weights, memory, residuals
from zaya_jax.train.plan_setup import ONE, Setup, Sizes, trained

_DRAWING = 4  # arrays of logits while tokens are drawn: as they come, scaled, the noise, the sum
_TOGETHER = 2  # batches in the plan of a step: more of them take no more memory


class Plan(NamedTuple):
    """Who lies where, and what it takes.

    Attributes:
        learner: the training step whose memory is the learner's.
        engine: devices that the slots are spread over.
        memories: of a device, by who has it.
    """

    learner: Setup
    engine: int
    memories: dict[str, Memory]


def plan(config: RlConfig, model: ModelConfig, devices: int, chip: str) -> Plan:
    """The memory of a run on one machine.

    Args:
        config: of the run.
        model: the policy.
        devices: of the machine.
        chip: a name of `train.chips`.

    Raises:
        UserError: the mesh does not fit the devices, or something does not divide evenly.
    """
    own = engine_devices(config, devices)
    sizes = Sizes(*mesh_shape(dataclasses.asdict(config.mesh), devices - own))
    spread = own or math.prod(sizes)
    check_sizes(config, math.prod(sizes) // sizes.context, sizes.context, spread)
    setup = _setup(config, model, sizes, chip)
    return Plan(setup, spread, _memories(config, setup, spread))


def _setup(config: RlConfig, model: ModelConfig, sizes: Sizes, chip: str) -> Setup:
    execution = config.execution
    return Setup(
        model,
        _TOGETHER * config.rows,
        config.length,
        sizes,
        accumulate=_TOGETHER,
        optimizer=config.optimizer,
        dtype=execution.dtype,
        remat=execution.remat,
        loss_chunk=config.loss_chunk,
        dispatch="ragged" if execution.dispatch == "auto" else execution.dispatch,
        chip=chip,
        devices_per_node=math.prod(sizes),
    )


def _memories(config: RlConfig, setup: Setup, spread: int) -> dict[str, Memory]:
    ours, theirs = learner_memory(setup), engine_memory(config, setup, spread)
    moving = Item("the engine's next weights", theirs.state[0].bytes, "as its weights")
    if config.pipeline is None:
        moments = ours.moments | theirs.moments | {"new weights for the engine": (moving,)}
        return {"learner and engine": Memory(ours.state + theirs.state, moments)}
    # At the same time: new weights wait while tokens are drawn by the old ones.
    theirs = theirs._replace(moments={name: (*items, moving) for name, items in theirs.moments.items()})
    if config.pipeline.devices:
        return {"learner": ours._replace(moments=ours.moments | {"weights go out": (moving,)}), "engine": theirs}
    beside = theirs.moments[theirs.largest]
    moments = {f"{name}, beside sampling": (*items, *beside) for name, items in ours.moments.items()}
    return {"learner and engine": Memory(ours.state + theirs.state, moments)}


def learner_memory(setup: Setup) -> Memory:
    """A training step's, but for the batch: one at a time is on the devices, with what was recorded of each token."""
    found = memory(setup)
    each = 24 + 2 * setup.exact_bytes + setup.model.num_layers
    batch = Item("a batch", each * setup.local_tokens, "24 + 2 e + L bytes a token")
    return Memory((*(item for item in found.state if item.what != "batch"), batch), found.moments)


def engine_memory(config: RlConfig, setup: Setup, spread: int) -> Memory:
    """Of a device of the engine.

    Args:
        setup: the learner's; model and types are the engine's too.
        spread: devices that share the slots.
    """
    one = dataclasses.replace(setup, sizes=ONE, rows=1, accumulate=1, devices_per_node=1, dispatch="gather")
    decoding, m, c, e = config.decoding, one.model, one.compute_bytes, one.exact_bytes
    local, numbers = decoding.slots // spread, sum(weight.size for weight in trained(one))
    slots, row = (cache_bytes(one, rows, decoding.capacity) for rows in (local, 1))
    always = (layer_weights(one), Item("head's table", m.vocab_size * m.hidden_size * c, "V D c"))
    chunk = Item("a chunk of a prompt", decoding.chunk * residuals(one), "no more than a layer's residuals")
    logits = Item("logits", _DRAWING * local * m.vocab_size * e, f"{_DRAWING} x slots V e")
    return Memory(
        state=(
            Item("engine's weights", numbers * e + biases(one).bytes / 3, "whole: e a number"),
            Item("engine's slots", slots, f"{local} slots of {bucket(decoding.capacity):,} tokens"),
            Item("prompts that are known", slots / 2, "half of the slots"),
        ),
        moments={
            "the engine reads prompts": (*always, chunk, Item("a row, out of its slot and back", 2 * row, "")),
            "the engine draws tokens": (*always, logits),
        },
    )


def cache_bytes(setup: Setup, rows: int, capacity: int) -> int:
    """Of an engine's cache for so many rows."""
    make = functools.partial(init_cache, setup.model, Execution(setup.dtype), rows, bucket(capacity))
    leaves = jax.tree.leaves(jax.eval_shape(make))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

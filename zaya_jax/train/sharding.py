"""Where the state of a training run lies on a mesh, and the programs that keep it there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zaya_jax.data.batch import Batch
from zaya_jax.model.layout import Variables, abstract, build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import global_batch
from zaya_jax.train.lora import adapter_memory_shardings, adapter_shardings
from zaya_jax.train.optimizer import memory_shardings
from zaya_jax.train.step import StepMetrics, TrainState, evaluate_step, init_state, start_from, train_step
from zaya_jax.train.trainer import Trainer
from zaya_jax.train.zero import find_place


class Programs(NamedTuple):
    """A trainer's programs; what they take and give lies where it belongs.

    Attributes:
        init: seed -> the state of a fresh model.
        start: (variables, seed) -> the state of a run that begins with a model.
        step: (state, batch, learning_rate, base) -> (state, metrics), as `step.train_step`.
        evaluate: (variables, batch, base) -> (sum, count), as `step.evaluate_step`.
        batch: (rows that this process has read, rows of all processes) -> the batch on the devices.
        scalar: a number of the host, on the devices.
    """

    init: Callable[[int], TrainState]
    start: Callable[[Variables, int], TrainState]
    step: Callable[..., tuple[TrainState, StepMetrics]]
    evaluate: Callable[..., tuple[jax.Array, jax.Array]]
    batch: Callable[[Batch, int], Batch]
    scalar: Callable[[np.generic], jax.Array]


def programs(trainer: Trainer, mesh: jax.sharding.Mesh | None) -> Programs:
    """The programs of a trainer: for one device, or a mesh, on which metrics are whole everywhere."""
    step, evaluate = functools.partial(train_step, trainer), functools.partial(evaluate_step, trainer)

    def init(seed: int) -> TrainState:
        return init_state(trainer, jax.random.key(seed))

    def start(variables: Variables, seed: int) -> TrainState:
        return start_from(trainer, variables, jax.random.key(seed))

    if mesh is None:
        return Programs(init, start, step, evaluate, lambda batch, rows: jax.device_put(batch), jax.device_put)
    place = jax.tree.map(lambda x: x.sharding, abstract_state(trainer, mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return Programs(
        jax.jit(init, static_argnums=0, out_shardings=place),
        jax.jit(start, static_argnums=1, out_shardings=place),
        jax.jit(step, donate_argnums=0, out_shardings=(place, everywhere)),
        jax.jit(evaluate, out_shardings=everywhere),
        lambda batch, rows: global_batch(mesh, batch, rows, accumulated=batch.tokens_BT.ndim == 3),
        lambda x: jax.make_array_from_callback((), everywhere, lambda _: x),
    )


def abstract_state(trainer: Trainer, mesh: jax.sharding.Mesh | None) -> TrainState:
    """The state of a run as shapes, types and, on a mesh, shardings: nothing is allocated.

    What the optimizer remembers of a weight lies as `zero.memory_spec` says, or where the weight does without
    `zero1`. What the balancer remembers lies with the biases, counters lie everywhere.
    """
    variables = abstract(trainer.model, "stacked", trainer.execution.exact_dtype.name)
    state = jax.eval_shape(functools.partial(start_from, trainer), variables, jax.eval_shape(jax.random.key, 0))
    if mesh is None:
        return state
    places, everywhere = _places(trainer, mesh), NamedSharding(mesh, PartitionSpec())
    names = [field.name for field in dataclasses.fields(state)]
    return state.replace(**{name: _placed(getattr(state, name), places.get(name, {}), everywhere) for name in names})


def _places(trainer: Trainer, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """By the fields of a state, trees of shardings."""
    home = build(trainer.model, "stacked", slot_sharding(mesh))
    if trainer.lora is None:
        memories = memory_shardings(trainer.optimizer, trainer.model, "stacked", mesh)
        return home | {"optimizer": memories, "balancer": home["balance"]}
    adapters = adapter_shardings(trainer.model, trainer.lora, mesh)
    memories = adapter_memory_shardings(trainer.optimizer, trainer.model, trainer.lora, mesh)
    return {"params": adapters, "balance": home["balance"], "optimizer": memories, "balancer": home["balance"]}


def _placed(tree: Any, place: Any, everywhere: NamedSharding) -> Any:
    find = find_place(place, everywhere)

    def at(path: tuple, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=find(path))

    return jax.tree_util.tree_map_with_path(at, tree)

"""Where the state of a training run lies on a mesh."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from zaya_jax.model.layout import abstract, build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.optimizer import memory_shardings
from zaya_jax.train.step import Trainer, TrainState, start_from
from zaya_jax.train.zero import find_place


def abstract_state(trainer: Trainer, mesh: jax.sharding.Mesh) -> TrainState:
    """The state of a run as shapes, types and shardings: nothing is allocated.

    What the optimizer remembers of a weight lies as `zero.memory_spec` says, or where the weight does without
    `zero1`. What the balancer remembers lies with the biases, counters lie everywhere.
    """
    variables = abstract(trainer.model, "stacked", trainer.execution.exact_dtype.name)
    state = jax.eval_shape(lambda v: start_from(trainer, v), variables)
    place = build(trainer.model, "stacked", slot_sharding(mesh))
    memories = memory_shardings(trainer.optimizer, trainer.model, "stacked", mesh)
    places = place | {"optimizer": memories, "balancer": place["balance"]}
    everywhere = NamedSharding(mesh, PartitionSpec())
    names = [field.name for field in dataclasses.fields(state)]
    return state.replace(**{name: _placed(getattr(state, name), places.get(name, {}), everywhere) for name in names})


def _placed(tree: Any, place: Any, everywhere: NamedSharding) -> Any:
    find = find_place(place, everywhere)

    def at(path: tuple, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=find(path))

    return jax.tree_util.tree_map_with_path(at, tree)

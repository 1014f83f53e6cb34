"""Where the state of a training run lies on a mesh."""

from __future__ import annotations

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from zaya_jax.model.layout import abstract, build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.step import Trainer, TrainState, optimizers, start_from


def abstract_state(trainer: Trainer, mesh: jax.sharding.Mesh) -> TrainState:
    """The state of a run as shapes, types and shardings: nothing is allocated.

    What an optimizer remembers of a weight lies where the weight does, its counters lie everywhere.
    """
    variables = abstract(trainer.model, "stacked", trainer.execution.exact_dtype.name)
    state = jax.eval_shape(lambda v: start_from(trainer, v), variables)
    place = build(trainer.model, "stacked", slot_sharding(mesh))
    update, balance = optimizers(trainer)
    return TrainState(
        jax.tree.map(_at, state.params, place["params"]),
        jax.tree.map(_at, state.balance, place["balance"]),
        _remembered(update, state.optimizer, place["params"], mesh),
        _remembered(balance, state.balancer, place["balance"], mesh),
    )


def _remembered(update: optax.GradientTransformation, memory, place, mesh: jax.sharding.Mesh):
    everywhere = NamedSharding(mesh, PartitionSpec())
    return optax.tree.map_params(update, _at, memory, place, transform_non_params=lambda x: _at(x, everywhere))


def _at(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

"""Where the state of a training run lies on a mesh."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from zaya_jax.model.layout import abstract, build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.step import Trainer, TrainState, start_from


def abstract_state(trainer: Trainer, mesh: jax.sharding.Mesh) -> TrainState:
    """The state of a run as shapes, types and shardings: nothing is allocated.

    What an optimizer remembers of a weight lies where the weight does, its counters lie everywhere.
    """
    variables = abstract(trainer.model, "stacked", trainer.execution.exact_dtype.name)
    state = jax.eval_shape(lambda v: start_from(trainer, v), variables)
    place = build(trainer.model, "stacked", slot_sharding(mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return TrainState(
        params=_placed(state.params, place["params"], everywhere),
        balance=_placed(state.balance, place["balance"], everywhere),
        optimizer=_placed(state.optimizer, place["params"], everywhere),
        balancer=_placed(state.balancer, place["balance"], everywhere),
    )


def _placed(tree: Any, place: Any, everywhere: NamedSharding) -> Any:
    """Shapes with shardings. A memory's path ends with its weight's: optimizers keep trees like those they are given.

    (`optax.tree.map_params` would tell the same, but not of Muon.)
    """
    homes = dict(jax.tree_util.tree_leaves_with_path(place))

    def at(path: tuple, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        found = (homes[path[i:]] for i in range(len(path)) if path[i:] in homes)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=next(found, everywhere))

    return jax.tree_util.tree_map_with_path(at, tree)

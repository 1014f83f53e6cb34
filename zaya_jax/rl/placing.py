"""Where the learner's arrays lie on a mesh. On one device there is nothing to say, and nothing is."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.parallel import global_batch
from zaya_jax.rl.batch import LearnerBatch
from zaya_jax.train.optimizer import memory_shardings
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import TrainState
from zaya_jax.train.trainer import Trainer


def place_batch(mesh: Mesh | None, batch: LearnerBatch) -> LearnerBatch:
    """A batch on the devices: rows over data, fsdp and expert, tokens over context; routes have layers before both.

    Raises:
        UserError: rows or tokens do not divide evenly.
    """
    if mesh is None:
        return batch
    spread = functools.partial(global_batch, mesh, rows=batch.rows)
    routes_LBT = spread(batch.routes_LBT, accumulated=True)
    return spread(batch._replace(routes_LBT=None))._replace(routes_LBT=routes_LBT)


def place_state(trainer: Trainer, state: TrainState) -> TrainState:
    """The state where a checkpoint would be restored to (`train.sharding`); inside of a program."""
    mesh = trainer.execution.mesh
    if mesh is None:
        return state
    places = jax.tree.map(lambda x: x.sharding, abstract_state(trainer, mesh))
    return lax.with_sharding_constraint(state, places)


def place_sums(trainer: Trainer, sums: Any) -> Any:
    """`learner.Sums` inside of a program: gradients where the optimizer will work on them, all else everywhere.

    Left to XLA, every device would have all gradients.
    """
    mesh = trainer.execution.mesh
    if mesh is None:
        return sums
    homes = memory_shardings(trainer.optimizer, trainer.model, "stacked", mesh)
    told = lax.with_sharding_constraint(sums.replace(gradients=None), NamedSharding(mesh, PartitionSpec()))
    return told.replace(gradients=lax.with_sharding_constraint(sums.gradients, homes))

"""One training step, a pure function."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from zaya_jax.data.batch import Batch
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layout import Variables, initialize, unstack
from zaya_jax.model.zaya import Outputs, Zaya
from zaya_jax.train.balance import balance_gradient, balance_tree, balancer, load_entropy
from zaya_jax.train.loss import cross_entropy
from zaya_jax.train.optimizer import OptimizerConfig, optimizer


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What a step is made of. Hashable: a static argument.

    Attributes:
        model: the architecture.
        execution: how it is computed. The state is stacked whatever its layout: few large arrays for the optimizer. An
            unstacked step of a hundred experts compiles for minutes (`docs/performance.md`).
        optimizer: of the parameters.
        balance_rate: learning rate of the router biases.
    """

    model: ModelConfig
    execution: Execution
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    balance_rate: float = 1e-3


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        params, balance: the model's variables, stacked.
        optimizer, balancer: what their optimizers remember.
    """

    params: Any
    balance: Any
    optimizer: Any
    balancer: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the model reads."""
        return {"params": self.params, "balance": self.balance}


@flax.struct.dataclass
class StepMetrics:
    """What a step tells, on the device until somebody reads it.

    Attributes:
        loss: mean cross-entropy of the batch, nats a token.
        gradient_norm: global norm before clipping.
        router_counts_LC: tokens of the batch that took each class.
        load_entropy_L: 1 is an even load.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    router_counts_LC: jax.Array
    load_entropy_L: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def init_state(trainer: Trainer, key: jax.Array) -> TrainState:
    """A fresh model and empty optimizer memories, parameters in the exact type."""
    return start_from(trainer, initialize(trainer.model, "stacked", key, trainer.execution.exact_dtype.name))


@functools.partial(jax.jit, static_argnums=0)
def start_from(trainer: Trainer, variables: Variables) -> TrainState:
    """A copy of stacked variables of the exact type, a checkpoint's for instance, and empty optimizer memories."""
    update, balance = _optimizers(trainer)
    params, biases = variables["params"], variables["balance"]
    return TrainState(params, biases, update.init(params), balance.init(biases))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    trainer: Trainer, state: TrainState, batch: Batch, learning_rate: jax.Array
) -> tuple[TrainState, StepMetrics]:
    """One update of the parameters by the loss and of the router biases by the load; `state` is used up."""
    (loss, counts_LC), gradients = jax.value_and_grad(_mean_loss, argnums=1, has_aux=True)(
        trainer, state.params, state.balance, batch
    )
    update, balance = _optimizers(trainer)
    updates, optimizer_state = update.update(gradients, state.optimizer, state.params)
    updates = jax.tree.map(lambda u: u * learning_rate, updates)
    push = balance_tree(trainer.model, "stacked", balance_gradient(counts_LC))
    pushes, balancer_state = balance.update(push, state.balancer, state.balance)
    new = TrainState(
        optax.apply_updates(state.params, updates),
        optax.apply_updates(state.balance, pushes),
        optimizer_state,
        balancer_state,
    )
    return new, StepMetrics(loss, optax.tree.norm(gradients), counts_LC, load_entropy(counts_LC))


@functools.partial(jax.jit, static_argnums=0)
def evaluate_step(trainer: Trainer, variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy (nats) of a batch under stacked variables, and what it counts."""
    return batch_loss(trainer, variables["params"], variables["balance"], batch)[:2]


def batch_loss(trainer: Trainer, params: Any, balance: Any, batch: Batch) -> tuple[jax.Array, jax.Array, Outputs]:
    """Summed cross-entropy, what it counts, and all that the model returned."""
    variables = {"params": params, "balance": balance}
    if trainer.execution.layout == "unstacked":
        variables = unstack(trainer.model, variables)
    outputs = Zaya(trainer.model, trainer.execution).apply(
        variables, batch.tokens_BT, batch.positions_BT, batch.segments_BT
    )
    return *cross_entropy(outputs.logits, batch.targets_BT, batch.mask_BT), outputs


def _mean_loss(trainer: Trainer, params: Any, balance: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    total, count, outputs = batch_loss(trainer, params, balance, batch)
    return total / jnp.maximum(count, 1), outputs.router_counts_LC


def _optimizers(trainer: Trainer) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    update = optimizer(trainer.optimizer, trainer.model, "stacked", trainer.execution.mesh)
    return update, balancer(trainer.balance_rate)

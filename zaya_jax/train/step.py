"""One training step, a pure function."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from zaya_jax.data.batch import Batch
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layout import Variables, initialize, unstack
from zaya_jax.model.zaya import Outputs, Zaya
from zaya_jax.parallel import each_device
from zaya_jax.train.balance import BalanceMetrics, balance_gradient, balance_metrics, balance_tree, balancer
from zaya_jax.train.loss import chunked_cross_entropy, cross_entropy
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
        skip: whether the skip class's bias stays where it is, "frozen", or is "balanced" like an expert's.
        loss_chunk: tokens of a device whose logits exist at once; 0 is all of them.
    """

    model: ModelConfig
    execution: Execution
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    balance_rate: float = 1e-3
    skip: Literal["frozen", "balanced"] = "frozen"
    loss_chunk: int = 0


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        params, balance: the model's variables, stacked.
        optimizer, balancer: what their optimizers remember.
        step: how many steps were made, skipped ones among them, int32.
    """

    params: Any
    balance: Any
    optimizer: Any
    balancer: Any
    step: jax.Array

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
        balance: how even the load on the experts is, a layer each.
        applied: False if loss or gradient were not finite, and the step left everything but its number as it was.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    router_counts_LC: jax.Array
    balance: BalanceMetrics
    applied: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def init_state(trainer: Trainer, key: jax.Array) -> TrainState:
    """A fresh model and empty optimizer memories, parameters in the exact type."""
    return start_from(trainer, initialize(trainer.model, "stacked", key, trainer.execution.exact_dtype.name))


@functools.partial(jax.jit, static_argnums=0)
def start_from(trainer: Trainer, variables: Variables) -> TrainState:
    """A copy of stacked variables of the exact type, a checkpoint's for instance, and empty optimizer memories."""
    update, balance = _optimizers(trainer)
    params, biases = variables["params"], variables["balance"]
    return TrainState(params, biases, update.init(params), balance.init(biases), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    trainer: Trainer, state: TrainState, batch: Batch, learning_rate: jax.Array
) -> tuple[TrainState, StepMetrics]:
    """One update of the parameters by the loss and of the router biases by the load; `state` is used up.

    Args:
        batch: [B, T], or [A, B, T]: A batches one after the other, whose gradients and loads are added up.
    """
    loss, counts_LC, gradients = _gradients(trainer, state, batch)
    norm = optax.tree.norm(gradients)
    applied = jnp.isfinite(loss) & jnp.isfinite(norm)
    update, balance = _optimizers(trainer)
    updates, optimizer_state = update.update(gradients, state.optimizer, state.params)
    updates = jax.tree.map(lambda u: u * learning_rate, updates)
    push = balance_tree(trainer.model, "stacked", balance_gradient(counts_LC, trainer.skip))
    pushes, balancer_state = balance.update(push, state.balancer, state.balance)
    new = TrainState(
        optax.apply_updates(state.params, updates),
        optax.apply_updates(state.balance, pushes),
        optimizer_state,
        balancer_state,
        state.step,
    )
    kept = jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, state)
    metrics = StepMetrics(loss, norm, counts_LC, balance_metrics(counts_LC), applied)
    return kept.replace(step=state.step + 1), metrics


@functools.partial(jax.jit, static_argnums=0)
def evaluate_step(trainer: Trainer, variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy (nats) of a batch under stacked variables, and what it counts."""
    return batch_loss(trainer, variables["params"], variables["balance"], batch)[:2]


def batch_loss(trainer: Trainer, params: Any, balance: Any, batch: Batch) -> tuple[jax.Array, jax.Array, Outputs]:
    """Summed cross-entropy, what it counts, and all that the model returned."""
    variables = {"params": params, "balance": balance}
    if trainer.execution.layout == "unstacked":
        variables = unstack(trainer.model, variables)
    chunked = trainer.loss_chunk > 0
    outputs = Zaya(trainer.model, trainer.execution).apply(
        variables, batch.tokens_BT, batch.positions_BT, batch.segments_BT, logits="none" if chunked else "all"
    )
    if chunked:
        return *_loss_in_chunks(trainer, outputs.hidden_BTD, params["embedding"], batch), outputs
    return *cross_entropy(outputs.logits, batch.targets_BT, batch.mask_BT), outputs


def _loss_in_chunks(trainer: Trainer, hidden_BTD: jax.Array, embedding_VD: jax.Array, batch: Batch):
    """Each device its own tokens, `loss_chunk` of them at a time."""
    execution = trainer.execution

    def local(rows: Any, table_VD: jax.Array) -> Any:
        hidden_PD, targets_P, mask_P = (x.reshape(-1, *x.shape[2:]) for x in rows)
        sums = chunked_cross_entropy(execution, hidden_PD, table_VD, targets_P, mask_P, trainer.loss_chunk)
        return jax.tree.map(lambda x: x[None, None], sums)  # a row and a column of a device

    rows = (hidden_BTD, batch.targets_BT, batch.mask_BT)
    total, count = each_device(execution.mesh, local, rows, embedding_VD, columns=True)
    return total.sum(), count.sum()


def _gradients(trainer: Trainer, state: TrainState, batch: Batch) -> tuple[jax.Array, jax.Array, Any]:
    """The mean loss over all that counts, the tokens of each class, and the mean's gradient."""
    count = jnp.maximum(jnp.sum(batch.mask_BT, dtype=trainer.execution.exact_dtype), 1)

    def share(params: Any, part: Batch) -> tuple[jax.Array, jax.Array]:
        total, _, outputs = batch_loss(trainer, params, state.balance, part)
        return total / count, outputs.router_counts_LC

    compute = jax.value_and_grad(share, has_aux=True)
    if batch.tokens_BT.ndim == 2:
        (loss, counts_LC), gradients = compute(state.params, batch)
        return loss, counts_LC, gradients

    def add(sums: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, compute(state.params, part)), None

    first = jax.eval_shape(compute, state.params, jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    ((loss, counts_LC), gradients), _ = jax.lax.scan(add, zeros, batch)
    return loss, counts_LC, gradients


def _optimizers(trainer: Trainer) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    update = optimizer(trainer.optimizer, trainer.model, "stacked", trainer.execution.mesh)
    return update, balancer(trainer.balance_rate)

"""One training step, a pure function."""

from __future__ import annotations

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from zaya_jax.data.batch import Batch
from zaya_jax.model.layout import Variables, initialize
from zaya_jax.train.balance import BalanceMetrics, balance_gradient, balance_metrics, balance_tree, balancer
from zaya_jax.train.lora import adapter_optimizer, trained_and_frozen
from zaya_jax.train.objective import Objective, counted, objective
from zaya_jax.train.optimizer import optimizer
from zaya_jax.train.preference import DpoMetrics
from zaya_jax.train.reward_model import head_optimizer, with_head
from zaya_jax.train.trainer import Trainer


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        params: what is trained, stacked: the parameters, adapters, or a backbone and its reward head.
        balance: router biases.
        optimizer, balancer: what their optimizers remember.
        step: how many steps were made, skipped ones among them, int32.
    """

    params: Any
    balance: Any
    optimizer: Any
    balancer: Any
    step: jax.Array

    @property
    def variables(self) -> Variables:
        """What `evaluate_step` reads."""
        return {"params": self.params, "balance": self.balance}


@flax.struct.dataclass
class StepMetrics:
    """What a step tells, on the device until somebody reads it.

    Attributes:
        loss: mean of the batch, nats a token or a pair.
        gradient_norm: global norm before clipping.
        router_counts_LC: tokens of the batch that took each class.
        balance: how even the load on the experts is, a layer each.
        applied: False if loss or gradient were not finite, and the step left everything but its number as it was.
        preference: of a batch of preferences, else None.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    router_counts_LC: jax.Array
    balance: BalanceMetrics
    applied: jax.Array
    preference: DpoMetrics | None = None


@functools.partial(jax.jit, static_argnums=0)
def init_state(trainer: Trainer, key: jax.Array) -> TrainState:
    """A fresh model and empty optimizer memories, parameters in the exact type. Adapters need a base: `start_from`."""
    return start_from(trainer, initialize(trainer.model, "stacked", key, trainer.execution.exact_dtype.name), key)


@functools.partial(jax.jit, static_argnums=0)
def start_from(trainer: Trainer, variables: Variables, key: jax.Array) -> TrainState:
    """The first state of a run that begins with a model, and empty optimizer memories.

    Args:
        trainer: with `lora`, fresh adapters are trained; else a copy of the parameters, with `reward` a head too.
        variables: stacked, a checkpoint's for instance; of the exact type unless adapters are trained.
        key: of the adapters.
    """
    update, balance = _optimizers(trainer)
    exact = trainer.execution.exact_dtype.name
    params, _ = trained_and_frozen(trainer.model, trainer.lora, variables["params"], key, exact)
    params = params if trainer.reward is None else with_head(params, trainer.model, exact)
    biases = variables["balance"]
    return TrainState(params, biases, update.init(params), balance.init(biases), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    trainer: Trainer, state: TrainState, batch: Batch, learning_rate: jax.Array, base: Variables | None = None
) -> tuple[TrainState, StepMetrics]:
    """One update of the parameters by the loss and of the router biases by the load; `state` is used up.

    Args:
        batch: [B, T], or [A, B, T]: A batches one after the other, whose gradients and loads are added up.
        base: the variables that stand still, if the trainer `needs_base`.
    """
    found, gradients = _gradients(trainer, state, base, batch)
    state, norm, applied = apply_gradients(
        trainer, state, gradients, found.total, found.router_counts_LC, learning_rate
    )
    balance = balance_metrics(found.router_counts_LC)
    return state, StepMetrics(found.total, norm, found.router_counts_LC, balance, applied, found.preference)


def apply_gradients(
    trainer: Trainer, state: TrainState, gradients: Any, loss: jax.Array, counts_LC: jax.Array, learning_rate: jax.Array
) -> tuple[TrainState, jax.Array, jax.Array]:
    """The state after an update, the gradient's norm before clipping, and whether both it and the loss were finite.

    If they were not, only the number of the step has changed.

    Args:
        gradients: of the state's parameters.
        counts_LC: tokens that took each class of the routers, for their biases.
    """
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
    return kept.replace(step=state.step + 1), norm, applied


@functools.partial(jax.jit, static_argnums=0)
def evaluate_step(
    trainer: Trainer, variables: Variables, batch: Batch, base: Variables | None = None
) -> tuple[jax.Array, jax.Array]:
    """The loss of a batch summed (nats), and what it counts.

    Args:
        variables: a state's; with adapters they are its "params".
        batch: [B, T].
        base: as in `train_step`.
    """
    found = objective(trainer, variables["params"], variables["balance"], base, batch)
    return found.total, found.count


def _gradients(trainer: Trainer, state: TrainState, base: Variables | None, batch: Batch) -> tuple[Objective, Any]:
    """The loss and what goes with it, means over all that counts, and the loss's gradient."""
    count = counted(trainer, batch)

    def share(params: Any, part: Batch) -> tuple[jax.Array, Objective]:
        found = objective(trainer, params, state.balance, base, part)
        told = None if found.preference is None else found.preference.scaled(1 / count)
        return found.total / count, found.replace(total=found.total / count, preference=told)

    compute = jax.grad(share, has_aux=True)
    if batch.tokens_BT.ndim == 2:
        gradients, found = compute(state.params, batch)
        return found, gradients

    def add(sums: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, compute(state.params, part)), None

    first = jax.eval_shape(compute, state.params, jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    (gradients, found), _ = jax.lax.scan(add, zeros, batch)
    return found, gradients


def _optimizers(trainer: Trainer) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    mesh = trainer.execution.mesh
    if trainer.reward is not None:
        update = head_optimizer(trainer.optimizer, trainer.model, mesh)
    elif trainer.lora is None:
        update = optimizer(trainer.optimizer, trainer.model, "stacked", mesh)
    else:
        update = adapter_optimizer(trainer.optimizer, trainer.model, trainer.lora, mesh)
    return update, balancer(trainer.balance_rate)

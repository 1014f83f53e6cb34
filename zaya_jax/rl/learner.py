"""The learner: rollouts in, an update out. It knows neither environments nor engines.

    sums = nothing_yet(learner, state)
    for batch in batches:
        sums = accumulate(learner, state, sums, batch, divisor)
    state, metrics = update(learner, state, sums, learning_rate)

One program per batch and one per update, whatever the number of batches. The experts that the engine took are pinned
(router replay; report, IV-C): the trainer's gates are its own full softmax's probabilities of those experts. So are
the ids that a token was drawn from, where min-p kept some only (appendix E).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.rl.aggregation import AggregationConfig, aggregate, count
from zaya_jax.rl.batch import LearnerBatch
from zaya_jax.rl.losses import ClipConfig, DppoConfig, LossMetrics, policy_loss
from zaya_jax.rl.placing import place_batch, place_state, place_sums
from zaya_jax.train.objective import target_nats
from zaya_jax.train.step import TrainState, apply_gradients
from zaya_jax.train.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Learner:
    """What an update is made of. Hashable: a static argument.

    Attributes:
        trainer: the model, its execution and the optimizer. Its `balance_rate` is 0 where the biases of the routers
            stand still, as they do unless a run wants otherwise.
        loss: of each token.
        aggregation: from tokens to a batch.
    """

    trainer: Trainer
    loss: DppoConfig | ClipConfig = dataclasses.field(default_factory=DppoConfig)
    aggregation: AggregationConfig = dataclasses.field(default_factory=AggregationConfig)

    def __post_init__(self):
        if self.trainer.lora is not None or self.trainer.dpo is not None:
            fix = "train all parameters: leave lora and dpo out"
            raise mistake("reinforcement learning has no such trainer", where="Learner.trainer", fix=fix)


@flax.struct.dataclass
class Sums:
    """What batches add up to.

    Attributes:
        gradients: of the loss with respect to the parameters.
        loss: mean of the rollouts, or of the tokens.
        router_counts_LC: tokens that took each class.
        told: of the loss, sums over tokens.
    """

    gradients: Any
    loss: jax.Array
    router_counts_LC: jax.Array
    told: LossMetrics


@flax.struct.dataclass
class UpdateMetrics:
    """What an update tells.

    Attributes:
        loss: as in `Sums`.
        gradient_norm: before clipping.
        applied: False if loss or gradient were not finite, and nothing but the number of the step has changed.
        told: sums over the tokens that were drawn; `LossMetrics.tokens` of them.
        router_counts_LC: tokens that took each class.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    applied: jax.Array
    told: LossMetrics
    router_counts_LC: jax.Array


def divisor(learner: Learner, batches: Sequence[LearnerBatch]) -> np.float32:
    """What the summed loss of all batches is divided by: rollouts, or tokens; at least 1."""
    counted = (count(learner.aggregation, jnp.asarray(b.mask_BT), jnp.asarray(b.segments_BT)) for b in batches)
    return np.float32(max(sum(int(one) for one in counted), 1))


@functools.partial(jax.jit, static_argnums=0)
def nothing_yet(learner: Learner, state: TrainState) -> Sums:
    """Sums of no batches."""
    exact, config = learner.trainer.execution.exact_dtype, learner.trainer.model
    zero = jnp.zeros((), exact)
    counts_LC = jnp.zeros((config.num_layers, config.num_router_classes), jnp.int32)
    sums = Sums(jax.tree.map(jnp.zeros_like, state.params), zero, counts_LC, LossMetrics(*[zero] * 5))
    return place_sums(learner.trainer, sums)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def accumulate(learner: Learner, state: TrainState, sums: Sums, batch: LearnerBatch, divisor: jax.Array) -> Sums:
    """The sums with another batch's; `sums` is used up.

    Args:
        batch: [B, T].
        divisor: of all batches of the update together (`divisor`).
    """

    def share(params: Any) -> tuple[jax.Array, tuple[jax.Array, LossMetrics]]:
        nats_BT, outputs = target_nats(learner.trainer, params, state.balance, batch, batch.routes_LBT, batch.kept_BTK)
        loss_BT, told = policy_loss(learner.loss, -nats_BT, batch.mu_BT, batch.advantages_BT, batch.mask_BT)
        total, _ = aggregate(learner.aggregation, loss_BT, batch.mask_BT, batch.segments_BT)
        return total / divisor.astype(total.dtype), (outputs.router_counts_LC, told)

    (loss, (counts_LC, told)), gradients = jax.value_and_grad(share, has_aux=True)(state.params)
    more = jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, Sums(gradients, loss, counts_LC, told))
    return place_sums(learner.trainer, more)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(
    learner: Learner, state: TrainState, sums: Sums, learning_rate: jax.Array
) -> tuple[TrainState, UpdateMetrics]:
    """One step of the optimizer by what batches added up to; `state` is used up."""
    counts_LC = sums.router_counts_LC
    state, norm, applied = apply_gradients(learner.trainer, state, sums.gradients, sums.loss, counts_LC, learning_rate)
    state = place_state(learner.trainer, state)
    return state, UpdateMetrics(sums.loss, norm, applied, sums.told, counts_LC)


@functools.partial(jax.jit, static_argnums=0)
def log_probabilities(learner: Learner, state: TrainState, batch: LearnerBatch) -> tuple[jax.Array, jax.Array]:
    """The policy's log-probability of every target [B, T], and the experts it took [L, B, T]: to be held against the
    engine's. Routes of -1 in the batch are decided here."""
    nats_BT, outputs = target_nats(
        learner.trainer, state.params, state.balance, batch, batch.routes_LBT, batch.kept_BTK
    )
    return -nats_BT, outputs.routes_LBT


def learn(
    learner: Learner, state: TrainState, batches: Sequence[LearnerBatch], learning_rate: float
) -> tuple[TrainState, UpdateMetrics]:
    """One update by all batches; `state` is used up."""
    sums, by = nothing_yet(learner, state), divisor(learner, batches)
    for batch in batches:
        sums = accumulate(learner, state, sums, place_batch(learner.trainer.execution.mesh, batch), by)
    return update(learner, state, sums, np.float32(learning_rate))

"""What a step makes smaller: cross-entropy of the targets, or a loss on pairs of answers or of their scores."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from zaya_jax.data.batch import Batch
from zaya_jax.model.layout import Variables, unstack
from zaya_jax.model.zaya import Outputs, Zaya
from zaya_jax.parallel import each_device
from zaya_jax.train.kept_loss import kept_nats
from zaya_jax.train.lora import loss_params
from zaya_jax.train.loss import chunked_cross_entropy, chunked_nats, cross_entropy
from zaya_jax.train.preference import DpoMetrics, preference_loss, real_pairs
from zaya_jax.train.reward_model import BACKBONE, HEAD, pairs_loss, segment_scores
from zaya_jax.train.trainer import Trainer


@flax.struct.dataclass
class Objective:
    """Sums over a batch, to be added to those of others and divided by the sum of `count`.

    Attributes:
        total: nats.
        count: what they are of: weights of targets, or pairs.
        router_counts_LC: tokens that took each class.
        preference: sums over the pairs, None without any.
    """

    total: jax.Array
    count: jax.Array
    router_counts_LC: jax.Array
    preference: DpoMetrics | None


def objective(trainer: Trainer, params: Any, balance: Any, base: Variables | None, batch: Batch) -> Objective:
    """The loss of a batch, [B, T].

    Args:
        trainer: with `lora`, `dpo` or `reward`, or none of them.
        params: what is trained: stacked parameters, adapters, or a reward model's.
        balance: router biases.
        base: the variables that stand still, None if nothing needs them. Preferences are measured against them.
    """
    read = loss_params(trainer.lora, params, None if base is None else base["params"])
    if not trainer.on_pairs:
        total, count, outputs = batch_loss(trainer, read, balance, batch)
        return Objective(total, count, outputs.router_counts_LC, None)
    if trainer.reward is not None:
        outputs = _apply(trainer, read[BACKBONE], balance, batch, "none")
        scores_BS = segment_scores(outputs.hidden_BTD, read[HEAD], batch.segments_BT)
        mean, told = pairs_loss(trainer.reward, scores_BS, batch)
    else:
        nats_BT, outputs = target_nats(trainer, read, balance, batch)
        reference_BT, _ = jax.lax.stop_gradient(target_nats(trainer, base["params"], base["balance"], batch))
        mean, told = preference_loss(trainer.dpo, nats_BT, reference_BT, batch)
    sums = told.scaled(told.pairs.astype(mean.dtype))
    return Objective(mean * told.pairs, told.pairs.astype(mean.dtype), outputs.router_counts_LC, sums)


def counted(trainer: Trainer, batch: Batch) -> jax.Array:
    """`Objective.count` of a batch of any leading axes, known before the model has run; at least 1."""
    if not trainer.on_pairs:
        count = jnp.sum(batch.mask_BT, dtype=trainer.execution.exact_dtype)
    else:
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), batch)
        count = jnp.sum(real_pairs(flat), dtype=trainer.execution.exact_dtype)
    return jnp.maximum(count, 1)


def batch_loss(trainer: Trainer, params: Any, balance: Any, batch: Batch) -> tuple[jax.Array, jax.Array, Outputs]:
    """Summed cross-entropy, what it counts, and all that the model returned; of parameters as the model reads them."""
    chunked = trainer.loss_chunk > 0
    outputs = _apply(trainer, params, balance, batch, "none" if chunked else "all")
    if not chunked:
        return *cross_entropy(outputs.logits, batch.targets_BT, batch.mask_BT), outputs

    def local(rows: Any, table_VD: jax.Array) -> Any:
        """Of a device's own tokens, `loss_chunk` of them at a time."""
        hidden_PD, targets_P, mask_P = (x.reshape(-1, *x.shape[2:]) for x in rows)
        sums = chunked_cross_entropy(trainer.execution, hidden_PD, table_VD, targets_P, mask_P, trainer.loss_chunk)
        return jax.tree.map(lambda x: x[None, None], sums)  # a row and a column of a device

    rows = (outputs.hidden_BTD, batch.targets_BT, batch.mask_BT)
    total, count = each_device(trainer.execution.mesh, local, rows, params["embedding"], columns=True)
    return total.sum(), count.sum(), outputs


def target_nats(
    trainer: Trainer, params: Any, balance: Any, batch: Any, routes_LBT: jax.Array | None = None, kept_BTK=None
) -> tuple[jax.Array, Outputs]:
    """Minus the log-probability of every target, [B, T], and all that the model returned.

    Args:
        params: as the model reads them, stacked.
        batch: has the fields of a `Batch`, but for the mask.
        routes_LBT: experts to be taken, -1 for the router to decide; None is -1 everywhere.
        kept_BTK: the ids that each target was drawn from (`kept_loss`); None is all of them.
    """
    outputs = _apply(trainer, params, balance, batch, "none", routes_LBT)

    def local(rows: Any, table_VD: jax.Array) -> jax.Array:
        flat = [x.reshape(-1, *x.shape[2:]) for x in rows]
        chunk, nats = trainer.loss_chunk or rows[1].size, chunked_nats if kept_BTK is None else kept_nats
        return nats(trainer.execution, chunk, flat[0], table_VD, *flat[1:]).reshape(rows[1].shape)

    rows = (outputs.hidden_BTD, batch.targets_BT, *(() if kept_BTK is None else (kept_BTK,)))
    return each_device(trainer.execution.mesh, local, rows, params["embedding"], columns=True), outputs


def _apply(trainer: Trainer, params: Any, balance: Any, batch: Any, logits: str, routes_LBT=None) -> Outputs:
    variables = {"params": params, "balance": balance}
    if trainer.execution.layout == "unstacked":
        variables = unstack(trainer.model, variables)
    model = Zaya(trainer.model, trainer.execution)
    return model.apply(
        variables, batch.tokens_BT, batch.positions_BT, batch.segments_BT, routes=routes_LBT, logits=logits
    )

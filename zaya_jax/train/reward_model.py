"""A reward model: the same backbone, and one number of the hidden state of a conversation's last token.

Trained on pairs under the model of Bradley and Terry (Biometrika 39, 1952): the chance that one reply is preferred to
another is sigmoid(score - score'). Scores are therefore known up to a constant; a centring penalty on their sum picks
one (Eisenstein et al., arXiv 2312.09244, section 2). A margin asks for more than a bare win (Touvron et al., arXiv
2307.09288, eq. 2, with one margin for all pairs).

Pairs are rows of segments chosen, rejected, chosen, ... as for DPO (`train.preference`). What is trained is
{"backbone": the model's parameters, "reward_head": [D]}.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zaya_jax.data.batch import Batch
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.train.optimizer import OptimizerConfig, optimizer
from zaya_jax.train.preference import DpoMetrics, real_pairs, segment_count, segment_sums, split_pairs

BACKBONE, HEAD = "backbone", "reward_head"


@dataclasses.dataclass(frozen=True)
class BradleyTerryConfig:
    """The loss on pairs of scores.

    Attributes:
        margin: by which the chosen score shall exceed the rejected one.
        centring: weight of (chosen + rejected)^2; 0: none.
    """

    margin: float = 0.0
    centring: float = 0.01

    def __post_init__(self):
        for name in ("margin", "centring"):
            if not getattr(self, name) >= 0:
                found = getattr(self, name)
                raise mistake("out of range", where=f"BradleyTerryConfig.{name}", expected="0 or more", found=found)


def bradley_terry_loss(
    chosen: jax.Array, rejected: jax.Array, config: BradleyTerryConfig, real: jax.Array | None = None
) -> tuple[jax.Array, DpoMetrics]:
    """-log sigmoid(chosen - rejected - margin) + centring * (chosen + rejected)^2, the mean over pairs.

    Args:
        chosen, rejected: scores, any one shape.
        config: see there.
        real: which pairs count; all by default. With none the loss is 0.

    Returns:
        The mean loss (nats a pair) and means over the pairs, of which rewards are the scores and a pair whose scores
        are equal is not won. loss * pairs is the sum, for batches in several pieces.
    """
    real = jnp.ones(chosen.shape, bool) if real is None else real
    chosen, rejected = jnp.where(real, chosen, 0), jnp.where(real, rejected, 0)  # no gradient comes from the others
    ahead, pairs = chosen - rejected, jnp.sum(real)
    loss = jax.nn.softplus(config.margin - ahead) + config.centring * (chosen + rejected) ** 2

    def mean(x):
        return jnp.sum(jnp.where(real, x, 0)) / jnp.maximum(pairs, 1).astype(ahead.dtype)

    told = (ahead > 0).astype(ahead.dtype), ahead, chosen, rejected
    return mean(loss), DpoMetrics(pairs, *jax.lax.stop_gradient(tuple(map(mean, told))))


def pairs_loss(config: BradleyTerryConfig, scores_BS: jax.Array, batch: Batch) -> tuple[jax.Array, DpoMetrics]:
    """`bradley_terry_loss` of a batch of preferences; a pair that lacks an answer on either side does not count.

    Args:
        config: of the loss.
        scores_BS: of segments 1, 2, ... of each row, `segment_scores`.
        batch: rows of segments chosen, rejected, chosen, ...
    """
    return bradley_terry_loss(*split_pairs(scores_BS), config, real_pairs(batch))


def segment_scores(hidden_BTD: jax.Array, head_D: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """The score of every segment, [B, S] with S the length made even, in the head's type; 0 where there is none.

    Args:
        hidden_BTD: the final norm's result (`Outputs.hidden_BTD`).
        head_D: of the scalar head, which has no bias: it would fall out of every difference.
        segments_BT: from 1; each is contiguous, 0 is padding.
    """
    after_BT = jnp.pad(segments_BT[:, 1:], ((0, 0), (0, 1)))
    last_BT = (segments_BT != 0) & (segments_BT != after_BT)
    values_BT = jnp.sum(hidden_BTD.astype(head_D.dtype) * head_D, axis=-1)
    return segment_sums(jnp.where(last_BT, values_BT, 0), segments_BT, segment_count(segments_BT))


def with_head(params: Any, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """What a reward model begins with: a backbone and a head of zeros. Every pair then costs log 2 (without a margin)
    and the head alone has a gradient in the first step."""
    return {BACKBONE: params, HEAD: jnp.zeros(config.hidden_size, dtype)}


def head_optimizer(
    config: OptimizerConfig, model: ModelConfig, mesh: jax.sharding.Mesh | None = None
) -> optax.GradientTransformation:
    """`optimizer` for the backbone and Adam for the head, which does not decay; the gradient of both is clipped as one.

    Args:
        config, model, mesh: as of `optimizer`, for a learning rate of 1.
    """
    parts = {
        BACKBONE: optimizer(config, model, "stacked", mesh),
        HEAD: optax.chain(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon), optax.scale(-1.0)),
    }

    def init(params):
        return {name: part.init(params[name]) for name, part in parts.items()}

    def update(updates, state, params):
        done = {name: part.update(updates[name], state[name], params[name]) for name, part in parts.items()}
        return {name: found[0] for name, found in done.items()}, {name: found[1] for name, found in done.items()}

    clip = optax.clip_by_global_norm(config.clip)
    return optax.chain(clip, optax.GradientTransformation(init, update))

"""Direct preference optimization (Rafailov et al., arXiv 2305.18290): a loss on pairs of answers.

A preference is two segments of a row, one after the other: the chosen conversation, then the rejected one, each with
its prompt and the mask on the answer. Segments 1 and 2 of a row are a pair, 3 and 4 the next (`data.dataset` packs them
so); a row holds preferences and nothing else.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from zaya_jax.data.batch import Batch
from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class DpoConfig:
    """The loss on pairs.

    Attributes:
        beta: how dear it is to leave the reference; rewards are beta times the log of the ratio to it.
        label_smoothing: the share of pairs that are taken to be the wrong way round, below 1/2.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self):
        if not self.beta > 0:
            raise mistake("is too small", where="DpoConfig.beta", expected="more than 0", found=self.beta)
        if not 0 <= self.label_smoothing < 0.5:
            expected, found = "0 up to 1/2", self.label_smoothing
            raise mistake("is no share", where="DpoConfig.label_smoothing", expected=expected, found=found)


@flax.struct.dataclass
class DpoMetrics:
    """Means over the pairs of a batch (`scaled` by their number: sums).

    Attributes:
        pairs: how many there are.
        accuracy: the share whose chosen answer has the higher reward.
        margin: the reward of the chosen answer less that of the rejected one.
        chosen_reward, rejected_reward: beta * log(policy / reference).
    """

    pairs: jax.Array
    accuracy: jax.Array
    margin: jax.Array
    chosen_reward: jax.Array
    rejected_reward: jax.Array

    def scaled(self, factor: jax.Array) -> DpoMetrics:
        """All but the number of pairs, times a factor."""
        return jax.tree.map(lambda x: x * factor, self).replace(pairs=self.pairs)


def sequence_logprobs(nats_BT: jax.Array, mask_BT: jax.Array, segments_BT: jax.Array, count: int) -> jax.Array:
    """The log-probability of each segment's answer, [B, count], in the type of `nats_BT`; 0 where there is none.

    Not a scatter: on a GPU that would add up in any order, and no two runs would have the same bits.

    Args:
        nats_BT: cross-entropy of each position's target, -log p.
        mask_BT: weight of each position; where it is 0 nothing is counted, whatever stands in `nats_BT`.
        segments_BT: 1 to `count`; 0 is padding.
        count: segments of a row at most.
    """
    mask = mask_BT.astype(nats_BT.dtype)
    return -segment_sums(jnp.where(mask != 0, nats_BT, 0) * mask, segments_BT, count)


def dpo_loss(
    policy_chosen: jax.Array,
    policy_rejected: jax.Array,
    reference_chosen: jax.Array,
    reference_rejected: jax.Array,
    beta: float,
    label_smoothing: float = 0.0,
    real: jax.Array | None = None,
) -> tuple[jax.Array, DpoMetrics]:
    """-log sigmoid(beta * (log-ratio of the chosen answer - that of the rejected one)), the mean over pairs.

    Args:
        policy_chosen, policy_rejected: log-probabilities of the answers under the model that is trained, any one shape.
        reference_chosen, reference_rejected: the same under the reference, which gets no gradient.
        beta: see `DpoConfig`.
        label_smoothing: the loss is (1 - it) times that of the pair and it times that of the pair turned round.
        real: which pairs count; all by default. With none the loss is 0.

    Returns:
        The mean loss (nats a pair) and the metrics. loss * pairs is the sum, for batches in several pieces.
    """
    reference_chosen, reference_rejected = jax.lax.stop_gradient((reference_chosen, reference_rejected))
    chosen, rejected = beta * (policy_chosen - reference_chosen), beta * (policy_rejected - reference_rejected)
    margin = chosen - rejected
    right, wrong = jax.nn.softplus(-margin), jax.nn.softplus(margin)  # -log sigmoid of it and of its negative
    loss = (1 - label_smoothing) * right + label_smoothing * wrong
    real = jnp.ones(margin.shape, bool) if real is None else real
    pairs = jnp.sum(real)

    def mean(x):
        return jnp.sum(jnp.where(real, x, 0)) / jnp.maximum(pairs, 1).astype(margin.dtype)

    told = (margin > 0).astype(margin.dtype), margin, chosen, rejected
    return mean(loss), DpoMetrics(pairs, *jax.lax.stop_gradient(tuple(map(mean, told))))


def preference_loss(
    config: DpoConfig, policy_nats_BT: jax.Array, reference_nats_BT: jax.Array, batch: Batch
) -> tuple[jax.Array, DpoMetrics]:
    """`dpo_loss` of a batch of preferences. A pair that lacks an answer on either side does not count.

    Args:
        config: of the loss.
        policy_nats_BT: cross-entropy of each target under the model that is trained (`loss.chunked_nats`).
        reference_nats_BT: the same under the reference: the base without its adapters, or a frozen copy.
        batch: rows of segments chosen, rejected, chosen, ...
    """

    def answers(nats_BT):
        return split_pairs(
            sequence_logprobs(nats_BT, batch.mask_BT, batch.segments_BT, segment_count(batch.segments_BT))
        )

    policy, reference = answers(policy_nats_BT), answers(reference_nats_BT)
    return dpo_loss(*policy, *reference, config.beta, config.label_smoothing, real_pairs(batch))


def real_pairs(batch: Batch) -> jax.Array:
    """Which pairs of segments have an answer each, boolean [B, T / 2 rounded up]. Their number is what losses of
    several batches are averaged by."""
    counted_BT = (batch.mask_BT != 0).astype(jnp.int32)
    chosen, rejected = split_pairs(segment_sums(counted_BT, batch.segments_BT, segment_count(batch.segments_BT)))
    return (chosen > 0) & (rejected > 0)


def split_pairs(segments_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What belongs to the chosen segments, 1, 3, 5 ..., and to the rejected ones behind them; S is even."""
    return segments_BS[:, 0::2], segments_BS[:, 1::2]


def segment_count(segments_BT: jax.Array) -> int:
    """As many segments as a row can have, made even: none is ever left out."""
    length = segments_BT.shape[-1]
    return length + length % 2


def segment_sums(x_BT: jax.Array, segments_BT: jax.Array, count: int) -> jax.Array:
    """[B, count]: the sum over each of the segments 1 to count."""
    own_BTS = segments_BT[..., None] == jnp.arange(1, count + 1)
    return jnp.sum(jnp.where(own_BTS, x_BT[..., None], 0), axis=1)

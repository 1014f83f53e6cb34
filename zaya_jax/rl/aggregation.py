"""From the losses of tokens to the loss of a batch: a sum and what it is divided by, kept apart.

Sums of several batches, accumulated or sharded, are added up, and so are their counts; one division at the end gives
the mean over all of them exactly.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from zaya_jax.errors import mistake

KINDS = ("sequence_mean_token_sum", "token_mean")


@dataclasses.dataclass(frozen=True)
class AggregationConfig:
    """How tokens are averaged.

    Attributes:
        kind: "sequence_mean_token_sum": tokens of a rollout are added up and rollouts averaged, so that every token
            weighs the same however long its rollout is (Dr. GRPO, arXiv 2503.20783; ZAYA1's report, IV-B).
            "token_mean": the mean over all tokens (DAPO, arXiv 2503.14476).
        norm: of the first: what token sums are divided by, a constant such as the longest response. The report does
            not tell its own; with momentum-free Muon it matters to clipping and AdamW alone.
    """

    kind: Literal["sequence_mean_token_sum", "token_mean"] = "sequence_mean_token_sum"
    norm: float = 1.0

    def __post_init__(self):
        if self.kind not in KINDS:
            expected = " or ".join(KINDS)
            raise mistake("no such kind", where="AggregationConfig.kind", expected=expected, found=repr(self.kind))
        if not self.norm > 0:
            raise mistake("is too small", where="AggregationConfig.norm", expected="more than 0", found=self.norm)


def aggregate(
    config: AggregationConfig, loss_BT: jax.Array, mask_BT: jax.Array, segments_BT: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The loss summed, and what it counts, scalars: their quotient is the mean loss.

    Args:
        config: which mean.
        loss_BT: loss of each token.
        mask_BT: not 0 for the tokens that count.
        segments_BT: as in `count`.
    """
    total = jnp.sum(jnp.where(mask_BT != 0, loss_BT, 0))
    if config.kind == "sequence_mean_token_sum":
        total = total / config.norm
    return total, count(config, mask_BT, segments_BT).astype(loss_BT.dtype)


def count(config: AggregationConfig, mask_BT: jax.Array, segments_BT: jax.Array | None = None) -> jax.Array:
    """What a batch's loss is averaged over, int32: rollouts with a token that counts, or such tokens.

    Known before the model has run, and 0 for a batch without any: whoever divides takes at least 1.

    Args:
        config: which mean.
        mask_BT: not 0 for the tokens that count; any leading axes.
        segments_BT: the rollout of each token in its row, numbers that rise from 1 along it, 0 for padding, as
            `data.dataset` packs them. None: a row is a rollout.
    """
    real_BT = mask_BT != 0
    if config.kind == "token_mean":
        return jnp.sum(real_BT, dtype=jnp.int32)
    if segments_BT is None:
        return jnp.sum(jnp.any(real_BT, axis=-1), dtype=jnp.int32)
    # A rollout's first token that counts is where the largest segment so far grows; no array of tokens by segments.
    segments_BT = jnp.where(real_BT, segments_BT, 0)
    largest_BT = jax.lax.cummax(segments_BT, axis=segments_BT.ndim - 1)
    before_BT = jnp.pad(largest_BT[..., :-1], [(0, 0)] * (largest_BT.ndim - 1) + [(1, 0)])
    return jnp.sum(largest_BT > before_BT, dtype=jnp.int32)

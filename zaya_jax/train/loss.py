"""Losses on logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits_BTV: jax.Array, targets_BT: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of the targets under softmax(logits), summed over what the mask lets count.

    Sum and count come apart so that accumulated or sharded batches can be averaged exactly.

    Args:
        logits_BTV: unnormalised log-probabilities.
        targets_BT: token ids; one outside of the vocabulary makes the sum NaN, unless its mask is 0.
        mask_BT: weight of each prediction; where it is 0 the loss and its gradient are 0.

    Returns:
        The weighted sum in nats and the sum of the weights, scalars in float32 (float64 for float64 logits).
    """
    dtype = jnp.promote_types(logits_BTV.dtype, jnp.float32)
    logits = logits_BTV.astype(dtype)
    mask = mask_BT.astype(dtype)
    # Not a gather: its gradient would be a scatter into another [B, T, V].
    vocabulary = logits.shape[-1]
    hit_BTV = jnp.arange(vocabulary) == targets_BT[..., None]
    known_BT = (targets_BT >= 0) & (targets_BT < vocabulary)
    right = jnp.where(known_BT, jnp.sum(jnp.where(hit_BTV, logits, 0), axis=-1), jnp.nan)
    nats_BT = jax.nn.logsumexp(logits, axis=-1) - right
    return jnp.sum(jnp.where(mask != 0, nats_BT * mask, 0)), jnp.sum(mask)

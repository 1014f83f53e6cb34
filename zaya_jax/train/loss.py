"""Losses: cross-entropy on logits, and on hidden states without ever holding the logits of all tokens."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from zaya_jax.errors import mistake
from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import matmul_nn, matmul_nt, matmul_tn


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
    return _weighted_sum(nats_BT, mask), jnp.sum(mask)


def chunked_cross_entropy(
    execution: Execution,
    hidden_PD: jax.Array,
    embedding_VD: jax.Array,
    targets_P: jax.Array,
    mask_P: jax.Array,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """`cross_entropy` of the tied head's logits, which exist for one chunk of tokens at a time.

    The gradient of a sum is known up to a factor when the sum is: both gradients are computed along with the value,
    and no logits are computed twice. A call for one device and its tokens; nothing in it communicates.

    Args:
        execution: the precision of the products, as in `model.layers.dense`.
        hidden_PD: what the head reads, the model's `hidden_BTD` flattened.
        embedding_VD: the tied embedding.
        targets_P, mask_P: as in `cross_entropy`. The mask has no gradient.
        chunk: tokens at a time; they need not divide evenly. The logits of a chunk and their gradient are the largest
            arrays, of chunk * V numbers; every chunk also reads and writes the embedding's whole gradient, so that
            some thousands are better than some hundreds.

    Returns:
        The weighted sum in nats and the sum of the weights, scalars in the exact type.

    Raises:
        UserError: a chunk of no tokens.
    """
    mask_P = lax.stop_gradient(mask_P).astype(execution.exact_dtype)
    return _summed_nats(execution, chunk, hidden_PD, embedding_VD, targets_P, mask_P), jnp.sum(mask_P)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def chunked_nats(
    execution: Execution, chunk: int, hidden_PD: jax.Array, embedding_VD: jax.Array, targets_P: jax.Array
) -> jax.Array:
    """Minus the log-probability of every target, [P] in the exact type: for losses that are no plain sum of them.

    Arguments are those of `chunked_cross_entropy`. The gradient computes every chunk's logits a second time. A target
    outside of the vocabulary gives NaN; where it comes back with a cotangent of 0, its gradient is 0.
    """

    table_VD = embedding_VD.astype(execution.compute_dtype)  # once, not for every chunk

    def one(now):
        return _nats(matmul_nt(execution, now[0], table_VD), now[1])[0]

    return joined(lax.map(one, split(chunk, hidden_PD, targets_P)), targets_P)


def _chunked_nats_forward(execution, chunk, hidden_PD, embedding_VD, targets_P):
    return chunked_nats(execution, chunk, hidden_PD, embedding_VD, targets_P), (hidden_PD, embedding_VD, targets_P)


def _chunked_nats_backward(execution, chunk, saved, g_P):
    hidden_PD, embedding_VD, targets_P = saved
    return *_gradients(execution, chunk, hidden_PD, embedding_VD, targets_P, g_P)[1:], None


chunked_nats.defvjp(_chunked_nats_forward, _chunked_nats_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed_nats(execution: Execution, chunk: int, hidden_PD, embedding_VD, targets_P, mask_P) -> jax.Array:
    return _weighted_sum(chunked_nats(execution, chunk, hidden_PD, embedding_VD, targets_P), mask_P)


def _summed_nats_forward(execution, chunk, hidden_PD, embedding_VD, targets_P, mask_P):
    nats_P, *gradients = _gradients(execution, chunk, hidden_PD, embedding_VD, targets_P, mask_P)
    return _weighted_sum(nats_P, mask_P), tuple(gradients)


def _summed_nats_backward(execution, chunk, gradients, g):
    return *((g * gradient).astype(gradient.dtype) for gradient in gradients), None, None


_summed_nats.defvjp(_summed_nats_forward, _summed_nats_backward)


def _gradients(execution: Execution, chunk: int, hidden_PD, embedding_VD, targets_P, weights_P):
    """The nats [P], and the gradients of their sum with these weights: of the hidden states and of the embedding."""

    table_VD = embedding_VD.astype(execution.compute_dtype)

    def step(total_VD, now):
        hidden, targets, weights = now
        logits_QV = matmul_nt(execution, hidden, table_VD)
        nats, normaliser = _nats(logits_QV, targets)
        hit_QV = jnp.arange(logits_QV.shape[1]) == targets[:, None]
        slope_QV = (jnp.exp(logits_QV - normaliser[:, None]) - hit_QV) * weights[:, None]
        total_VD += matmul_tn(execution, slope_QV, hidden)
        return total_VD, (nats, matmul_nn(execution, slope_QV, table_VD).astype(hidden.dtype))

    nothing_VD = jnp.zeros(embedding_VD.shape, execution.exact_dtype)
    weights_P = weights_P.astype(execution.exact_dtype)
    total_VD, (nats, slopes) = lax.scan(step, nothing_VD, split(chunk, hidden_PD, targets_P, weights_P))
    return joined(nats, targets_P), joined(slopes, targets_P), total_VD.astype(embedding_VD.dtype)


def _nats(logits_QV: jax.Array, targets_Q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Minus the log-probability of each target, and the logarithm of what normalises the softmax."""
    vocabulary = logits_QV.shape[1]
    known_Q = (targets_Q >= 0) & (targets_Q < vocabulary)
    right_Q = jnp.take_along_axis(logits_QV, jnp.where(known_Q, targets_Q, 0)[:, None], axis=1)[:, 0]
    normaliser_Q = jax.nn.logsumexp(logits_QV, axis=1)
    return normaliser_Q - jnp.where(known_Q, right_Q, jnp.nan), normaliser_Q


def _weighted_sum(nats: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask != 0, nats * mask, 0))


def split(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays [P, ...] as chunks [P / chunk, chunk, ...], with zeros at the end."""
    if chunk < 1:
        raise mistake("out of range", where="chunk of the loss", expected="a positive number of tokens", found=chunk)
    tokens = arrays[0].shape[0]
    chunk = min(chunk, max(tokens, 1))
    missing = -tokens % chunk
    padded = (jnp.pad(a, ((0, missing), *[(0, 0)] * (a.ndim - 1))) for a in arrays)
    return tuple(a.reshape(-1, chunk, *a.shape[1:]) for a in padded)


def joined(chunks: jax.Array, like_P: jax.Array) -> jax.Array:
    return chunks.reshape(-1, *chunks.shape[2:])[: like_P.shape[0]]

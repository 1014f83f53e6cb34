"""Log-probabilities under a softmax over a few ids a token: those that were kept when the token was drawn.

A filter such as min-p leaves another set of ids to weights that have moved by a little. What is learnt from a token has
to be the probability under the set that it was drawn from, which is why whoever drew it says which ids these were
(min-p replay; ZAYA1's report, appendix E).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import matmul_nt
from zaya_jax.train.loss import joined, split


def kept_nats(
    execution: Execution,
    chunk: int,
    hidden_PD: jax.Array,
    embedding_VD: jax.Array,
    targets_P: jax.Array,
    kept_PK: jax.Array,
) -> jax.Array:
    """Minus the log-probability of every target under the softmax of the kept ids' logits, [P] in the exact type.

    The gradient computes every chunk's logits a second time, as that of `loss.chunked_nats` does.

    Args:
        execution: the precision of the products.
        chunk: tokens whose logits exist at once.
        hidden_PD: what the head reads.
        embedding_VD: the tied embedding.
        targets_P: token ids, each among its kept ones.
        kept_PK: int32 ids, each once, -1 behind them. A token with none has probability 1, and no gradient.
    """
    table_VD = embedding_VD.astype(execution.compute_dtype)

    @jax.checkpoint
    def one(now: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return _nats(matmul_nt(execution, now[0], table_VD), *now[1:])

    return joined(lax.map(one, split(chunk, hidden_PD, targets_P, kept_PK)), targets_P)


def _nats(logits_QV: jax.Array, targets_Q: jax.Array, kept_QK: jax.Array) -> jax.Array:
    none_Q = kept_QK[:, 0] < 0
    kept_QK = kept_QK.at[:, 0].set(jnp.where(none_Q, targets_Q, kept_QK[:, 0]))
    logits_QK = jnp.take_along_axis(logits_QV, jnp.maximum(kept_QK, 0), axis=1)
    logits_QK = jnp.where(kept_QK < 0, -jnp.inf, logits_QK)
    right_Q = jnp.take_along_axis(logits_QV, targets_Q[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits_QK, axis=1) - right_Q

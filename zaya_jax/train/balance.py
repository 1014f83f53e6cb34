"""Router balancing: biases that steer tokens away from overloaded experts, outside of the loss (report, eq. 5)."""

from __future__ import annotations

from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import Slot, build


def balancer(learning_rate: float = 1e-3) -> optax.GradientTransformation:
    """AdamW for the biases, without decay. The report names AdamW but not its settings; these are the usual ones."""
    return optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)


def load(router_counts_LC: jax.Array) -> jax.Array:
    """Share of each expert in the tokens that went to an expert, float32 [L, E]; the skip class is left out.

    Zeros where no token went to any.
    """
    return _shares(router_counts_LC[:, :-1])


def balance_gradient(router_counts_LC: jax.Array, skip: Literal["frozen", "balanced"] = "frozen") -> jax.Array:
    """The pseudo-gradient p_e - 1/E of the biases, float32 [L, C]: an overloaded expert's bias goes down.

    Zeros where no token went to any expert.

    Args:
        router_counts_LC: tokens of the global batch that took each class, summed over accumulated microbatches.
        skip: "frozen" gives the skip class 0, with which AdamW leaves its bias exactly where it is, and the experts
            share what is not skipped: the released biases are -1.0 in every layer, so it was frozen there. "balanced"
            makes it one class of C = E + 1 with the target 1/C, as AMD's Primus does.
    """
    share_LX = load(router_counts_LC) if skip == "frozen" else _shares(router_counts_LC)
    any_L1 = share_LX.sum(axis=1, keepdims=True) > 0
    gradient_LX = jnp.where(any_L1, share_LX - 1 / share_LX.shape[1], 0)
    return jnp.pad(gradient_LX, ((0, 0), (0, 1))) if skip == "frozen" else gradient_LX


def balance_tree(config: ModelConfig, layout: Layout, values_LC: jax.Array) -> Any:
    """Rows of layers as a tree of the layout's `balance` collection."""

    def make(slot: Slot) -> jax.Array | None:
        if not slot.path.startswith("balance/"):
            return None
        return values_LC[jnp.asarray(slot.layers)] if slot.stacked else values_LC[slot.layers[0]]

    return build(config, layout, make)["balance"]


def load_entropy(router_counts_LC: jax.Array, on: Any = jnp) -> jax.Array:
    """Entropy of the load over ln E, float32 [L]: 1 when every expert has the same share, 0 when one has all.

    Args:
        router_counts_LC: tokens that took each class.
        on: numpy computes on the host, where nothing waits for the step that is under way.
    """
    load_LE = _shares(router_counts_LC[:, :-1], on)
    nats_L = -on.sum(load_LE * on.log(on.where(load_LE > 0, load_LE, 1)), axis=1)
    return nats_L / on.log(max(load_LE.shape[1], 2))


@flax.struct.dataclass
class BalanceMetrics:
    """How even the load of every layer is, float32 [L].

    Attributes:
        entropy_L: `load_entropy`.
        max_L, min_L: load of the most and of the least loaded expert over the even share 1/E; 1 and 1 are an even load.
        skipped_L: share of all tokens that skipped the experts.
    """

    entropy_L: jax.Array
    max_L: jax.Array
    min_L: jax.Array
    skipped_L: jax.Array


def balance_metrics(router_counts_LC: jax.Array) -> BalanceMetrics:
    """All of them from the tokens that took each class."""
    load_LE = load(router_counts_LC)
    return BalanceMetrics(
        entropy_L=load_entropy(router_counts_LC),
        max_L=load_LE.max(axis=1) * load_LE.shape[1],
        min_L=load_LE.min(axis=1) * load_LE.shape[1],
        skipped_L=_shares(router_counts_LC)[:, -1],
    )


def _shares(counts_LX: jax.Array, on: Any = jnp) -> jax.Array:
    counts_LX = counts_LX.astype(on.float32)
    return counts_LX / on.maximum(counts_LX.sum(axis=1, keepdims=True), 1)

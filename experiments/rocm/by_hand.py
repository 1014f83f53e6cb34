"""Bytes counted by hand, which a compiled program is held against."""

from __future__ import annotations

from typing import NamedTuple

from zaya_jax.model import ModelConfig


class Bytes(NamedTuple):
    """What a forward and backward pass cannot do without.

    Attributes:
        inputs: weights, activations, and the gradient that comes in.
        outputs: the result, and the gradients of all inputs that have one.
        residuals: what the forward pass keeps for the backward pass.
    """

    inputs: int
    outputs: int
    residuals: int


def expert_layer(config: ModelConfig, tokens: int, params: int, compute: int = 2, exact: int = 4) -> Bytes:
    """One layer's experts; `params`, `compute`, `exact` are bytes of a number of each type, ids and counts have 4.

    Kept are the rows in expert order, the hidden units behind silu(gate) * up, each row's gate, and the order both
    ways. The halves before silu are not: the backward pass computes them once more.
    """
    E, D, F = config.num_experts, config.hidden_size, config.expert_hidden_size
    weights, gate, routes = 3 * E * F * D * params, tokens * exact, tokens * 4
    x, y = tokens * D * compute, tokens * D * exact
    return Bytes(
        inputs=weights + x + gate + routes + y,
        outputs=y + weights + x + gate,
        residuals=x + tokens * F * compute + gate + 2 * routes + E * 4,
    )

"""The ZAYA1 router: which expert a token goes to, and with which weight (report, section II-A-2)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from zaya_jax.model.execution import Execution
from zaya_jax.model.layers import dense, rms_norm


class Routing(NamedTuple):
    """What the router decides.

    Attributes:
        route_BT: the chosen class, int32; E is the skip class.
        gate_BT: the full softmax's probability of that class, never renormalised; exact type.
        state_BTR: what the next layer's router adds to its own, before the norm; exact type.
        probabilities_BTC: the softmax over the experts and the skip class.
    """

    route_BT: jax.Array
    gate_BT: jax.Array
    state_BTR: jax.Array
    probabilities_BTC: jax.Array


def route(
    execution: Execution,
    epsilon: float,
    w: dict[str, jax.Array],
    biases_C: jax.Array,
    x_BTD: jax.Array,
    state_BTR: jax.Array,
    given_BT: jax.Array | None = None,
) -> Routing:
    """Top-1 of (probability + balancing bias); the gate is the unbiased probability.

    `state_BTR` comes from the layer below, zeros for layer 0 (depth averaging carries it before the norm).
    `given_BT` replays recorded choices: a class >= 0 is taken as it is, -1 is routed live.
    """
    state = dense(execution, x_BTD, w["down_weight"], w["down_bias"])
    if "state_scale" in w:
        state = state + state_BTR * w["state_scale"].astype(state.dtype)
    h = rms_norm(state, w["norm"], epsilon)
    h = jax.nn.gelu(dense(execution, h, w["fc1_weight"], w["fc1_bias"]), approximate=False)
    h = jax.nn.gelu(dense(execution, h, w["fc2_weight"], w["fc2_bias"]), approximate=False)
    probabilities = jax.nn.softmax(dense(execution, h, w["out_weight"]), axis=-1)
    chosen = jnp.argmax(jax.lax.stop_gradient(probabilities) + biases_C.astype(probabilities.dtype), axis=-1)
    chosen = chosen.astype(jnp.int32)
    if given_BT is not None:
        chosen = jnp.where(given_BT >= 0, given_BT.astype(jnp.int32), chosen)
    gate = jnp.take_along_axis(probabilities, chosen[..., None], axis=-1)[..., 0]
    return Routing(chosen, gate, state, probabilities)

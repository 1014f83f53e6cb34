"""Calling the model compiled: as one program, or as one program a layer.

XLA compiles each expert's branch on its own. A model of 40 layers and 16 experts, unrolled, has 640 of them and takes
minutes to compile; but layers of one kind have the same shapes, and one program serves them all. The host calls it for
one layer after the other, at a price of some tenths of a millisecond each.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from zaya_jax.model.cache import Cache
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.layout import Variables
from zaya_jax.model.zaya import Logits, Outputs, Zaya, begin, block, finish, router_state

_MANY_BRANCHES = 256


def one_per_layer(config: ModelConfig, execution: Execution) -> bool:
    """Whether `call` takes one program a layer: if `execution.programs` says so, or "auto" and experts are many."""
    if execution.layout == "stacked" or execution.programs == "whole":
        return False
    return execution.programs == "layer" or config.num_layers * config.num_experts > _MANY_BRANCHES


def call(
    model: Zaya,
    variables: Variables,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array,
    cache: Cache | None = None,
    routes: jax.Array | None = None,
    logits: Logits = "all",
) -> Outputs:
    """`model.apply`, compiled. Not to be traced by `jax.jit`, `jax.grad` and the like; a given cache is used up."""
    arguments = (variables, tokens_BT, positions_BT, segments_BT, cache, routes)
    if one_per_layer(model.config, model.execution):
        return _by_layer(model, *arguments, logits=logits)
    return _whole(model, *arguments, logits=logits)


@functools.partial(jax.jit, static_argnames=("model", "logits"))
def _whole(model, variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits):
    return model.apply(variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits)


def _by_layer(model, variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits):
    config, execution = model.config, model.execution
    ends = {name: value for name, value in variables["params"].items() if name != "layers"}
    length_B = None if cache is None else cache.length_B
    stream, state, inputs = _begin(model, ends, tokens_BT, positions_BT, segments_BT, length_B)
    weights, layers, taken = _alike(variables["params"]["layers"]), [], []
    for layer, layer_type in enumerate(config.layer_types):
        w, balance = weights[layer], variables["balance"]["layers"][layer]
        entry = None if cache is None else cache.layers[layer]
        given = None if routes is None else routes[layer]
        run = _block if entry is None or entry.k_BSKH.size == 0 else _block_in_place
        stream, state, entry, routes_BT = run(
            config, execution, layer_type, w, balance["router"]["biases"], stream, state, inputs, entry, given
        )
        layers.append(entry)
        taken.append(routes_BT)
    out = _finish(model, ends, stream, inputs, tuple(taken), logits=logits)
    return out if cache is None else out.replace(cache=out.cache.replace(layers=tuple(layers)))


def _alike(layers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gives layer 0 the scale of a router state from below that the others have: 0, and one program serves it too."""
    first, last = layers[0], layers[-1]
    if len(layers) == 1:
        return layers
    none = jnp.zeros_like(last["router"]["state_scale"])
    return ({**first, "router": {**first["router"], "state_scale": none}}, *layers[1:])


@functools.partial(jax.jit, static_argnames="model")
def _begin(model: Zaya, ends: Any, tokens_BT, positions_BT, segments_BT, length_B):
    stream_BTD, inputs = begin(model.execution, ends, tokens_BT, positions_BT, segments_BT, length_B)
    return stream_BTD, router_state(model.config, stream_BTD), inputs


# An empty cache of no slots cannot be updated in place: JAX would warn of it.
_block = jax.jit(block, static_argnames=("config", "execution", "layer_type"))
_block_in_place = jax.jit(
    block, static_argnames=("config", "execution", "layer_type"), donate_argnames=("stream_BTD", "state_BTR", "cache")
)


@functools.partial(jax.jit, static_argnames=("model", "logits"))
def _finish(model: Zaya, ends: Any, stream_BTD, inputs, taken, logits: Logits):
    return finish(model.config, model.execution, ends, stream_BTD, inputs, (), jnp.stack(taken), logits)

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
from zaya_jax.model.zaya import Logits, Outputs, Zaya, begin, block, each_layer, finish, router_state

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
    """`model.apply`, compiled, for callers on the host: not to be traced by `jax.jit`, `jax.grad` and the like.

    A given cache may be used up: a program a layer writes it in place.
    """
    arguments = (variables, tokens_BT, positions_BT, segments_BT, cache, routes)
    if one_per_layer(model.config, model.execution):
        return _by_layer(model, *arguments, logits=logits)
    return _whole(model, *arguments, logits=logits)


@functools.partial(jax.jit, static_argnames=("model", "logits"))
def _whole(model, variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits):
    return model.apply(variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits)


def _by_layer(model, variables, tokens_BT, positions_BT, segments_BT, cache, routes, logits):
    config, params = model.config, variables["params"]
    ends = {name: value for name, value in params.items() if name != "layers"}
    length_B = None if cache is None else cache.length_B
    stream, state, inputs = _begin(model, ends, tokens_BT, positions_BT, segments_BT, length_B)

    def run(layer_type, w, biases, stream, state, inputs, entry, given):
        # A cache of no slots cannot be updated in place: JAX would warn of it.
        compiled = _block if entry is None or entry.k_BSKH.size == 0 else _block_in_place
        return compiled(config, model.execution, layer_type, w, biases, stream, state, inputs, entry, given)

    variables = {**variables, "params": {**params, "layers": _alike(params["layers"])}}
    stream, layers, taken = each_layer(config, variables, run, stream, state, inputs, cache, routes)
    out = _finish(model, ends, stream, inputs, taken, logits=logits)
    return out if cache is None else out.replace(cache=out.cache.replace(layers=layers))


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


_block = jax.jit(block, static_argnames=("config", "execution", "layer_type"))
_block_in_place = jax.jit(
    block, static_argnames=("config", "execution", "layer_type"), donate_argnames=("stream_BTD", "state_BTR", "cache")
)


@functools.partial(jax.jit, static_argnames=("model", "logits"))
def _finish(model: Zaya, ends: Any, stream_BTD, inputs, taken, logits: Logits):
    return finish(model.config, model.execution, ends, stream_BTD, inputs, (), jnp.stack(taken), logits)

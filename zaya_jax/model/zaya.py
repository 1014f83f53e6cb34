"""The model: embedding, blocks, tied head. One Flax module around pure functions.

`Zaya` declares every weight of the table and hands them to `forward`; nothing is hidden in it.
Source: ZAYA1-8B Technical Report (arXiv 2605.05365); the released weights' forward pass in transformers 5.23.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from zaya_jax.model.attention import attend
from zaya_jax.model.cache import Cache, LayerCache, Span, grow_cache, span
from zaya_jax.model.config import LayerType, ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.experts import apply_experts
from zaya_jax.model.layers import PRODUCT, dense, follows, rms_norm, take_rows
from zaya_jax.model.layout import Variables, initialize
from zaya_jax.model.residual import join
from zaya_jax.model.router import route
from zaya_jax.parallel import spread

Logits = Literal["all", "last", "none"]


@flax.struct.dataclass
class Outputs:
    """What a call returns.

    Attributes:
        logits: [B, T, V] for "all", [B, V] (of each row's last real token) for "last", None for "none"; exact type.
        hidden_BTD: the final norm's result, in the compute type.
        cache: the memory after the call, None if none was given.
        routes_LBT: the class each token took in each layer (E is the skip class), -1 for padding; int8, or int16 from
            127 experts on. Given back as `routes`, they replay these choices.
        router_counts_LC: how many real tokens took each class, int32; the last column is the skip class.
    """

    logits: jax.Array | None
    hidden_BTD: jax.Array
    cache: Cache | None
    routes_LBT: jax.Array
    router_counts_LC: jax.Array


@flax.struct.dataclass
class Inputs:
    """What every block reads of a call besides the stream."""

    positions_BT: jax.Array
    segments_BT: jax.Array
    follows_BT: jax.Array
    span: Span | None


class Zaya(nn.Module):
    """ZAYA1. `init(key, tokens, positions, segments)` draws variables, `apply(variables, ...)` computes.

    Variables are `{"params": ..., "balance": ...}` in the layout of `execution`; `balance` holds the routers' biases,
    which the loss does not train.
    """

    config: ModelConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array,
        cache: Cache | None = None,
        routes: jax.Array | None = None,
        logits: Logits = "all",
    ) -> Outputs:
        """Computes a call.

        Args:
            tokens_BT: token ids, int32.
            positions_BT: each token's position in its document, for the rotary embedding.
            segments_BT: each token's document; 0 is padding. A document sees nothing of its neighbours. With a cache,
                a row has one document, and its tokens are contiguous.
            cache: what came before, from `init_cache` or an earlier call; None for no memory at all.
            routes: `routes_LBT` of an earlier call to replay; -1 is routed live.
            logits: of which tokens.
        """
        return forward(
            self.config,
            self.execution,
            self._declare(),
            tokens_BT,
            positions_BT,
            segments_BT,
            cache=cache,
            routes=routes,
            logits=logits,
        )

    def _declare(self) -> Variables:
        names = ("embedding", "input_scale", "input_bias", "final_norm", "layers")
        if not self.is_initializing():
            params = {name: self.get_variable("params", name) for name in names}
            return {"params": params, "balance": {"layers": self.get_variable("balance", "layers")}}
        dtype = "float64" if self.execution.dtype == "float64" else "float32"
        drawn = initialize(self.config, self.execution.layout, self.make_rng("params"), dtype)
        params = {name: self.param(name, lambda _, name=name: drawn["params"][name]) for name in names}
        balance = self.variable("balance", "layers", lambda: drawn["balance"]["layers"])
        return {"params": params, "balance": {"layers": balance.value}}


def forward(
    config: ModelConfig,
    execution: Execution,
    variables: Variables,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array,
    *,
    cache: Cache | None = None,
    routes: jax.Array | None = None,
    logits: Logits = "all",
) -> Outputs:
    """The whole model as a function of its variables; see `Zaya.__call__`."""
    length_B = None if cache is None else cache.length_B
    stream_BTD, inputs = begin(execution, variables["params"], tokens_BT, positions_BT, segments_BT, length_B)
    run = _scanned if execution.layout == "stacked" else _unrolled
    stream_BTD, layers, routes_LBT = run(config, execution, variables, stream_BTD, inputs, cache, routes)
    return finish(config, execution, variables["params"], stream_BTD, inputs, layers, routes_LBT, logits)


def begin(
    execution: Execution, params, tokens_BT, positions_BT, segments_BT, length_B: jax.Array | None
) -> tuple[jax.Array, Inputs]:
    """What comes before the layers: the residual stream, (embedding + bias) * scale, and what every layer reads.

    `length_B` is how many tokens the cache has stored; None without one.
    """
    exact = execution.exact_dtype
    embedded_BTD = take_rows(params["embedding"], tokens_BT).astype(exact)
    stream_BTD = (embedded_BTD + params["input_bias"].astype(exact)) * params["input_scale"].astype(exact)
    stream_BTD = spread(execution.mesh, stream_BTD, columns=length_B is None)
    placed = None if length_B is None else span(segments_BT, length_B)
    return stream_BTD, Inputs(positions_BT, segments_BT, follows(segments_BT), placed)


def finish(
    config: ModelConfig,
    execution: Execution,
    params,
    stream_BTD: jax.Array,
    inputs: Inputs,
    layers: tuple[LayerCache, ...] | None,
    routes_LBT: jax.Array,
    logits: Logits,
) -> Outputs:
    """What comes behind the layers: the final norm, the head, the counts."""
    hidden_BTD = rms_norm(stream_BTD, params["final_norm"], config.norm_epsilon).astype(execution.compute_dtype)
    placed = inputs.span
    return Outputs(
        logits=_logits(execution, params, hidden_BTD, inputs.segments_BT, logits),
        hidden_BTD=hidden_BTD,
        cache=None if placed is None else Cache(layers, placed.length_B + placed.count_B),
        routes_LBT=routes_LBT.astype(jnp.int8 if config.num_experts < 127 else jnp.int16),
        router_counts_LC=_count(routes_LBT, config.num_router_classes),
    )


def _logits(execution: Execution, params, hidden_BTD, segments_BT, which: Logits) -> jax.Array | None:
    if which == "none":
        return None
    if which == "last":
        column = segments_BT.shape[1] - 1 - jnp.argmax((segments_BT != 0)[:, ::-1], axis=1)
        hidden_BTD = jnp.take_along_axis(hidden_BTD, column[:, None, None], axis=1)[:, 0]
    return dense(execution, hidden_BTD, params["embedding"])


def _count(routes_LBT: jax.Array, classes: int) -> jax.Array:
    return (routes_LBT[..., None] == jnp.arange(classes)).sum(axis=(1, 2), dtype=jnp.int32)


def block(
    config: ModelConfig,
    execution: Execution,
    layer_type: LayerType,
    w: Variables,
    biases_C: jax.Array,
    stream_BTD: jax.Array,
    state_BTR: jax.Array,
    inputs: Inputs,
    cache: LayerCache | None,
    given_BT: jax.Array | None,
) -> tuple[jax.Array, jax.Array, LayerCache | None, jax.Array]:
    """One layer: attention, then experts. Returns the stream, the router's state, the cache and the routes [B, T]."""
    dtype = execution.compute_dtype
    with jax.named_scope("attention"):
        x_BTD = rms_norm(stream_BTD, w["attention"]["norm"], config.norm_epsilon).astype(dtype)
        out_BTD, cache = attend(config, execution, layer_type, w["attention"], x_BTD, inputs, cache)
        stream_BTD = join(out_BTD, stream_BTD, w["attention"])
    with jax.named_scope("experts"):
        x_BTD = rms_norm(stream_BTD, w["experts"]["norm"], config.norm_epsilon).astype(dtype)
        routing = route(execution, config.norm_epsilon, w["router"], biases_C, x_BTD, state_BTR, given_BT)
        routes_BT = jnp.where(inputs.segments_BT != 0, routing.route_BT, -1)
        columns = inputs.span is None
        out_BTD = apply_experts(config, execution, w["experts"], x_BTD, routes_BT, routing.gate_BT, columns)
        stream_BTD = join(out_BTD, stream_BTD, w["experts"])
    return stream_BTD, routing.state_BTR, cache, routes_BT


def _remat(execution: Execution, function: Callable) -> Callable:
    if execution.remat == "none":
        return function
    dots = jax.checkpoint_policies.save_only_these_names(PRODUCT)
    return jax.checkpoint(function, policy=dots if execution.remat == "dots" else None)


def router_state(config: ModelConfig, stream_BTD: jax.Array) -> jax.Array:
    """What the first layer's router averages with: nothing, [B, T, R]."""
    return jnp.zeros((*stream_BTD.shape[:2], config.router_hidden_size), stream_BTD.dtype)


def each_layer(config: ModelConfig, variables: Variables, run: Callable, stream, state, inputs, cache, routes):
    """Unstacked layers, one after the other: `run` is `block` from its layer type on.

    Returns the stream, and of every layer its cache (or None) and its routes [B, T].
    """
    layers, taken = [], []
    for layer, layer_type in enumerate(config.layer_types):
        w = variables["params"]["layers"][layer]
        biases = variables["balance"]["layers"][layer]["router"]["biases"]
        entry = None if cache is None else cache.layers[layer]
        given = None if routes is None else routes[layer]
        stream, state, entry, routes_BT = run(layer_type, w, biases, stream, state, inputs, entry, given)
        layers.append(entry)
        taken.append(routes_BT)
    return stream, tuple(layers), tuple(taken)


def _unrolled(config, execution, variables, stream, inputs, cache, routes):
    """Layer after layer, each with its own arrays, in one program."""

    def run(layer_type, *arguments):
        return _remat(execution, functools.partial(block, config, execution, layer_type))(*arguments)

    state = router_state(config, stream)
    stream, layers, taken = each_layer(config, variables, run, stream, state, inputs, cache, routes)
    return stream, layers, jnp.stack(taken)


def _scanned(config, execution, variables, stream, inputs, cache, routes):
    """One period after the other, sliced out of the stacked weights. The cache is carried and updated in place."""
    period = config.period
    types = config.layer_types[:period]
    blocks = [
        (variables["params"]["layers"][f"block_{b}"], variables["balance"]["layers"][f"block_{b}"]["router"]["biases"])
        for b in range(period)
    ]
    periods = config.num_layers // period
    given = None if routes is None else routes.reshape(periods, period, *routes.shape[1:])

    def one_period(stream, state, blocks, entries, given):
        kept, taken = [], []
        for b, layer_type in enumerate(types):
            entry = None if entries is None else entries[b]
            w, biases = blocks[b]
            replay = None if given is None else given[b]
            stream, state, entry, routes_BT = block(
                config, execution, layer_type, w, biases, stream, state, inputs, entry, replay
            )
            kept.append(entry)
            taken.append(routes_BT)
        return stream, state, tuple(kept), jnp.stack(taken)

    run = _remat(execution, one_period)

    # A cache of capacity 0 is empty on entry and has its size on exit: the carry holds the latter.
    fresh = cache is not None and cache.layers[0].k_BSKH.shape[-3] == 0

    def step(carry, now):
        stream, state, layers = carry
        index, blocks, given = now
        entries = None if layers is None else tuple(_at(entry, index, fresh) for entry in layers)
        stream, state, entries, taken = run(stream, state, blocks, entries, given)
        if layers is not None:
            layers = jax.tree.map(lambda a, new: lax.dynamic_update_index_in_dim(a, new, index, 0), layers, entries)
        return (stream, state, layers), taken

    layers = cache.layers if cache is not None else None
    if fresh:
        layers = grow_cache(config, "stacked", cache, stream.shape[1]).layers
    start = (stream, router_state(config, stream), layers)
    (stream, _, layers), taken = lax.scan(step, start, (jnp.arange(periods), blocks, given))
    return stream, layers, taken.reshape(config.num_layers, *taken.shape[2:])


def _at(entry: LayerCache, index: jax.Array, fresh: bool) -> LayerCache:
    entry = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, index, keepdims=False), entry)
    return entry.replace(k_BSKH=entry.k_BSKH[:, :0], v_BSKH=entry.v_BSKH[:, :0]) if fresh else entry

"""The table of weights: one declaration for each, from which everything else is derived.

Shapes, initial values, logical axes (sharding), the optimizer's choice, and the names in both of the public
checkpoint layouts come from `weights(config)` and nowhere else. Arrays keep the orientation of the Hugging Face
files, `[out, in]`, so nothing is transposed on the way in.

Paths are written with slashes. `layers/...` stands once per layer, `experts/gate_up` and `experts/down` carry an
expert axis of their own. `layout.py` says how the table becomes a tree of arrays.

Names of the layouts: `{layer}` is the layer k; `{even}`, `{odd}`, `{next}` are 2k, 2k+1, 2k+2, the half-layers of the
legacy layout; `{expert}` is the expert. A legacy name at half-layer `{next}` = 2L belongs to the model itself.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from zaya_jax.model.config import ModelConfig

Init = Callable[[jax.Array, tuple[int, ...]], jax.Array]  # (key, shape) -> float32


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight, or for `layers/...` the same weight of every layer.

    Attributes:
        shape: without the layer axis; a weight of the experts has its expert axis first.
        axes: the logical name of each axis, for sharding.
        init: draws the initial float32 values of one layer (of one expert, where there are experts).
        update: who trains it: "muon" (matrices), "adamw" (the rest), "frozen" (nobody: the balancer owns it).
        native: its name in the layout of transformers and of the hub today.
        legacy: its name in the original half-layer layout.
        exact: stored in float32 whatever the parameters' type.
        first_layer: False where layer 0 has none.
        matrices: how many matrices of equal size lie below each other along `out`; Muon orthogonalises each.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Init
    update: Literal["muon", "adamw", "frozen"]
    native: str
    legacy: str
    exact: bool = False
    first_layer: bool = True
    matrices: int = 1

    @property
    def per_expert(self) -> bool:
        """Whether the first axis counts experts."""
        return self.axes[0] == "experts"


def weights(config: ModelConfig) -> dict[str, Weight]:
    """The table: path -> weight. Paths under `layers/` stand once per layer; `balance/` is not trained by the loss."""
    return {
        **_model_weights(config),
        **_attention_weights(config),
        **_router_weights(config),
        **_expert_weights(config),
    }


def is_layered(path: str) -> bool:
    """Whether a path stands once per layer."""
    return path.split("/")[-3:-2] == ["layers"]


def weight_key(key: jax.Array, path: str, layer: int | jax.Array = 0, expert: int | jax.Array = 0) -> jax.Array:
    """The random key of one weight of one layer of one expert: the same in every layout and on every mesh."""
    for part in (zlib.crc32(path.encode()), layer, expert):
        key = jax.random.fold_in(key, part)
    return key


def count_parameters(config: ModelConfig) -> int:
    """All trained parameters, as they are counted in a checkpoint: no balancing biases, no phantom of layer 0."""
    return sum(weight_copies(config, w, path) * math.prod(w.shape) for path, w in _trained(config))


def count_active_parameters(config: ModelConfig) -> int:
    """Parameters that one token meets outside of the embedding: one expert of each layer, everything else."""

    def size(path: str, w: Weight) -> int:
        shape = w.shape[1:] if w.per_expert else w.shape
        return weight_copies(config, w, path) * math.prod(shape)

    return sum(size(path, w) for path, w in _trained(config) if path != "params/embedding")


def weight_copies(config: ModelConfig, weight: Weight, path: str) -> int:
    """How many layers have this weight (1 for a weight of the model itself)."""
    if not is_layered(path):
        return 1
    return config.num_layers - (0 if weight.first_layer else 1)


def _trained(config: ModelConfig):
    return [(path, w) for path, w in weights(config).items() if w.update != "frozen"]


def _normal(std: float) -> Init:
    return lambda key, shape: std * jax.random.normal(key, shape, jnp.float32)


def _fan_in(shape: tuple[int, ...], gain: float = 1.0) -> Init:
    """Normal with variance gain^2 / fan-in: 0.022 at the 2048 inputs of ZAYA1-8B, and right at any other width."""
    return _normal(gain / math.sqrt(shape[-1]))


def _constant(value: float) -> Init:
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


_ZEROS, _ONES = _constant(0.0), _constant(1.0)


def _skip_bias(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros, and -1 for the skip class: below any probability, so that it is never chosen (as released)."""
    return jnp.zeros(shape, jnp.float32).at[-1].set(-1.0)


def _model_weights(c: ModelConfig) -> dict[str, Weight]:
    def vector(init, native, legacy):
        return Weight((c.hidden_size,), ("embed",), init, "adamw", native, legacy)

    return {
        "params/embedding": Weight(
            shape=(c.vocab_size, c.hidden_size),
            axes=("vocab", "embed"),
            init=_fan_in((c.hidden_size,)),
            update="adamw",
            native="model.embed_tokens.weight",
            legacy="model.embed_tokens.weight",
        ),
        "params/input_scale": vector(
            _ONES, "model.input_hidden_states_scale", "model.layers.0.res_scale.hidden_states_scale"
        ),
        "params/input_bias": vector(
            _ZEROS, "model.input_hidden_states_bias", "model.layers.0.res_scale.hidden_states_bias"
        ),
        "params/final_norm": vector(_ONES, "model.norm.weight", "model.final_norm.weight"),
    }


def _residual_weights(c: ModelConfig, room: str, native: str, legacy: str) -> dict[str, Weight]:
    """The two affine maps of one sub-block's exit: of its output and of the stream (report, eq. 6)."""
    fields = {
        "output_scale": ("hidden_states_scale", _ONES),
        "output_bias": ("hidden_states_bias", _ZEROS),
        "stream_scale": ("residual_scale", _ONES),
        "stream_bias": ("residual_bias", _ZEROS),
    }
    return {
        f"params/layers/{room}/{ours}": Weight(
            (c.hidden_size,), ("embed",), init, "adamw", f"{native}.{theirs}", f"{legacy}.{theirs}"
        )
        for ours, (theirs, init) in fields.items()
    }


def _attention_weights(c: ModelConfig) -> dict[str, Weight]:
    D, H, U = c.hidden_size, c.head_dim, c.conv_channels
    q_size, kv_size, half = c.num_query_heads * H, c.num_kv_heads * H, c.delayed_size
    native, legacy = "model.layers.{layer}.self_attn", "model.layers.{even}.self_attn"
    exit_gain = 1 / math.sqrt(2 * c.num_layers)

    def matrix(out: int, axis: str, theirs: str, old: str) -> Weight:
        return Weight(
            (out, D),
            (axis, "embed"),
            _fan_in((D,)),
            "muon",
            f"{native}.qkv_proj.{theirs}.weight",
            f"{legacy}.qkv.{old}.weight",
        )

    def conv(shape, axes, fan_in: int, theirs: str, old: str) -> Weight:
        std = 1 / math.sqrt(3 * fan_in)
        return Weight(shape, axes, _normal(std), "adamw", f"{native}.qkv_proj.{theirs}", f"{legacy}.qkv.conv_qk.{old}")

    table = {
        "norm": Weight(
            (D,),
            ("embed",),
            _ONES,
            "adamw",
            "model.layers.{layer}.input_layernorm.weight",
            "model.layers.{even}.input_norm.weight",
        ),
        "q_proj": matrix(q_size, "q_heads", "q_proj", "linear_q"),
        "k_proj": matrix(kv_size, "kv_heads", "k_proj", "linear_k"),
        "v_current": matrix(half, "kv_heads", "v_proj_current", "val_proj1"),
        "v_delayed": matrix(half, "kv_heads", "v_proj_delayed", "val_proj2"),
        "depthwise_weight": conv((U, 1, 2), ("conv", "one", "tap"), 2, "conv_qk_depthwise.weight", "0.weight"),
        "depthwise_bias": conv((U,), ("conv",), 2, "conv_qk_depthwise.bias", "0.bias"),
        "grouped_weight": conv((U, H, 2), ("conv", "head", "tap"), 2 * H, "conv_qk_grouped.weight", "1.weight"),
        "grouped_bias": conv((U,), ("conv",), 2 * H, "conv_qk_grouped.bias", "1.bias"),
        "temperature": Weight(
            (c.num_kv_heads,), ("kv_heads",), _ONES, "adamw", f"{native}.qk_norm.temp", f"{legacy}.qkv.temp"
        ),
        "o_proj": Weight(
            (D, q_size),
            ("embed", "q_heads"),
            _fan_in((q_size,), exit_gain),
            "muon",
            f"{native}.o_proj.weight",
            f"{legacy}.o_proj.weight",
        ),
    }
    residual = _residual_weights(
        c, "attention", "model.layers.{layer}.post_attention_residual_scale", "model.layers.{odd}.res_scale"
    )
    return {f"params/layers/attention/{name}": w for name, w in table.items()} | residual


def _router_weights(c: ModelConfig) -> dict[str, Weight]:
    D, R, classes = c.hidden_size, c.router_hidden_size, c.num_router_classes
    native, legacy = "model.layers.{layer}.mlp.gate", "model.layers.{odd}.zaya_block.router"

    def weight(shape, axes, init, update, theirs, old, **more) -> Weight:
        return Weight(shape, axes, init, update, f"{native}.{theirs}", f"{legacy}.{old}", **more)

    inner = _fan_in((R,))
    square, vector = ((R, R), ("router_out", "router")), ((R,), ("router",))
    params = {
        "down_weight": weight(
            (R, D), ("router", "embed"), _fan_in((D,)), "muon", "down_proj.weight", "down_proj.weight"
        ),
        "down_bias": weight(*vector, _ZEROS, "adamw", "down_proj.bias", "down_proj.bias"),
        "state_scale": weight(*vector, _ONES, "adamw", "router_states_scale", "router_states_scale", first_layer=False),
        "norm": weight(*vector, _ONES, "adamw", "router_mlp.norm.weight", "rmsnorm_eda.weight"),
        "fc1_weight": weight(*square, inner, "muon", "router_mlp.fc1.weight", "router_mlp.0.weight"),
        "fc1_bias": weight(*vector, _ZEROS, "adamw", "router_mlp.fc1.bias", "router_mlp.0.bias"),
        "fc2_weight": weight(*square, inner, "muon", "router_mlp.fc2.weight", "router_mlp.2.weight"),
        "fc2_bias": weight(*vector, _ZEROS, "adamw", "router_mlp.fc2.bias", "router_mlp.2.bias"),
        "out_weight": weight(
            (classes, R),
            ("router_classes", "router"),
            inner,
            "muon",
            "router_mlp.out_proj.weight",
            "router_mlp.4.weight",
        ),
    }
    biases = weight(
        (classes,), ("router_classes",), _skip_bias, "frozen", "balancing_biases", "balancing_biases", exact=True
    )
    table = {f"params/layers/router/{name}": w for name, w in params.items()}
    return table | {"balance/layers/router/biases": biases}


def _expert_weights(c: ModelConfig) -> dict[str, Weight]:
    D, E, F = c.hidden_size, c.num_experts, c.expert_hidden_size
    native, legacy = "model.layers.{layer}.mlp.experts", "model.layers.{odd}.zaya_block.experts.local_experts.{expert}"
    table = {
        "norm": Weight(
            (D,),
            ("embed",),
            _ONES,
            "adamw",
            "model.layers.{layer}.post_attention_layernorm.weight",
            "model.layers.{odd}.input_norm.weight",
        ),
        "gate_up": Weight(
            (E, 2 * F, D),
            ("experts", "expert_hidden", "embed"),
            _fan_in((D,)),
            "muon",
            f"{native}.gate_up_proj",
            f"{legacy}.linear_fc1.weight",
            matrices=2,
        ),
        "down": Weight(
            (E, D, F),
            ("experts", "embed", "expert_hidden"),
            _fan_in((F,), 1 / math.sqrt(2 * c.num_layers)),
            "muon",
            f"{native}.down_proj",
            f"{legacy}.linear_fc2.weight",
        ),
    }
    residual = _residual_weights(
        c, "experts", "model.layers.{layer}.post_mlp_residual_scale", "model.layers.{next}.res_scale"
    )
    return {f"params/layers/experts/{name}": w for name, w in table.items()} | residual

"""The public layouts, spelled out for a model of two layers and three experts: an oracle beside the weight table.

Written from the documentation of the checkpoints, not from `zaya_jax.model.weights`.
"""

import json
import re

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from zaya_jax.model.config import ModelConfig, Rope

CONFIG = ModelConfig(
    vocab_size=48,
    hidden_size=32,
    layer_types=("full", "full"),
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=8,
    num_experts=3,
    expert_hidden_size=16,
    router_hidden_size=8,
    max_position_embeddings=64,
    full_rope=Rope(5e6),
)

NATIVE_JSON = {
    "architectures": ["ZayaForCausalLM"],
    "model_type": "zaya",
    "dtype": "bfloat16",
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "sliding_window": None,
    "attention_bias": False,
    "lm_head_bias": False,
    "moe_intermediate_size": 16,
    "num_experts": 3,
    "num_experts_per_tok": 1,
    "router_hidden_size": 8,
    "cca_time0": 2,
    "cca_time1": 2,
    "layer_types": ["hybrid", "hybrid"],
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 106,
    "rope_parameters": {
        "hybrid": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
        "hybrid_sliding": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "rope_type": "default",
    },
}

LEGACY_JSON = {
    "activation_func": "swiglu",
    "add_bias_linear": False,
    "architectures": ["ZayaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 2,
    "cca": True,
    "dtype": "bfloat16",
    "eos_token_id": 106,
    "ffn_hidden_size": 32,
    "gated_linear_unit": True,
    "hidden_size": 32,
    "head_dim": 8,
    "kv_channels": 8,
    "lm_head_bias": False,
    "mamba_cache_dtype": "float32",
    "max_position_embeddings": 64,
    "model_type": "zaya",
    "moe_router_topk": 1,
    "norm_epsilon": 1e-05,
    "normalization": "RMSNorm",
    "num_attention_heads": 4,
    "num_experts": 3,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_query_groups": 2,
    "pad_token_id": 0,
    "partial_rotary_factor": 0.5,
    "residual_in_fp32": True,
    "rope_scaling": False,
    "rope_theta": 5000000,
    "scale_residual_merge": True,
    "sliding_window": None,
    "vocab_size": 48,
    "zaya_mlp_expansion": 8,
    "zaya_use_eda": True,
    "zaya_use_mod": True,
}

# ZAYA1-base: one entry a half-layer, more of them than needed, and scalars that mean something else.
LIST_JSON = {
    "architectures": ["ZayaForCausalLM"],
    "model_type": "zaya",
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "hidden_size": 32,
    "vocab_size": 48,
    "num_hidden_layers": 120,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "kv_channels": 8,
    "norm_epsilon": 1e-05,
    "rope_theta": 1000000,
    "partial_rotary_factor": 0.5,
    "rope_scaling": False,
    "max_position_embeddings": 64,
    "zaya_layers": ["a", 3, "a", 3],
    "cca_num_q_heads": [4, 0, 4, 0],
    "num_query_groups_list": [2, 0, 2, 0],
    "ffn_hidden_size_list": [0, 32, 0, 32, 0, 32, 0, 32],
    "zaya_mlp_expansion": [0, 8, 0, 8],
}

NATIVE = """
model.embed_tokens.weight 48 32
model.input_hidden_states_scale 32
model.input_hidden_states_bias 32
model.norm.weight 32
model.layers.0.input_layernorm.weight 32
model.layers.0.self_attn.qkv_proj.q_proj.weight 32 32
model.layers.0.self_attn.qkv_proj.k_proj.weight 16 32
model.layers.0.self_attn.qkv_proj.v_proj_current.weight 8 32
model.layers.0.self_attn.qkv_proj.v_proj_delayed.weight 8 32
model.layers.0.self_attn.qkv_proj.conv_qk_depthwise.weight 48 1 2
model.layers.0.self_attn.qkv_proj.conv_qk_depthwise.bias 48
model.layers.0.self_attn.qkv_proj.conv_qk_grouped.weight 48 8 2
model.layers.0.self_attn.qkv_proj.conv_qk_grouped.bias 48
model.layers.0.self_attn.qk_norm.temp 2
model.layers.0.self_attn.o_proj.weight 32 32
model.layers.0.post_attention_residual_scale.hidden_states_scale 32
model.layers.0.post_attention_residual_scale.hidden_states_bias 32
model.layers.0.post_attention_residual_scale.residual_scale 32
model.layers.0.post_attention_residual_scale.residual_bias 32
model.layers.0.post_attention_layernorm.weight 32
model.layers.0.mlp.gate.down_proj.weight 8 32
model.layers.0.mlp.gate.down_proj.bias 8
model.layers.0.mlp.gate.router_mlp.norm.weight 8
model.layers.0.mlp.gate.router_mlp.fc1.weight 8 8
model.layers.0.mlp.gate.router_mlp.fc1.bias 8
model.layers.0.mlp.gate.router_mlp.fc2.weight 8 8
model.layers.0.mlp.gate.router_mlp.fc2.bias 8
model.layers.0.mlp.gate.router_mlp.out_proj.weight 4 8
model.layers.0.mlp.gate.balancing_biases 4
model.layers.0.mlp.experts.gate_up_proj 3 32 32
model.layers.0.mlp.experts.down_proj 3 32 16
model.layers.0.post_mlp_residual_scale.hidden_states_scale 32
model.layers.0.post_mlp_residual_scale.hidden_states_bias 32
model.layers.0.post_mlp_residual_scale.residual_scale 32
model.layers.0.post_mlp_residual_scale.residual_bias 32
model.layers.1.input_layernorm.weight 32
model.layers.1.self_attn.qkv_proj.q_proj.weight 32 32
model.layers.1.self_attn.qkv_proj.k_proj.weight 16 32
model.layers.1.self_attn.qkv_proj.v_proj_current.weight 8 32
model.layers.1.self_attn.qkv_proj.v_proj_delayed.weight 8 32
model.layers.1.self_attn.qkv_proj.conv_qk_depthwise.weight 48 1 2
model.layers.1.self_attn.qkv_proj.conv_qk_depthwise.bias 48
model.layers.1.self_attn.qkv_proj.conv_qk_grouped.weight 48 8 2
model.layers.1.self_attn.qkv_proj.conv_qk_grouped.bias 48
model.layers.1.self_attn.qk_norm.temp 2
model.layers.1.self_attn.o_proj.weight 32 32
model.layers.1.post_attention_residual_scale.hidden_states_scale 32
model.layers.1.post_attention_residual_scale.hidden_states_bias 32
model.layers.1.post_attention_residual_scale.residual_scale 32
model.layers.1.post_attention_residual_scale.residual_bias 32
model.layers.1.post_attention_layernorm.weight 32
model.layers.1.mlp.gate.down_proj.weight 8 32
model.layers.1.mlp.gate.down_proj.bias 8
model.layers.1.mlp.gate.router_states_scale 8
model.layers.1.mlp.gate.router_mlp.norm.weight 8
model.layers.1.mlp.gate.router_mlp.fc1.weight 8 8
model.layers.1.mlp.gate.router_mlp.fc1.bias 8
model.layers.1.mlp.gate.router_mlp.fc2.weight 8 8
model.layers.1.mlp.gate.router_mlp.fc2.bias 8
model.layers.1.mlp.gate.router_mlp.out_proj.weight 4 8
model.layers.1.mlp.gate.balancing_biases 4
model.layers.1.mlp.experts.gate_up_proj 3 32 32
model.layers.1.mlp.experts.down_proj 3 32 16
model.layers.1.post_mlp_residual_scale.hidden_states_scale 32
model.layers.1.post_mlp_residual_scale.hidden_states_bias 32
model.layers.1.post_mlp_residual_scale.residual_scale 32
model.layers.1.post_mlp_residual_scale.residual_bias 32
"""

LEGACY = """
model.embed_tokens.weight 48 32
model.final_norm.weight 32
model.res_scale.hidden_states_scale 32
model.res_scale.hidden_states_bias 32
model.res_scale.residual_scale 32
model.res_scale.residual_bias 32
model.layers.0.input_norm.weight 32
model.layers.0.res_scale.hidden_states_scale 32
model.layers.0.res_scale.hidden_states_bias 32
model.layers.0.self_attn.qkv.linear_q.weight 32 32
model.layers.0.self_attn.qkv.linear_k.weight 16 32
model.layers.0.self_attn.qkv.val_proj1.weight 8 32
model.layers.0.self_attn.qkv.val_proj2.weight 8 32
model.layers.0.self_attn.qkv.conv_qk.0.weight 48 1 2
model.layers.0.self_attn.qkv.conv_qk.0.bias 48
model.layers.0.self_attn.qkv.conv_qk.1.weight 48 8 2
model.layers.0.self_attn.qkv.conv_qk.1.bias 48
model.layers.0.self_attn.qkv.temp 2
model.layers.0.self_attn.o_proj.weight 32 32
model.layers.1.input_norm.weight 32
model.layers.1.res_scale.hidden_states_scale 32
model.layers.1.res_scale.hidden_states_bias 32
model.layers.1.res_scale.residual_scale 32
model.layers.1.res_scale.residual_bias 32
model.layers.1.zaya_block.router.down_proj.weight 8 32
model.layers.1.zaya_block.router.down_proj.bias 8
model.layers.1.zaya_block.router.rmsnorm_eda.weight 8
model.layers.1.zaya_block.router.router_mlp.0.weight 8 8
model.layers.1.zaya_block.router.router_mlp.0.bias 8
model.layers.1.zaya_block.router.router_mlp.2.weight 8 8
model.layers.1.zaya_block.router.router_mlp.2.bias 8
model.layers.1.zaya_block.router.router_mlp.4.weight 4 8
model.layers.1.zaya_block.router.balancing_biases 4
model.layers.1.zaya_block.experts.local_experts.0.linear_fc1.weight 32 32
model.layers.1.zaya_block.experts.local_experts.0.linear_fc2.weight 32 16
model.layers.1.zaya_block.experts.local_experts.1.linear_fc1.weight 32 32
model.layers.1.zaya_block.experts.local_experts.1.linear_fc2.weight 32 16
model.layers.1.zaya_block.experts.local_experts.2.linear_fc1.weight 32 32
model.layers.1.zaya_block.experts.local_experts.2.linear_fc2.weight 32 16
model.layers.2.input_norm.weight 32
model.layers.2.res_scale.hidden_states_scale 32
model.layers.2.res_scale.hidden_states_bias 32
model.layers.2.res_scale.residual_scale 32
model.layers.2.res_scale.residual_bias 32
model.layers.2.self_attn.qkv.linear_q.weight 32 32
model.layers.2.self_attn.qkv.linear_k.weight 16 32
model.layers.2.self_attn.qkv.val_proj1.weight 8 32
model.layers.2.self_attn.qkv.val_proj2.weight 8 32
model.layers.2.self_attn.qkv.conv_qk.0.weight 48 1 2
model.layers.2.self_attn.qkv.conv_qk.0.bias 48
model.layers.2.self_attn.qkv.conv_qk.1.weight 48 8 2
model.layers.2.self_attn.qkv.conv_qk.1.bias 48
model.layers.2.self_attn.qkv.temp 2
model.layers.2.self_attn.o_proj.weight 32 32
model.layers.3.input_norm.weight 32
model.layers.3.res_scale.hidden_states_scale 32
model.layers.3.res_scale.hidden_states_bias 32
model.layers.3.res_scale.residual_scale 32
model.layers.3.res_scale.residual_bias 32
model.layers.3.zaya_block.router.down_proj.weight 8 32
model.layers.3.zaya_block.router.down_proj.bias 8
model.layers.3.zaya_block.router.rmsnorm_eda.weight 8
model.layers.3.zaya_block.router.router_states_scale 8
model.layers.3.zaya_block.router.router_mlp.0.weight 8 8
model.layers.3.zaya_block.router.router_mlp.0.bias 8
model.layers.3.zaya_block.router.router_mlp.2.weight 8 8
model.layers.3.zaya_block.router.router_mlp.2.bias 8
model.layers.3.zaya_block.router.router_mlp.4.weight 4 8
model.layers.3.zaya_block.router.balancing_biases 4
model.layers.3.zaya_block.experts.local_experts.0.linear_fc1.weight 32 32
model.layers.3.zaya_block.experts.local_experts.0.linear_fc2.weight 32 16
model.layers.3.zaya_block.experts.local_experts.1.linear_fc1.weight 32 32
model.layers.3.zaya_block.experts.local_experts.1.linear_fc2.weight 32 16
model.layers.3.zaya_block.experts.local_experts.2.linear_fc1.weight 32 32
model.layers.3.zaya_block.experts.local_experts.2.linear_fc2.weight 32 16
"""


def shapes(listing):
    """{name: shape} of NATIVE or LEGACY."""
    rows = [line.split() for line in listing.strip().splitlines()]
    return {name: tuple(map(int, sizes)) for name, *sizes in rows}


def native_tensors(seed=0, dtype=ml_dtypes.bfloat16):
    """Random tensors in the native layout; router biases in float32, the skip class out of reach."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes(NATIVE).items()}
    for name in tensors:
        if name.endswith("balancing_biases"):
            tensors[name] = np.array([0.25, -0.125, 0.0625, -1.0], np.float32)
    return tensors


_LAYER = r"model\.layers\.(\d+)\."
_INNER = {
    "self_attn.qkv_proj.q_proj": (0, "self_attn.qkv.linear_q"),
    "self_attn.qkv_proj.k_proj": (0, "self_attn.qkv.linear_k"),
    "self_attn.qkv_proj.v_proj_current": (0, "self_attn.qkv.val_proj1"),
    "self_attn.qkv_proj.v_proj_delayed": (0, "self_attn.qkv.val_proj2"),
    "self_attn.qkv_proj.conv_qk_depthwise": (0, "self_attn.qkv.conv_qk.0"),
    "self_attn.qkv_proj.conv_qk_grouped": (0, "self_attn.qkv.conv_qk.1"),
    "self_attn.qk_norm.temp": (0, "self_attn.qkv.temp"),
    "self_attn.o_proj": (0, "self_attn.o_proj"),
    "input_layernorm": (0, "input_norm"),
    "post_attention_layernorm": (1, "input_norm"),
    "post_attention_residual_scale": (1, "res_scale"),
    "post_mlp_residual_scale": (2, "res_scale"),
    "mlp.gate.down_proj": (1, "zaya_block.router.down_proj"),
    "mlp.gate.router_states_scale": (1, "zaya_block.router.router_states_scale"),
    "mlp.gate.balancing_biases": (1, "zaya_block.router.balancing_biases"),
    "mlp.gate.router_mlp.norm": (1, "zaya_block.router.rmsnorm_eda"),
    "mlp.gate.router_mlp.fc1": (1, "zaya_block.router.router_mlp.0"),
    "mlp.gate.router_mlp.fc2": (1, "zaya_block.router.router_mlp.2"),
    "mlp.gate.router_mlp.out_proj": (1, "zaya_block.router.router_mlp.4"),
}
_MODEL = {
    "model.embed_tokens.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.final_norm.weight",
    "model.input_hidden_states_scale": "model.layers.0.res_scale.hidden_states_scale",
    "model.input_hidden_states_bias": "model.layers.0.res_scale.hidden_states_bias",
}


def legacy_tensors(native):
    """The same tensors in the legacy layout."""
    tensors = {}
    for name, value in native.items():
        if ".experts." in name:
            layer, part = re.fullmatch(_LAYER + r"mlp\.experts\.(\w+)", name).groups()
            fc = {"gate_up_proj": "linear_fc1", "down_proj": "linear_fc2"}[part]
            room = f"model.layers.{2 * int(layer) + 1}.zaya_block.experts.local_experts"
            tensors |= {f"{room}.{expert}.{fc}.weight": matrix for expert, matrix in enumerate(value)}
        else:
            tensors[_legacy_name(name)] = value
    return tensors


def _legacy_name(name):
    if name in _MODEL:
        return _MODEL[name]
    layer, inner = re.fullmatch(_LAYER + "(.+)", name).groups()
    stem, field = (inner, "") if inner in _INNER else inner.rsplit(".", 1)
    half, old = _INNER[stem]
    name = ".".join(part for part in (f"model.layers.{2 * int(layer) + half}", old, field) if part)
    return name.replace("model.layers.4.res_scale", "model.res_scale")


def write(directory, tensors, config=None, *, shards=1):
    """Writes a checkpoint with the `safetensors` package, as the Hub has it."""
    directory.mkdir(parents=True, exist_ok=True)
    legacy = any("zaya_block" in name for name in tensors)
    (directory / "config.json").write_text(json.dumps(config or (LEGACY_JSON if legacy else NATIVE_JSON)))
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return directory
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: np.ascontiguousarray(tensors[name]) for name in names[shard::shards]}
        save_file(part, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def pick(tensors, path, layer=0, expert=None):
    """The tensor of the native layout that holds a weight of the table."""
    name = _PATHS[path].format(layer=layer)
    return tensors[name] if expert is None else tensors[name][expert]


_PATHS = {
    "params/embedding": "model.embed_tokens.weight",
    "params/input_scale": "model.input_hidden_states_scale",
    "params/input_bias": "model.input_hidden_states_bias",
    "params/final_norm": "model.norm.weight",
    "params/layers/attention/norm": "model.layers.{layer}.input_layernorm.weight",
    "params/layers/attention/q_proj": "model.layers.{layer}.self_attn.qkv_proj.q_proj.weight",
    "params/layers/attention/k_proj": "model.layers.{layer}.self_attn.qkv_proj.k_proj.weight",
    "params/layers/attention/v_current": "model.layers.{layer}.self_attn.qkv_proj.v_proj_current.weight",
    "params/layers/attention/v_delayed": "model.layers.{layer}.self_attn.qkv_proj.v_proj_delayed.weight",
    "params/layers/attention/depthwise_weight": "model.layers.{layer}.self_attn.qkv_proj.conv_qk_depthwise.weight",
    "params/layers/attention/depthwise_bias": "model.layers.{layer}.self_attn.qkv_proj.conv_qk_depthwise.bias",
    "params/layers/attention/grouped_weight": "model.layers.{layer}.self_attn.qkv_proj.conv_qk_grouped.weight",
    "params/layers/attention/grouped_bias": "model.layers.{layer}.self_attn.qkv_proj.conv_qk_grouped.bias",
    "params/layers/attention/temperature": "model.layers.{layer}.self_attn.qk_norm.temp",
    "params/layers/attention/o_proj": "model.layers.{layer}.self_attn.o_proj.weight",
    "params/layers/attention/output_scale": "model.layers.{layer}.post_attention_residual_scale.hidden_states_scale",
    "params/layers/attention/output_bias": "model.layers.{layer}.post_attention_residual_scale.hidden_states_bias",
    "params/layers/attention/stream_scale": "model.layers.{layer}.post_attention_residual_scale.residual_scale",
    "params/layers/attention/stream_bias": "model.layers.{layer}.post_attention_residual_scale.residual_bias",
    "params/layers/router/down_weight": "model.layers.{layer}.mlp.gate.down_proj.weight",
    "params/layers/router/down_bias": "model.layers.{layer}.mlp.gate.down_proj.bias",
    "params/layers/router/state_scale": "model.layers.{layer}.mlp.gate.router_states_scale",
    "params/layers/router/norm": "model.layers.{layer}.mlp.gate.router_mlp.norm.weight",
    "params/layers/router/fc1_weight": "model.layers.{layer}.mlp.gate.router_mlp.fc1.weight",
    "params/layers/router/fc1_bias": "model.layers.{layer}.mlp.gate.router_mlp.fc1.bias",
    "params/layers/router/fc2_weight": "model.layers.{layer}.mlp.gate.router_mlp.fc2.weight",
    "params/layers/router/fc2_bias": "model.layers.{layer}.mlp.gate.router_mlp.fc2.bias",
    "params/layers/router/out_weight": "model.layers.{layer}.mlp.gate.router_mlp.out_proj.weight",
    "balance/layers/router/biases": "model.layers.{layer}.mlp.gate.balancing_biases",
    "params/layers/experts/norm": "model.layers.{layer}.post_attention_layernorm.weight",
    "params/layers/experts/gate_up": "model.layers.{layer}.mlp.experts.gate_up_proj",
    "params/layers/experts/down": "model.layers.{layer}.mlp.experts.down_proj",
    "params/layers/experts/output_scale": "model.layers.{layer}.post_mlp_residual_scale.hidden_states_scale",
    "params/layers/experts/output_bias": "model.layers.{layer}.post_mlp_residual_scale.hidden_states_bias",
    "params/layers/experts/stream_scale": "model.layers.{layer}.post_mlp_residual_scale.residual_scale",
    "params/layers/experts/stream_bias": "model.layers.{layer}.post_mlp_residual_scale.residual_bias",
}

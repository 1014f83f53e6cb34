"""`config.json` written, in both schemas, and `generation_config.json`."""

from __future__ import annotations

from typing import Any

from zaya_jax.checkpoint.config_json import SpecialTokens
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig


def native_config(config: ModelConfig, tokens: SpecialTokens, dtype: str) -> dict[str, Any]:
    """The `config.json` that transformers 5.23 reads as `ZayaConfig`. `dtype`: "bfloat16" or "float32"."""
    ropes = {"hybrid": config.full_rope, "hybrid_sliding": config.sliding_rope}
    return {
        "architectures": ["ZayaForCausalLM"],
        "model_type": "zaya",
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "layer_types": ["hybrid_sliding" if kind == "sliding" else "hybrid" for kind in config.layer_types],
        "sliding_window": config.sliding_window,
        "num_attention_heads": config.num_query_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "cca_time0": 2,
        "cca_time1": 2,
        "num_experts": config.num_experts,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": config.expert_hidden_size,
        "router_hidden_size": config.router_hidden_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": {
            name: {"rope_type": "default", "rope_theta": rope.theta, "partial_rotary_factor": rope.fraction}
            for name, rope in ropes.items()
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "lm_head_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        **_both_schemas(config, tokens),
    }


def legacy_config(config: ModelConfig, tokens: SpecialTokens, dtype: str) -> dict[str, Any]:
    """The scalar legacy `config.json`, as of ZAYA1-8B-legacy; with `swa_layers` where layers have a window.

    Raises:
        UserError: the schema has no words for this model (two rotary fractions).
    """
    sliding = "sliding" in config.layer_types
    if sliding and config.sliding_rope.fraction != config.full_rope.fraction:
        found = f"{config.full_rope.fraction} and {config.sliding_rope.fraction}"
        raise mistake("the legacy layout has one rotary fraction", where="layout", found=found, fix="write native")
    windows = {}
    if sliding:
        before = {"sliding": (config.sliding_window - 1, 0), "full": (0, 0)}  # without the current token
        windows["swa_layers"] = [size for kind in config.layer_types for size in before[kind]]
        windows["swa_rotary_base"] = config.sliding_rope.theta
    return {
        "architectures": ["ZayaForCausalLM"],
        "model_type": "zaya",
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": 2 * config.num_layers,
        "num_attention_heads": config.num_query_heads,
        "cca_num_q_heads": config.num_query_heads,
        "num_key_value_heads": config.num_kv_heads,
        "num_query_groups": config.num_kv_heads,
        "head_dim": config.head_dim,
        "kv_channels": config.head_dim,
        "ffn_hidden_size": 2 * config.expert_hidden_size,
        "num_experts": config.num_experts,
        "moe_router_topk": 1,
        "zaya_mlp_expansion": config.router_hidden_size,
        "norm_epsilon": config.norm_epsilon,
        "normalization": "RMSNorm",
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.full_rope.theta,
        "partial_rotary_factor": config.full_rope.fraction,
        "rope_scaling": False,
        "sliding_window": None,
        **windows,
        "activation_func": "swiglu",
        "gated_linear_unit": True,
        "add_bias_linear": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "lm_head_bias": False,
        "tie_word_embeddings": True,
        "cca": True,
        "cca_time0": 2,
        "cca_time1": 2,
        "clamp_temp": False,
        "residual_in_fp32": True,
        "scale_residual_merge": True,
        "zaya_high_prec": True,
        "zaya_use_eda": True,
        "zaya_use_mod": True,
        "use_cache": True,
        **_both_schemas(config, tokens),
    }


def special_token_ids(tokens: SpecialTokens) -> dict[str, Any]:
    """The three keys as Hugging Face writes them."""
    eos = tokens.eos[0] if len(tokens.eos) == 1 else list(tokens.eos) or None
    return {"bos_token_id": tokens.bos, "eos_token_id": eos, "pad_token_id": tokens.pad}


def _both_schemas(config: ModelConfig, tokens: SpecialTokens) -> dict[str, Any]:
    skip = {} if config.skip_output == "zero" else {"skip_output": config.skip_output}
    return {**special_token_ids(tokens), **skip}

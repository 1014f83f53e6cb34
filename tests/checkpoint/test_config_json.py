"""config.json in every spelling there is, what it may not say, and what is written."""

import dataclasses
import json

import pytest

from tests.checkpoint.published import CONFIG, LEGACY_JSON, LIST_JSON, NATIVE_JSON
from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint.config_export import legacy_config, native_config
from zaya_jax.checkpoint.config_json import SpecialTokens, parse_config, read_config
from zaya_jax.checkpoint.names import Dimensions
from zaya_jax.model.config import Rope, nano, zaya1_8b, zaya1_74b


def found(config=CONFIG):
    names = {field.name for field in dataclasses.fields(Dimensions)} - {"num_layers"}
    return Dimensions(config.num_layers, **{name: getattr(config, name) for name in names})


def parse(raw, layout="native", config=CONFIG):
    return parse_config(raw, found(config), layout, "config.json")


def without(raw, *keys):
    return {key: value for key, value in raw.items() if key not in keys}


def test_native_with_the_hubs_stray_key():
    config, tokens = parse(NATIVE_JSON)
    assert config == CONFIG
    assert tokens == SpecialTokens(bos=2, eos=(106,), pad=0)


def test_native_defaults_are_those_of_transformers():
    config, tokens = parse({"model_type": "zaya", "max_position_embeddings": 64})
    assert config == CONFIG and tokens == SpecialTokens()
    assert parse({})[0].max_position_embeddings == 131072


def test_legacy_scalars():
    assert parse(LEGACY_JSON, "legacy")[0] == CONFIG


def test_legacy_lists():
    config, tokens = parse(LIST_JSON, "legacy")
    assert config == dataclasses.replace(CONFIG, full_rope=Rope(1e6))
    assert tokens.eos == (1,)


def test_internal_spellings():
    raw = without(LIST_JSON, "zaya_layers", "zaya_mlp_expansion", "rope_theta", "partial_rotary_factor")
    raw |= {"smoe_layers": LIST_JSON["zaya_layers"], "smoe_mlp_expansion": LIST_JSON["zaya_mlp_expansion"]}
    raw |= {"rotary_base": 1000000, "rope_pct": 0.5}
    assert parse(raw, "legacy") == parse(LIST_JSON, "legacy")
    message = refusal(parse, raw | {"rope_theta": 5}, "legacy")
    assert "config.json, keys rope_theta and rotary_base: two spellings disagree; found [5, 1000000]" in message


def test_special_tokens_as_they_are():
    assert parse(NATIVE_JSON | {"eos_token_id": [106, 1], "bos_token_id": None})[1] == SpecialTokens(None, (106, 1), 0)
    assert parse(NATIVE_JSON | {"eos_token_id": None, "pad_token_id": 7})[1] == SpecialTokens(2, (), 7)
    assert "key eos_token_id: not a token id" in refusal(parse, NATIVE_JSON | {"eos_token_id": "</s>"})
    assert "key pad_token_id: not a token id" in refusal(parse, NATIVE_JSON | {"pad_token_id": 1.5})


def rope(theta, fraction=0.5, kind="default"):
    return {"rope_type": kind, "rope_theta": theta, "partial_rotary_factor": fraction}


SLIDING = NATIVE_JSON | {"layer_types": ["hybrid_sliding", "hybrid"], "sliding_window": 9}


def test_native_sliding_layers():
    config, _ = parse(SLIDING | {"rope_parameters": {"hybrid": rope(1e7, 0.25), "hybrid_sliding": rope(1e4, 1.0)}})
    assert config.layer_types == ("sliding", "full") and config.sliding_window == 9
    assert (config.full_rope, config.sliding_rope) == (Rope(1e7, 0.25), Rope(1e4, 1.0))
    assert parse(NATIVE_JSON | {"sliding_window": 9})[0].sliding_window is None  # no layer has it


def test_legacy_windows_do_not_count_the_current_token():
    config, _ = parse(LEGACY_JSON | {"swa_layers": [8, 0, 0, 0, 8, 0], "swa_rotary_base": 500}, "legacy")
    assert config.layer_types == ("sliding", "full") and config.sliding_window == 9
    assert (config.full_rope, config.sliding_rope) == (Rope(5e6), Rope(500))
    assert parse(LEGACY_JSON | {"swa_layers": [0, 0, 0, 0]}, "legacy")[0] == CONFIG


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"swa_layers": [8, 0]},
            "key swa_layers: disagrees with the tensors; expected a list of at least 4 half-layers",
        ),
        ({"swa_layers": [8, 0, 9, 0]}, "key swa_layers: windows of several sizes; expected one; found [8, 9]"),
        ({"swa_layers": [8, 0, -1, 0]}, "key swa_layers: not a window"),
        ({"swa_layers": [True, 0, 0, 0]}, "key swa_layers: not a window"),
        ({"sliding_window": 9}, "key sliding_window: without swa_layers; expected null; found 9"),
    ],
)
def test_legacy_windows_that_are_not_right(more, expected):
    assert expected in refusal(parse, LEGACY_JSON | more, "legacy")


def test_flat_rope():
    nested = without(NATIVE_JSON, "rope_parameters")
    assert parse(nested | {"rope_parameters": rope(7.0, 0.25)})[0].full_rope == Rope(7.0, 0.25)
    assert parse(nested | {"rope_theta": 7, "partial_rotary_factor": 0.25})[0].full_rope == Rope(7.0, 0.25)
    assert parse(nested)[0].full_rope == Rope(5e6)
    message = refusal(parse, SLIDING | {"rope_parameters": rope(7.0)})
    assert "key rope_parameters: rotary base of the sliding layers is missing" in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (rope(7.0, kind="yarn"), "key rope_parameters: unsupported rope_type; expected default; found 'yarn'"),
        ({"hybrid": rope(7.0, kind="linear")}, "key rope_parameters.hybrid: unsupported rope_type"),
        ({"hybrid": rope(7.0), "rope_type": "yarn"}, "key rope_parameters: unsupported rope_type"),
        (
            {"hybrid": rope("7")},
            "key rope_parameters.hybrid, key rope_theta: not a number; expected a number; found '7'",
        ),
        ({"hybrid": rope(float("nan"))}, "rope_theta: not a number"),
        ({"hybrid": {}}, "key rope_theta: key is missing"),
        (
            {"hybrid": rope(0)},
            "config.json, full_rope.theta: impossible model configuration; expected a number above 1",
        ),
        ({"hybrid": rope(7.0, 0.3)}, "full_rope.fraction: impossible model configuration"),
        ({"hybrid": 5}, "key rope_parameters.hybrid: malformed rotary embedding"),
        (5, "key rope_parameters: malformed rotary embedding"),
    ],
)
def test_ropes_that_are_not_right(value, expected):
    message = refusal(parse, NATIVE_JSON | {"rope_parameters": value})
    assert expected in message and "config.json" in message


FIXED = {
    "attention_bias": True,
    "lm_head_bias": True,
    "tie_word_embeddings": False,
    "num_experts_per_tok": 2,
    "hidden_act": "gelu",
    "cca_time0": 3,
    "cca_time1": 4,
    "clamp_temp": True,
    "rope_scaling": {"type": "yarn"},
}
FIXED_LEGACY = FIXED | {
    "moe_router_topk": 2,
    "activation_func": "gelu",
    "zaya_use_eda": False,
    "zaya_use_mod": False,
    "scale_residual_merge": False,
    "gated_linear_unit": False,
    "add_bias_linear": True,
    "normalization": "LayerNorm",
    "cca": False,
}


@pytest.mark.parametrize("key", FIXED_LEGACY)
def test_variants_of_the_architecture_are_refused(key):
    message = refusal(parse, LEGACY_JSON | {key: FIXED_LEGACY[key]}, "legacy")
    assert f"config.json, key {key}: unsupported" in message
    assert "expected" in message and "found" in message and "not supported" in message
    if key in FIXED:
        refusal(parse, NATIVE_JSON | {key: FIXED[key]})


def test_absent_and_null_mean_the_default():
    raw = NATIVE_JSON | {"clamp_temp": None, "rope_scaling": None}
    assert parse(without(raw, "tie_word_embeddings", "hidden_act"))[0] == CONFIG


SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 3,
    "moe_intermediate_size": 16,
    "router_hidden_size": 8,
}


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [7, "48", -1, 2.5, True, 10**30])
def test_sizes_agree_with_the_tensors(key, value):
    message = refusal(parse, NATIVE_JSON | {key: value})
    expected = (
        f"config.json, key {key}: disagrees with the tensors; expected {SIZES[key]} as in the tensors; found {value!r}"
    )
    assert expected in message


LEGACY_SIZES = ["hidden_size", "num_hidden_layers", "num_attention_heads", "cca_num_q_heads", "num_query_groups"] + [
    "kv_channels",
    "ffn_hidden_size",
    "zaya_mlp_expansion",
    "num_experts",
]


@pytest.mark.parametrize("key", LEGACY_SIZES)
def test_legacy_sizes_agree_with_the_tensors(key):
    assert f"key {key}: disagrees with the tensors" in refusal(parse, LEGACY_JSON | {key: 7}, "legacy")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"zaya_layers": ["a", 3, "a"]}, "key zaya_layers: disagrees with the tensors; expected a list of at least 4"),
        ({"zaya_layers": [3, "a", 3, "a"]}, "key zaya_layers: disagrees with the tensors; expected 3"),
        ({"cca_num_q_heads": [4, 0, 5, 0]}, "key cca_num_q_heads: disagrees with the tensors; expected 4"),
        ({"ffn_hidden_size_list": [0, 16, 0, 16]}, "key ffn_hidden_size_list: disagrees with the tensors; expected 32"),
    ],
)
def test_lists_agree_with_the_tensors(more, expected):
    assert expected in refusal(parse, LIST_JSON | more, "legacy")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"rms_norm_eps": 2}, "config.json, norm_epsilon: impossible model configuration"),
        ({"rms_norm_eps": "small"}, "config.json, key rms_norm_eps: not a number"),
        ({"max_position_embeddings": -5}, "config.json, max_position_embeddings: impossible model configuration"),
        ({"max_position_embeddings": 1e9}, "config.json, max_position_embeddings: impossible model configuration"),
        ({"max_position_embeddings": None}, "config.json, max_position_embeddings: impossible model configuration"),
        ({"layer_types": ["hybrid"]}, "key layer_types: disagrees with the tensors; expected 2 entries; found 1"),
        ({"layer_types": ["hybrid", "mamba"]}, "key layer_types: unknown kind of layer; expected hybrid or hybrid_sl"),
        ({"layer_types": ["hybrid", ["hybrid"]]}, "key layer_types: unknown kind of layer"),
        ({"layer_types": "hybrid"}, "key layer_types: disagrees with the tensors"),
        ({"layer_types": ["hybrid", "hybrid_sliding"]}, "config.json, sliding_window: impossible model configuration"),
        ({"skip_output": "one"}, "config.json, skip_output: impossible model configuration"),
    ],
)
def test_absurd_values(more, expected):
    assert expected in refusal(parse, NATIVE_JSON | more)


@pytest.mark.parametrize("key", ["rope_theta", "partial_rotary_factor", "max_position_embeddings"])
def test_legacy_has_no_defaults_for_what_differs_between_models(key):
    assert f"key {key}: key is missing" in refusal(parse, without(LEGACY_JSON, key), "legacy")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"model_type": "zaya1_vl"}, "key model_type: ZAYA1-VL checkpoints are not supported; expected zaya"),
        ({"vision_config": {}}, "key model_type: ZAYA1-VL checkpoints are not supported"),
        ({"architectures": ["ZayaDiffusionLM"]}, "key model_type: diffusion models are not supported"),
        ({"model_type": "tidar_zaya"}, "key model_type: diffusion models are not supported"),
        (
            {"model_type": "llama", "architectures": None},
            "key model_type: not a ZAYA1 model; expected zaya; found llama",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            "key quantization_config: quantized checkpoints are not supported; expected none; found compressed-tensors",
        ),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, more, expected):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(NATIVE_JSON | more))
    message = refusal(read_config, file, found(), "native")
    assert f"{file}, {expected}" in message


CONFIGS = [
    zaya1_8b(),
    zaya1_74b(),
    nano(),
    dataclasses.replace(CONFIG, skip_output="identity", norm_epsilon=1e-6, full_rope=Rope(123.5, 1.0)),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("write", [native_config, legacy_config])
def test_what_is_written_is_read(config, write):
    layout = write.__name__.split("_")[0]
    config = dataclasses.replace(config, sliding_rope=Rope(1e4, config.full_rope.fraction))
    for tokens in (SpecialTokens(), SpecialTokens(None, (), None), SpecialTokens(1, (3, 4), 5)):
        raw = json.loads(json.dumps(write(config, tokens, "bfloat16")))
        read, read_tokens = parse(raw, layout, config)
        if write is native_config or "sliding" in config.layer_types:
            assert read == config
        else:  # a rotary base that no layer uses is not written
            assert read == dataclasses.replace(config, sliding_rope=read.sliding_rope)
        assert read_tokens == tokens


def test_legacy_has_no_words_for_two_fractions():
    config = dataclasses.replace(CONFIG, layer_types=("sliding", "full"), sliding_window=3, sliding_rope=Rope(1e4, 1.0))
    assert "the legacy layout has one rotary fraction" in refusal(legacy_config, config, SpecialTokens(), "bfloat16")

"""Opening checkpoints: both layouts, the spellings in the wild, and everything that is refused."""

import json
import sys
import types

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint.published import (
    CONFIG,
    LEGACY,
    LEGACY_JSON,
    LIST_JSON,
    NATIVE,
    NATIVE_JSON,
    legacy_tensors,
    native_tensors,
    pick,
    shapes,
    write,
)
from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint import describe, open_checkpoint, reachable_skip_layers, resolve
from zaya_jax.checkpoint.names import file_tensors, parameter_count
from zaya_jax.model.config import zaya1_8b, zaya1_74b

LAYOUTS = {"native": lambda tensors: tensors, "legacy": legacy_tensors}


@pytest.mark.parametrize(("layout", "listing"), [("native", NATIVE), ("legacy", LEGACY)])
def test_the_table_asks_for_the_published_tensors(layout, listing):
    asked = {tensor.name: tensor.shape for tensor in file_tensors(CONFIG, layout)}
    assert asked == shapes(listing)


def test_the_oracles_agree():
    tensors = legacy_tensors(native_tensors())
    assert {name: value.shape for name, value in tensors.items()} == shapes(LEGACY)


@pytest.mark.parametrize(
    ("config", "native", "legacy", "parameters"),
    [(zaya1_8b(), 1283, 2483, 8_840_488_784), (zaya1_74b(), 1923, 4683, 74_793_953_144)],
)
def test_counts_of_the_released_models(config, native, legacy, parameters):
    for layout, count in (("native", native), ("legacy", legacy)):
        tensors = file_tensors(config, layout)
        assert len(tensors) == len({tensor.name for tensor in tensors}) == count
        assert parameter_count(tensors) == parameters


def assert_opens(directory, tensors, config=CONFIG):
    opened = open_checkpoint(directory)
    assert opened.config == config
    for tensor in file_tensors(CONFIG, "legacy"):
        value = opened.read(tensor.path, tensor.layer, tensor.expert)
        np.testing.assert_array_equal(value, pick(tensors, tensor.path, tensor.layer, tensor.expert))
    return opened


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shards", [1, 3])
def test_both_layouts(tmp_path, layout, shards):
    tensors = native_tensors()
    write(tmp_path, LAYOUTS[layout](tensors), shards=shards)
    opened = assert_opens(tmp_path, tensors)
    assert opened.layout == layout
    assert opened.balancing_biases().tolist() == [[0.25, -0.125, 0.0625, -1.0]] * 2


def test_list_style_config(tmp_path):
    write(tmp_path, legacy_tensors(native_tensors()), LIST_JSON)
    assert open_checkpoint(tmp_path).special_tokens.eos == (1,)


def test_the_config_does_not_decide_the_layout(tmp_path):
    tensors = native_tensors()
    assert_opens(write(tmp_path / "a", tensors, LEGACY_JSON), tensors)
    assert_opens(write(tmp_path / "b", legacy_tensors(tensors), NATIVE_JSON), tensors)


def respelled(tensors, *pairs):
    for old, new in pairs:
        assert any(old in name for name in tensors)
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    return tensors


def test_internal_names(tmp_path):
    tensors = native_tensors()
    write(tmp_path, respelled(legacy_tensors(tensors), ("zaya_block", "smoe_block")), LEGACY_JSON)
    assert_opens(tmp_path, tensors)


def test_names_from_the_review_in_transformers(tmp_path):
    tensors = native_tensors()
    early = respelled(
        tensors,
        ("router_mlp.norm", "router_mlp.rmsnorm_eda"),
        ("model.norm", "model.final_norm"),
        ("qk_norm.temp", "temp"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("_residual_scale.", "_res_scale."),
        ("mlp.experts.", "zaya_block.experts."),
    )
    assert_opens(write(tmp_path, early, NATIVE_JSON), tensors)


def test_describe_reads_headers_only(tmp_path):
    tensors = native_tensors()
    write(tmp_path, tensors, shards=2)
    for file in tmp_path.glob("*.safetensors"):  # headers stay, every byte of data goes
        size = file.stat().st_size
        start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        with file.open("r+b") as stream:
            stream.truncate(start)
            stream.truncate(size)
    info = describe(tmp_path)
    assert info.layout == "native" and info.config == CONFIG and info.num_tensors == 67
    assert info.num_parameters == sum(v.size for name, v in tensors.items() if "balancing" not in name)
    assert info.num_bytes == sum(value.nbytes for value in tensors.values())
    assert info.dtypes == {"BF16": 65, "F32": 2}
    assert set(info.files) == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


Q = "model.layers.1.self_attn.qkv_proj.q_proj.weight"


def test_missing_extra_and_misshapen_tensors_in_one_line(tmp_path):
    tensors = native_tensors()
    del tensors["model.layers.1.mlp.gate.router_states_scale"], tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.gate.router_states_scale"] = np.zeros(8, np.float32)
    tensors[Q] = tensors[Q][:-1]
    message = refusal(open_checkpoint, write(tmp_path, tensors))
    assert message.startswith(f"{tmp_path}: the tensors are not those of the architecture; expected 67 tensors; ")
    assert "found 66: 2 missing (model.norm.weight, model.layers.1.mlp.gate.router_states_scale)" in message
    assert "1 unexpected (model.layers.0.mlp.gate.router_states_scale)" in message
    assert f"1 misshapen ({Q}: [31, 32] instead of [32, 32])" in message
    assert "download or export the checkpoint again" in message


def test_many_are_counted_and_three_are_named(tmp_path):
    tensors = {name: value for name, value in native_tensors().items() if "layers.1.self_attn" not in name}
    message = refusal(open_checkpoint, write(tmp_path, tensors))
    assert "10 missing (model.layers.1.self_attn.qkv_proj.q_proj.weight, " in message and ", ...)" in message


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.0.mlp.experts.down_proj"])
def test_a_tensor_that_tells_the_architecture_is_missing(tmp_path, name):
    tensors = native_tensors()
    del tensors[name]
    assert f"tensor is missing; expected {name}" in refusal(open_checkpoint, write(tmp_path, tensors))


def test_a_tensor_that_tells_the_architecture_is_misshapen(tmp_path):
    tensors = native_tensors()
    tensors["model.embed_tokens.weight"] = np.zeros(9, np.float32)
    message = refusal(open_checkpoint, write(tmp_path, tensors))
    assert (
        "tensor model.embed_tokens.weight: tensor is misshapen; expected 2 axes, none of them empty; found [9]"
        in message
    )


def test_config_of_another_model(tmp_path):
    message = refusal(open_checkpoint, write(tmp_path, native_tensors(), NATIVE_JSON | {"num_experts": 16}))
    assert f"{tmp_path}/config.json, key num_experts: disagrees with the tensors; expected 3" in message
    assert "found 16; config.json and the weights are not of one model" in message


def test_an_absurd_number_of_layers(tmp_path):
    tensors = native_tensors() | {"model.layers.99999999.input_layernorm.weight": np.zeros(1, np.float32)}
    message = refusal(open_checkpoint, write(tmp_path, tensors, NATIVE_JSON | {"num_hidden_layers": 10**8}))
    assert "absurd number of layers; expected 1 to 4096; found 100000000" in message


def test_a_truncated_shard(tmp_path):
    write(tmp_path, native_tensors(), shards=2)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    with shard.open("r+b") as stream:
        stream.truncate(size - 100)
    message = refusal(open_checkpoint, tmp_path)
    assert f"{shard}: file is truncated; expected {size} bytes; found {size - 100}; the file is damaged" in message


def test_both_layouts_at_once(tmp_path):
    tensors = native_tensors()
    message = refusal(open_checkpoint, write(tmp_path, tensors | legacy_tensors(tensors), NATIVE_JSON))
    assert f"{tmp_path}: both layouts at once; expected native or legacy; found model.layers.0.mlp.experts" in message


def test_two_spellings_of_one_tensor(tmp_path):
    tensors = native_tensors()
    tensors["model.final_norm.weight"] = tensors["model.norm.weight"]
    assert "two spellings of one tensor; found model.norm.weight and model.final_norm.weight" in refusal(
        open_checkpoint, write(tmp_path, tensors)
    ) or "found model.final_norm.weight and model.norm.weight" in refusal(open_checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "model.layers.0.attn.self_attn.qkv.temp",
            "ZAYA1-VL checkpoints are not supported; found tensor model.layers.0.attn",
        ),
        ("vision_tower.blocks.0.norm1.weight", "ZAYA1-VL checkpoints are not supported"),
        ("model.visual.blocks.0.norm1.weight", "ZAYA1-VL checkpoints are not supported"),
        ("model.layers.0.mlp.experts.gate_up_proj.weight_scale", "quantized experts are not supported"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "quantized experts are not supported"),
    ],
)
def test_kinds_that_are_refused_by_name(tmp_path, name, expected):
    tensors = native_tensors() | {name: np.zeros(1, np.float32)}
    message = refusal(open_checkpoint, write(tmp_path, tensors))
    assert str(tmp_path) in message and expected in message


@pytest.mark.parametrize("dtype", ["F64", "I8", "F8_E4M3"])
def test_dtypes_that_are_refused(tmp_path, dtype):
    write(tmp_path, native_tensors())
    tensors = native_tensors()
    tensors[Q] = tensors[Q].astype({"F64": np.float64, "I8": np.int8, "F8_E4M3": ml_dtypes.float8_e4m3fn}[dtype])
    message = refusal(open_checkpoint, write(tmp_path, tensors))
    assert f"model.safetensors, tensor {Q}: unsupported dtype; expected BF16, F16, F32; found {dtype}" in message
    assert ("quantized" in message) == (dtype != "F64")


def test_no_zaya_at_all(tmp_path):
    write(tmp_path, {"model.layers.0.mlp.up_proj.weight": np.zeros((2, 2), np.float32)})
    assert "not a ZAYA1 checkpoint; expected tensors like" in refusal(open_checkpoint, tmp_path)


def test_a_redundant_head_is_tolerated_but_not_an_untied_one(tmp_path):
    tensors = native_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    opened = open_checkpoint(write(tmp_path, tensors))
    assert "lm_head.weight" not in opened.tensors
    tensors["lm_head.weight"] = np.zeros((49, 32), np.float32)
    assert "untied heads are not supported" in refusal(open_checkpoint, write(tmp_path, tensors))


def test_missing_files(tmp_path):
    assert "no such directory" in refusal(open_checkpoint, tmp_path / "absent")
    assert "config.json: file is missing" in refusal(open_checkpoint, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(NATIVE_JSON))
    assert "no weights; expected model.safetensors or model.safetensors.index.json; found config.json" in refusal(
        open_checkpoint, tmp_path
    )
    (tmp_path / "config.json").write_text('{\n  "vocab_size": 48,\n}')
    assert "config.json, line 3, column 1: is not JSON" in refusal(open_checkpoint, tmp_path)


def test_reachable_skip_classes():
    biases = np.array([[0.0, -0.1, -1.0], [-0.1, -0.2, -1.0], [0.5, 0.0, -0.5], [0.4, 0.0, -0.5]], np.float32)
    assert reachable_skip_layers(biases) == [1, 3]


def test_resolve_paths(tmp_path):
    assert resolve(tmp_path) == tmp_path and resolve(str(tmp_path)) == tmp_path
    (tmp_path / "file").touch()
    assert f"file: is a file; expected a checkpoint's directory; give {tmp_path}" in refusal(resolve, tmp_path / "file")
    for path in (tmp_path / "absent", "./absent", "a/b/c", "absent"):
        message = refusal(resolve, path)
        assert f"{path}: no such directory; expected a directory, or owner/name of the Hugging Face Hub" in message


def test_resolve_without_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = refusal(resolve, "Zyphra/ZAYA1-8B")
    assert message.startswith("Zyphra/ZAYA1-8B: no such directory; expected the package huggingface_hub")
    assert "pip install -e '.[hub]'" in message


def test_resolve_from_the_hub(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        if repository.endswith("absent"):
            raise OSError("404\nnot found")
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert resolve("Zyphra/ZAYA1-8B") == tmp_path and resolve("Zyphra/ZAYA1-8B@main") == tmp_path
    assert asked == [("Zyphra/ZAYA1-8B", None), ("Zyphra/ZAYA1-8B", "main")]
    message = refusal(resolve, "Zyphra/absent")
    assert "neither a directory nor a reachable repository; found OSError: 404 not found; check the name" in message

"""What `inspect` tells: counts against the released models, ranges and findings against files made for them."""

import dataclasses
import json
import time

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint.published import CONFIG, NATIVE_JSON, legacy_tensors, native_tensors, write
from zaya_jax.checkpoint import open_checkpoint, write_random_checkpoint
from zaya_jax.checkpoint.config_export import native_config
from zaya_jax.checkpoint.config_json import SpecialTokens
from zaya_jax.checkpoint.files import write_json
from zaya_jax.checkpoint.names import file_tensors
from zaya_jax.checkpoint.summary import expected_tensors, kv_bytes, state_bytes, summarize
from zaya_jax.checkpoint.summary_text import render
from zaya_jax.checkpoint.writer import TensorSpec, header, order
from zaya_jax.model import Execution, init_cache
from zaya_jax.model.config import nano, zaya1_8b, zaya1_74b


@pytest.mark.parametrize(
    ("config", "native", "legacy"), [(zaya1_8b(), 1283, 2483), (zaya1_74b(), 1923, 4683), (CONFIG, 67, 75)]
)
def test_counts_without_the_table(config, native, legacy):
    assert (expected_tensors(config, "native"), expected_tensors(config, "legacy")) == (native, legacy)


def test_cache_of_the_released_models():
    assert kv_bytes(zaya1_8b(), 1) == 40_960  # 40 layers x 2 x 2 heads x 128 x 2 bytes
    assert kv_bytes(zaya1_8b(), 131_072) == 131_072 * 40_960
    assert kv_bytes(zaya1_74b(), 4097) == 4097 * 61_440
    assert kv_bytes(zaya1_74b(), 10_000) == 10_000 * 30_720 + 4097 * 30_720  # half of the layers stop at their window
    assert state_bytes(zaya1_8b()) == 40 * (2 * 1280 + 128) * 4


@pytest.mark.parametrize("tokens", [5, 40])
def test_cache_of_a_sliding_model_is_what_decoding_allocates(tokens):
    config = dataclasses.replace(CONFIG, layer_types=("sliding", "full"), sliding_window=9)
    layers = init_cache(config, Execution(dtype="bfloat16", layout="unstacked"), batch=1, capacity=tokens).layers
    assert sum(layer.k_BSKH.nbytes + layer.v_BSKH.nbytes for layer in layers) == kv_bytes(config, tokens)
    assert sum(layer.conv_B2U.nbytes + layer.delayed_BX.nbytes for layer in layers) == state_bytes(config)


def summary_of(directory):
    return summarize(open_checkpoint(directory))


@pytest.mark.parametrize("layout", ["native", "legacy"])
def test_layers(tmp_path, layout):
    tensors = native_tensors()
    tensors["model.layers.0.self_attn.qk_norm.temp"] = np.array([0.5, 2.25], np.float32)
    tensors["model.layers.1.mlp.gate.balancing_biases"] = np.array([-0.5, -0.25, -0.75, -1.0], np.float32)
    summary = summary_of(write(tmp_path, tensors if layout == "native" else legacy_tensors(tensors)))
    first, second = summary.layers
    assert first.temperature == (0.5, 2.25)
    assert (first.expert_bias, first.skip_bias, first.skip_reachable) == ((-0.125, 0.25), -1.0, False)
    assert (second.expert_bias, second.skip_bias, second.skip_reachable) == ((-0.75, -0.25), -1.0, True)
    layer = sum(v.size for name, v in tensors.items() if ".layers.1." in name and "balancing" not in name)
    assert (first.num_parameters, second.num_parameters) == (layer - 8, layer)  # layer 0 has no router_states_scale
    shares = {name: v.size // (3 if "experts" in name else 1) for name, v in tensors.items() if "balancing" not in name}
    assert summary.num_active == sum(shares.values()) - tensors["model.embed_tokens.weight"].size


def warnings_of(summary):
    return [str(finding) for finding in summary.findings if finding.level == "WARN"]


def test_a_sound_checkpoint_has_no_warnings(tmp_path):
    write_random_checkpoint(tmp_path / "x", nano())
    (tmp_path / "x" / "tokenizer.json").touch()
    (tmp_path / "x" / "chat_template.jinja").touch()
    assert warnings_of(summary_of(tmp_path / "x")) == []


NORM, TEMP = "model.norm.weight", "model.layers.1.self_attn.qk_norm.temp"
BIASES = "model.layers.1.mlp.gate.balancing_biases"


@pytest.mark.parametrize(
    ("changes", "config", "warning"),
    [
        ({TEMP: [0.0, 99.0]}, {}, "to 99; ZAYA1-8B has 0.8 to 12.9"),
        ({NORM: [9.0] * 32}, {}, "final norm of 9 to 9; ZAYA1-8B has 0.036 to 5"),
        ({NORM: [np.nan] * 32}, {}, "final norm that are not finite -> loading refuses"),
        ({BIASES: [np.inf, 0, 0, 0]}, {}, "balancing biases that are not finite -> loading refuses"),
        ({BIASES: [-0.5, -0.5, -0.5, -1]}, {}, "can choose the skip class: 1 (1); its output is 'zero'"),
        ({}, {"eos_token_id": 48}, "eos 48: no row of the embedding (48)"),
        ({}, {"eos_token_id": None, "bos_token_id": None}, "no eos token -> set eos_token_id"),
        ({}, {"eos_token_id": 4}, "no tokenizer.json"),
    ],
)
def test_warnings(tmp_path, changes, config, warning):
    tensors = native_tensors()
    for name, value in changes.items():
        tensors[name] = np.array(value, np.float32 if name == BIASES else ml_dtypes.bfloat16)
    found = warnings_of(summary_of(write(tmp_path, tensors, NATIVE_JSON | config)))
    assert any(warning in " ".join(text.split()) for text in found), found


def test_templates(tmp_path):
    directory = write(tmp_path, native_tensors())
    (directory / "tokenizer.json").touch()
    assert any("no chat_template.jinja" in text for text in warnings_of(summary_of(directory)))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert not any("chat_template" in text for text in warnings_of(summary_of(directory)))


def test_alignment(tmp_path):
    config = dataclasses.replace(nano(), hidden_size=512, expert_hidden_size=512)
    for aligned in (True, False):
        write_random_checkpoint(tmp_path / str(aligned), config, aligned=aligned)
        found = warnings_of(summary_of(tmp_path / str(aligned)))
        assert any("64-byte boundaries -> on a CPU" in " ".join(text.split()) for text in found) != aligned


def sparse_checkpoint(directory, config):
    """A checkpoint of holes: the released names, shapes and sizes, and biases, but no bytes on the disk."""
    directory.mkdir()
    specs = [TensorSpec(t.name, "F32" if t.weight.exact else "BF16", t.shape) for t in file_tensors(config, "native")]
    specs = order(specs, aligned=True)
    head = header(specs, 64)
    with (directory / "model.safetensors").open("wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + sum(spec.nbytes for spec in specs))
    write_json(directory / "config.json", native_config(config, SpecialTokens(), "bfloat16"))
    return directory


def test_the_real_size_takes_seconds(tmp_path):
    start = time.monotonic()
    text = render(summary_of(sparse_checkpoint(tmp_path / "8b", zaya1_8b())))
    assert time.monotonic() - start < 10
    words = " ".join(text.split())
    assert (
        "8,840,488,784, of which 753,608,528 are active: one expert" in words
        and "1,243 tensors BF16, 40 tensors F32" in words
    )
    assert "1,283 tensors = 32 L + 3, as many parameters as ZAYA1-8B" in words
    assert "40,960 bytes a token in bfloat16 (4,096: 167.8 MB, 32,768: 1.34 GB, 131,072: 5.37 GB)" in words
    assert "430,080 bytes a row for convolutions and delayed values" in words
    assert "model.safetensors 17.68 GB" in words
    assert "temperatures of 0 to 0; ZAYA1-8B has 0.8 to 12.9" in words
    assert max(map(len, text.splitlines())) <= 100


def test_a_table_of_sliding_layers_fits_the_screen(tmp_path):
    text = render(summary_of(sparse_checkpoint(tmp_path / "74b", zaya1_74b())))
    layers = [line.split() for line in text.splitlines() if line[:8].strip().isdigit()]
    assert len(layers) == 60 and layers[0][:4] == ["0", "sliding", "4,097", "10000"]
    assert layers[1][:4] == ["1", "full", "all", "1e+07"]
    assert max(map(len, text.splitlines())) <= 100 and "74,793,953,144" in text and "1,923 tensors" in text

"""Written checkpoints: exact names and types, there and back bit for bit, all of it or nothing."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.checkpoint.published import (
    CONFIG,
    LEGACY,
    LIST_JSON,
    NATIVE,
    legacy_tensors,
    native_tensors,
    shapes,
    write,
)
from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint import SpecialTokens, convert, export, load_variables, open_checkpoint, save
from zaya_jax.model import layout as layouts
from zaya_jax.model.config import Rope

TENSORS = native_tensors()


def read_all(directory):
    return {name: value for file in directory.glob("*.safetensors") for name, value in load_file(file).items()}


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


def random_variables(config, layout):
    rng = np.random.default_rng(0)

    def make(slot):
        values = rng.standard_normal(slot.shape).astype(np.float32)
        if slot.stacked and not slot.has(slot.layers[0]):
            values[0] = 0
        if slot.weight.exact:
            values[..., -1] = -9  # the skip class is out of reach
        return jax.numpy.asarray(values)

    return layouts.build(config, layout, make)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source"), TENSORS)


@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
@pytest.mark.parametrize("max_shard_size", [5 * 10**9, 8192])
def test_save_gives_back_what_was_loaded(source, tmp_path, layout, max_shard_size):
    variables = load_variables(source, layout, "bfloat16")
    target = tmp_path / "native"
    save(target, CONFIG, variables, layout, max_shard_size=max_shard_size)
    assert_same(read_all(target), TENSORS)
    assert (target / "model.safetensors.index.json").exists() == (max_shard_size == 8192)
    save(tmp_path / "legacy", CONFIG, variables, layout, file_layout="legacy", max_shard_size=max_shard_size)
    assert_same(read_all(tmp_path / "legacy"), legacy_tensors(TENSORS))


@pytest.mark.parametrize(("file_layout", "listing"), [("native", NATIVE), ("legacy", LEGACY)])
def test_exact_names_shapes_and_types(tmp_path, file_layout, listing):
    variables = random_variables(CONFIG, "stacked")
    save(tmp_path / "x", CONFIG, variables, "stacked", file_layout=file_layout)
    found = read_all(tmp_path / "x")
    assert {name: value.shape for name, value in found.items()} == shapes(listing)
    for name, value in found.items():
        assert value.dtype == (np.float32 if name.endswith("balancing_biases") else ml_dtypes.bfloat16)


def test_float32(tmp_path):
    variables = random_variables(CONFIG, "unstacked")
    save(tmp_path / "x", CONFIG, variables, "unstacked", dtype="float32")
    assert json.loads((tmp_path / "x" / "config.json").read_text())["dtype"] == "float32"
    loaded = load_variables(tmp_path / "x", "unstacked", "float32")
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize("file_layout", ["native", "legacy"])
def test_sliding_layers_and_special_tokens(tmp_path, file_layout):
    config = dataclasses.replace(
        CONFIG, layer_types=("sliding", "full"), sliding_window=5, full_rope=Rope(1e7), skip_output="identity"
    )
    variables = random_variables(config, "stacked")
    tokens = SpecialTokens(1, (106, 1), None)
    save(tmp_path / "x", config, variables, "stacked", file_layout=file_layout, special_tokens=tokens)
    opened = open_checkpoint(tmp_path / "x")
    assert opened.config == config and opened.special_tokens == tokens
    generation = json.loads((tmp_path / "x" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [106, 1], "pad_token_id": None}
    loaded = load_variables(opened, "stacked", "float32")
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), variables["params"])
    jax.tree.map(np.testing.assert_array_equal, loaded["params"], rounded)


def test_there_and_back_bit_for_bit(source, tmp_path):
    convert(source, tmp_path / "legacy", "legacy")
    convert(tmp_path / "legacy", tmp_path / "native", "native", max_shard_size=8192)
    assert_same(read_all(tmp_path / "legacy"), legacy_tensors(TENSORS))
    assert_same(read_all(tmp_path / "native"), TENSORS)
    assert open_checkpoint(tmp_path / "native").config == open_checkpoint(source).config


def test_convert_to_another_type(source, tmp_path):
    convert(source, tmp_path / "x", "native", "float32")
    assert_same(read_all(tmp_path / "x"), {name: value.astype(np.float32) for name, value in TENSORS.items()})


def test_experts_of_several_types_become_the_widest(tmp_path):
    tensors = legacy_tensors(TENSORS)
    name = "model.layers.1.zaya_block.experts.local_experts.1.linear_fc2.weight"
    tensors[name] = tensors[name].astype(np.float32)
    convert(write(tmp_path / "a", tensors), tmp_path / "b", "native")
    down = read_all(tmp_path / "b")["model.layers.0.mlp.experts.down_proj"]
    np.testing.assert_array_equal(down, TENSORS["model.layers.0.mlp.experts.down_proj"].astype(np.float32))


def test_list_style_becomes_native(tmp_path):
    convert(write(tmp_path / "a", legacy_tensors(TENSORS), LIST_JSON), tmp_path / "b", "native")
    opened = open_checkpoint(tmp_path / "b")
    assert opened.config.full_rope == Rope(1e6) and opened.special_tokens.eos == (1,)


def test_what_travels_along(tmp_path):
    source = write(tmp_path / "a", TENSORS)
    along = [
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "README.md",
        "LICENSE",
        "tokenizer.model",
    ]
    for name in along + ["pytorch_model.bin", "pytorch_model.bin.index.json", "train.py"]:
        (source / name).write_text(f'"{name}"')
    convert(source, tmp_path / "b", "legacy")
    written = sorted(file.name for file in (tmp_path / "b").iterdir())
    assert written == sorted(along + ["config.json", "model.safetensors"])
    assert (tmp_path / "b" / "generation_config.json").read_text() == '"generation_config.json"'


def test_convert_wants_an_empty_place(source, tmp_path):
    assert "is the source itself" in refusal(convert, source, source, "native")
    (tmp_path / "notes.txt").write_text("mine")
    message = refusal(convert, source, tmp_path, "native")
    assert f"{tmp_path}: is in the way; expected a new or empty directory; found notes.txt" in message
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_unknown_choices(source, tmp_path):
    target = tmp_path / "x"
    variables = load_variables(source, "stacked", "float32")
    message = refusal(convert, source, target, "new")
    assert "layout: unknown layout; expected native or legacy; found 'new'" in message
    assert "dtype: unknown dtype; expected bfloat16 or float32" in refusal(convert, source, target, "native", "float16")
    assert "unknown dtype" in refusal(save, target, CONFIG, variables, "stacked", dtype="int8")
    assert "unknown layout" in refusal(save, target, CONFIG, variables, "stacked", file_layout="gguf")
    assert not target.exists()


def test_a_source_that_is_not_right_leaves_nothing(tmp_path):
    tensors = dict(TENSORS)
    del tensors["model.norm.weight"]
    assert "1 missing (model.norm.weight)" in refusal(convert, write(tmp_path / "a", tensors), tmp_path / "b", "legacy")
    tensors["model.norm.weight"] = np.full(32, np.nan, np.float32)
    message = refusal(convert, write(tmp_path / "a", tensors), tmp_path / "b", "legacy")
    assert f"{tmp_path}/a/model.safetensors, tensor model.norm.weight: weights are not finite" in message
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a"]


def test_an_older_export_is_replaced_or_left(source, tmp_path, monkeypatch):
    target = tmp_path / "x"
    variables = load_variables(source, "unstacked", "bfloat16")
    files = {"tokenizer.json": b"{}"}
    save(target, CONFIG, variables, "unstacked", max_shard_size=8192, extra_files=files)
    mapped = load_variables(target, "unstacked", "bfloat16")
    doubled = variables | {"params": variables["params"] | {"embedding": variables["params"]["embedding"] * 2}}
    save(target, CONFIG, doubled, "unstacked", extra_files=files)
    assert sorted(file.name for file in target.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    np.testing.assert_array_equal(mapped["params"]["embedding"], variables["params"]["embedding"])

    before = {file.name: file.read_bytes() for file in target.iterdir()}
    monkeypatch.setattr(export, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "No space left on device; nothing was changed" in refusal(
        save, target, CONFIG, variables, "unstacked", extra_files=files
    )
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_foreign_files_are_never_replaced(source, tmp_path):
    variables = load_variables(source, "stacked", "bfloat16")
    (tmp_path / "thesis.tex").touch()
    message = refusal(save, tmp_path, CONFIG, variables, "stacked")
    assert "is in the way; expected a new or empty directory; found thesis.tex; choose another directory" in message


def test_nan_is_not_exported(source, tmp_path):
    variables = load_variables(source, "stacked", "float32")
    variables["params"]["final_norm"] = variables["params"]["final_norm"].at[3].set(np.nan)
    message = refusal(save, tmp_path / "x", CONFIG, variables, "stacked")
    assert "tensor model.norm.weight: weights are not finite" in message
    assert list(tmp_path.iterdir()) == []


def test_a_tree_of_another_model_is_a_mistake_of_the_caller(source, tmp_path):
    variables = load_variables(source, "stacked", "float32")
    with pytest.raises(ValueError, match="unstacked layout"):
        save(tmp_path / "x", CONFIG, variables, "unstacked")
    wider = dataclasses.replace(CONFIG, vocab_size=49)
    with pytest.raises(ValueError, match=r"\['embedding'\]: expected \(49, 32\), found \(48, 32\)"):
        save(tmp_path / "x", wider, variables, "stacked")
    assert not (tmp_path / "x").exists()

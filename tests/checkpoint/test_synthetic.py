"""Random checkpoints that look like the released ones."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.checkpoint.published import CONFIG
from tests.checkpoint.test_safetensors import refusal
from zaya_jax.checkpoint import (
    describe,
    load_variables,
    open_checkpoint,
    reachable_skip_layers,
    write_random_checkpoint,
)
from zaya_jax.checkpoint.safetensors import read_header
from zaya_jax.model.config import nano

WIDE = dataclasses.replace(CONFIG, hidden_size=256, expert_hidden_size=256)  # its experts are cut from the pool


def test_the_layouts_hold_the_same_values(tmp_path):
    for file_layout in ("native", "legacy"):
        write_random_checkpoint(tmp_path / file_layout, WIDE, file_layout=file_layout, seed=3, shards=2)
    native, legacy = (load_variables(tmp_path / name, "unstacked", "bfloat16") for name in ("native", "legacy"))
    import jax

    jax.tree.map(np.testing.assert_array_equal, native, legacy)
    gate_up = native["params"]["layers"][0]["experts"]["gate_up"]
    assert not np.array_equal(gate_up[0], gate_up[1])
    assert 0.9 < np.std(np.asarray(gate_up[0], np.float32)) * 16 < 1.1


def test_released_ranges(tmp_path):
    write_random_checkpoint(tmp_path / "x", nano())
    opened = open_checkpoint(tmp_path / "x")
    biases = opened.balancing_biases()
    assert (biases[:, -1] == -1).all() and (biases[:, :-1].max(1) > 0).all() and reachable_skip_layers(biases) == []
    temperature = opened.read("params/layers/attention/temperature", 2).astype(np.float32)
    assert (temperature >= 0.8).all() and (temperature <= 13).all()
    assert describe(tmp_path / "x").dtypes == {"BF16": 127, "F32": 4}


def test_seeds(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_checkpoint(tmp_path / name, nano(), seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("aligned", [True, False])
def test_alignment(tmp_path, aligned):
    write_random_checkpoint(tmp_path / "x", nano(), aligned=aligned)
    header = list(read_header(tmp_path / "x" / "model.safetensors").values())
    whole = [info for info in header if info.nbytes % 64 == 0]
    assert all(info.start % 64 == 0 for info in whole) == aligned
    assert [info.dtype for info in header[:4]] == (["BF16"] * 4 if aligned else ["F32"] * 4)


def test_unknown_choices(tmp_path):
    assert "unknown choice" in refusal(write_random_checkpoint, tmp_path / "x", nano(), dtype="int8")
    assert "unknown choice" in refusal(write_random_checkpoint, tmp_path / "x", nano(), shards=0)
    assert not (tmp_path / "x").exists()


def test_the_launcher(tmp_path, root):
    command = [sys.executable, "-m", "experiments.make_random_checkpoint", f"--output={tmp_path / 'x'}", "--shards=4"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert "131 tensors, 1,888,360 parameters" in done.stdout and "4 files" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert again.returncode == 2 and "is in the way" in again.stderr and len(again.stderr.splitlines()) == 1

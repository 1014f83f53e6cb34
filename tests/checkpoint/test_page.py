"""docs/checkpoints.md: its example runs, its tables name what there is."""

import ast
import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from tests.checkpoint.train_states import device_state, numpy_state, write
from zaya_jax.checkpoint import arrays
from zaya_jax.checkpoint.manifest import FORMAT, Damaged, read_manifest
from zaya_jax.checkpoint.train_state import restore
from zaya_jax.train.config import CheckpointPolicy


@pytest.fixture
def page(root):
    return (root / "docs" / "checkpoints.md").read_text(encoding="utf-8")


def test_the_example_reads_what_a_run_wrote(page, tmp_workdir, capsys):
    write("out/phase1/checkpoints", 1, 2)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(code, "docs/checkpoints.md", "exec"), names)
    expected = {f"params/{name}": array for name, array in numpy_state(2)["params"].items()}
    found = names["found"]
    assert found.step == 2
    assert {path: array.tobytes() for path, array in found.state.items()} == {
        path: array.tobytes() for path, array in expected.items()
    }
    assert "params/norm (16,) bfloat16" in capsys.readouterr().out


def test_the_tables_name_every_key_and_default(page, tmp_path):
    write(tmp_path, 3)
    manifest = json.loads((tmp_path / "3" / "manifest.json").read_text())
    table = page.partition("## manifest.json")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(manifest)
    assert f"| `format` | {FORMAT}," in table
    for key, value in dataclasses.asdict(CheckpointPolicy()).items():
        assert f"`{key}={value}`" in page


def test_the_commands_are_those_of_the_launcher(page, root):
    # Read, not imported: a launcher defines its flags, and so may another test in this process.
    doc = ast.get_docstring(ast.parse((root / "experiments/train.py").read_text(encoding="utf-8")))
    commands = re.findall(r"python -m experiments\.train (.*)", page)
    assert len(commands) == 2
    for command in commands:
        config, workdir, *rest = command.split()
        assert config.removeprefix("--config=") in doc
        assert workdir == "--workdir=out/phase1" and rest in ([], ["--allow_older"])


def test_orbax_alone_does_not_see_flipped_bits(tmp_path):
    write(tmp_path, 1)
    manifest, like = read_manifest(tmp_path / "1"), device_state(0)
    file = max((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    raw, wrong = file.read_bytes(), 0
    for position in range(500, len(raw), len(raw) // 20):
        file.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        found = jax.tree.leaves(arrays.read(tmp_path / "1" / "arrays", manifest, like))
        expected = jax.tree.leaves(numpy_state(1))
        wrong += any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(found, expected, strict=True))
        with pytest.raises(Damaged):
            restore(tmp_path, like)
    assert wrong > 15

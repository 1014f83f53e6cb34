"""`experiments.convert`: there and back, other types, what goes along, what is left behind by a mistake."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.checkpoint.published import legacy_tensors, native_tensors, write
from tests.experiments.in_process import run
from tests.experiments.launching import launch

TENSORS = native_tensors()


@pytest.fixture
def source(tmp_path):
    """A native checkpoint of two shards with a tokenizer's files beside it."""
    directory = write(tmp_path / "source", TENSORS, shards=2)
    (directory / "tokenizer.json").write_text("{}")
    (directory / "chat_templates").mkdir()
    (directory / "chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    return directory


def read_all(directory):
    return {name: value for file in directory.glob("*.safetensors") for name, value in load_file(file).items()}


def same(found, wanted):
    return {n: (v.dtype, v.tobytes()) for n, v in found.items()} == {
        n: (v.dtype, v.tobytes()) for n, v in wanted.items()
    }


def test_there_and_back(source, tmp_path):
    code, out, err = run("convert", f"--checkpoint={source}", f"--output={tmp_path / 'legacy'}", "--layout=legacy")
    assert code == 0, err
    first, second = out.splitlines()
    assert first == f"{tmp_path / 'legacy'}: native -> legacy layout, 75 tensors (73 BF16, 2 F32)"
    assert "GB in " in second and "1 file" in second
    assert "100 of 100 %" in err
    assert same(read_all(tmp_path / "legacy"), legacy_tensors(TENSORS))
    assert (tmp_path / "legacy" / "tokenizer.json").read_text() == "{}"
    assert (tmp_path / "legacy" / "chat_templates" / "tool_use.jinja").exists()
    code, out, err = run("convert", f"--checkpoint={tmp_path / 'legacy'}", f"--output={tmp_path / 'native'}")
    assert code == 0 and "legacy -> native layout, 67 tensors" in out, err
    assert same(read_all(tmp_path / "native"), TENSORS)


def test_another_type(source, tmp_path):
    flags = [f"--checkpoint={source}", f"--output={tmp_path / 'x'}", "--dtype=float32"]
    code, out, _ = run("convert", *flags)
    assert code == 0 and "(67 F32)" in out
    assert json.loads((tmp_path / "x" / "config.json").read_text())["dtype"] == "float32"
    for name, value in read_all(tmp_path / "x").items():
        np.testing.assert_array_equal(value, TENSORS[name].astype(np.float32))


def test_an_occupied_output_is_left_as_it_is(source, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("mine")
    code, out, err = run("convert", f"--checkpoint={source}", f"--output={tmp_path / 'x'}")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert f"{tmp_path / 'x'}: is in the way; expected a new or empty directory; found notes.txt" in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source", "x"]


def test_the_launcher(tmp_path):
    code, out, err = launch("convert", "--help")
    assert (code, err) == (0, "")
    assert "python -m experiments.convert --checkpoint=DIR" in out and "--layout: <native|legacy>" in out

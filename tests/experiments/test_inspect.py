"""`experiments.inspect`: the facts of a checkpoint on a screen."""

from tests.checkpoint.published import native_tensors, write
from tests.experiments.in_process import run
from tests.experiments.launching import launch


def test_a_report(tmp_path):
    code, out, err = run("inspect", f"--checkpoint={write(tmp_path, native_tensors())}")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}\n  layout        native; 65 tensors BF16, 2 tensors F32\n")
    assert "OK    67 tensors = 32 L + 3" in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_a_mistake_is_one_line(tmp_path):
    code, out, err = run("inspect", f"--checkpoint={tmp_path}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path}/config.json: file is missing; ") and len(err.splitlines()) == 1


def test_the_launcher(tmp_path):
    code, out, err = launch("inspect", f"--checkpoint={write(tmp_path, native_tensors())}")
    assert (code, err) == (0, "") and "architecture  2 layers, hidden 32" in out

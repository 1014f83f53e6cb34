"""A run on several devices and in several processes is the run of one device; a run goes on where others are.

Float64: any difference beyond rounding would be a mistake, not noise. Each run is a process of its own.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import zaya_jax
from tests.parallel.test_multihost import free_port
from zaya_jax.report.metrics import read_metrics

TEXT = "".join(f"line {i}: {i * i} is the square of {i}\n" for i in range(200))
SETTINGS = (
    "model.num_experts=4",
    "rows=8",
    "steps=12",
    "execution.dtype=float64",
    "checkpoints.every=4",
    "evaluation.every=6",
)
SAMPLES = ("samples.every=6", "samples.prompts=('line 7',)", "samples.tokens=6")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "squares.txt"
    path.write_text(TEXT)
    return path


def start(root, text, workdir, devices, *settings, flags=()):
    """The launcher on so many forced host devices."""
    command = [sys.executable, "-m", "experiments.train", f"--config=tests/train/tiny_run.py:{text}", *flags]
    command += [f"--config.{setting}" for setting in (*SETTINGS, *SAMPLES, *settings)]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    options = {"cwd": root, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, f"--workdir={workdir}"], **options)


def ended(*processes):
    said = [process.communicate(timeout=400) for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(err[-3000:] for _, err in said)
    return said


def of_kind(workdir, kind):
    return [record for record in read_metrics(workdir / "metrics.jsonl") if record["kind"] == kind]


@pytest.fixture(scope="module")
def alone(root, text, tmp_path_factory):
    """The directory of a run on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    ended(start(root, text, workdir, 1))
    return workdir


def assert_same_run(alone, other):
    assert (alone / "examples.jsonl").read_text() == (other / "examples.jsonl").read_text()
    for kind, fields in {"train": ("loss", "gradient_norm", "load_entropy"), "eval": ("loss",)}.items():
        ours, theirs = of_kind(alone, kind), of_kind(other, kind)
        assert [record["step"] for record in ours] == [record["step"] for record in theirs]
        for field in fields:
            np.testing.assert_allclose(
                [record[field] for record in theirs], [record[field] for record in ours], rtol=1e-8, err_msg=field
            )
    assert [record["text"] for record in of_kind(alone, "sample")] == [r["text"] for r in of_kind(other, "sample")]
    _, ours, _ = zaya_jax.load(alone / "model", dtype="float32", layout="stacked")
    _, theirs, _ = zaya_jax.load(other / "model", dtype="float32", layout="stacked")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_a_run_goes_on_with_another_number_of_devices(root, text, alone, tmp_path):
    """One step on one device, the others on eight, data x fsdp x context, with the rows of a step in two portions."""
    workdir = tmp_path / "run"
    ended(start(root, text, workdir, 1, "seconds=1e-9"))
    assert [record["step"] for record in of_kind(workdir, "train")] == [1]
    ended(start(root, text, workdir, 8, "mesh.fsdp=2", "mesh.context=2", "rows=4", "accumulate=2"))
    starts = of_kind(workdir, "start")
    assert [(record["devices"], record["resumed_from"]) for record in starts] == [(1, None), (8, 1)]
    assert starts[1]["mesh"] == {"data": 2, "fsdp": 2, "expert": 1, "context": 2}
    assert_same_run(alone, workdir)


@pytest.mark.slow
def test_two_processes_are_one_run(root, text, alone, tmp_path):
    """Over gloo, two devices each; the first process writes. One of them is told to stop: both do, and go on."""
    workdir = tmp_path / "run"

    def both(*settings):
        flags = (f"--coordinator=localhost:{free_port()}", "--processes=2")
        mesh = ("mesh.data=1", "mesh.fsdp=2", "mesh.expert=2")
        return ended(
            *(start(root, text, workdir, 2, *mesh, *settings, flags=(*flags, f"--process={i}")) for i in range(2))
        )

    first, second = both("seconds=1e-9")
    assert "stopped after step" in first[0] and "stopped" not in second[0]
    steps = [record["step"] for record in of_kind(workdir, "train")]
    assert steps == [1, 2]  # what one of them said at step 1 was heard by all at step 2
    both()
    assert of_kind(workdir, "start")[1]["processes"] == 2
    assert json.loads((workdir / "config.json").read_text())["rows"] == 8
    assert_same_run(alone, workdir)

"""Several devices learn and sample what one does, and a run goes on where others are; forced devices of a CPU."""

import subprocess
import sys

import pytest

from tests.parallel.composed import ENVIRONMENT


def alone(root, monkeypatch, call: str, *arguments: str, devices: int = 8) -> str:
    """Runs `call`, of `tests.rl.on_devices`, in a process of its own; returns what it said."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(root)}
    for name, value in {**ENVIRONMENT, **flags}.items():
        monkeypatch.setenv(name, value)
    program = f"import sys; from tests.rl.on_devices import *; {call}; print('fine')"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "fine" in done.stdout, done.stdout + done.stderr[-6000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [{"fsdp": 2, "expert": 2, "context": 2, "dispatch": "dense"}, {"data": 4, "context": 2}], ids=str
)
def test_a_mesh_learns_as_one_device(root, monkeypatch, mesh):
    alone(root, monkeypatch, f"compare({mesh})")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(root, monkeypatch, tmp_path):
    alone(root, monkeypatch, "go_on(sys.argv[1], {'data': 2, 'fsdp': 2})", str(tmp_path))


@pytest.mark.slow
def test_a_pipeline_samples_on_devices_of_its_own(root, monkeypatch, tmp_path):
    alone(root, monkeypatch, "pipeline(sys.argv[1], 4)", str(tmp_path))

"""The Slurm script, with a stand-in for srun."""

import os
import re
import subprocess
import sys

import pytest

SCRIPT = "experiments/slurm/train.sbatch"


def test_bash_can_read_it(root):
    done = subprocess.run(["bash", "-n", SCRIPT], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def start(root, tmp_path):
    """Runs the script where `srun` prints its arguments and its environment."""
    stand_in = tmp_path / "bin" / "srun"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv\n')
    stand_in.chmod(0o755)
    kept = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "USER": "somebody", "SLURM_SUBMIT_DIR": str(root)}

    def run(*arguments: str, **more: str):
        command = ["bash", str(root / SCRIPT), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=kept | more, capture_output=True, text=True)

    return run


def test_it_starts_the_launcher_with_what_it_is_given(start):
    done = start("configs/x.py:scale=8b", "/runs/a b", "--config.seed=1", https_proxy="p", XLA_FLAGS="--mine=1")
    assert done.returncode == 0, done.stderr
    command = ["-m", "experiments.train", "--config=configs/x.py:scale=8b", "--workdir=/runs/a b", "--config.seed=1"]
    said = done.stdout.splitlines()
    first = said.index("-m")
    assert said[first : first + 5] == command and said[first - 1] == ".venv/bin/python"
    flags = next(line for line in said if line.startswith("XLA_FLAGS=")).removeprefix("XLA_FLAGS=").split()
    assert "--mine=1" in flags and "--xla_gpu_enable_command_buffer=" in flags
    assert not any(line.startswith("https_proxy=") for line in said)


def test_without_a_workdir_it_says_how(start):
    done = start("configs/x.py")
    assert done.returncode != 0 and "usage: sbatch" in done.stderr and "CONFIG WORKDIR" in done.stderr


def test_xla_knows_its_flags(start):
    """An unknown one would end the program at its start."""
    said = start("c", "w").stdout.splitlines()
    flags = next(line for line in said if line.startswith("XLA_FLAGS=")).removeprefix("XLA_FLAGS=")
    assert len(re.findall("--xla_gpu_", flags)) == 7
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

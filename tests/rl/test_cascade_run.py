"""All stages of the cascade in earnest, as short as they can be, killed once on the way: minutes long."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
MODELS = ("sft", "warmup", "rlve_gym", "math_code", "reward_model", "behavioral_chat", "behavioral_hard")
WITHIN = 1800  # seconds to a stage that is waited for


def command(workdir: pathlib.Path) -> list[str]:
    return [
        sys.executable, "-m", "experiments.cascade", "--scale=nano", f"--workdir={workdir}",
        "--steps=1,sft=2,reward_model=2", "--without=attempts,rsa",
    ]  # fmt: skip


def kill_when(found: pathlib.Path, process: subprocess.Popen) -> None:
    """SIGKILL for the cascade and the stage that it runs."""
    deadline = time.monotonic() + WITHIN
    while not found.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.returncode
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_cascade_goes_on_behind_a_kill_to_its_end(tmp_path, root):
    workdir = tmp_path / "cascade"
    with subprocess.Popen(command(workdir), cwd=root, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        kill_when(workdir / "warmup" / "rollouts.jsonl", process)
    before = (workdir / "sft" / "model" / "config.json").stat().st_mtime_ns
    done = subprocess.run(command(workdir), cwd=root, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all((workdir / name / "model" / "config.json").is_file() for name in MODELS)
    assert (workdir / "sft" / "model" / "config.json").stat().st_mtime_ns == before, "what is done is not done again"
    page = (workdir / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in MODELS)
    again = subprocess.run(command(workdir), cwd=root, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "python" not in again.stdout, "nothing is left to do"

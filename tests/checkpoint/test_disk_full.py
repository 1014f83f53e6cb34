"""A disk that gets full under a run: one line, no traceback of anybody's, older checkpoints as they were."""

import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.checkpoint import little_room
from tests.checkpoint.train_states import device_state, left_behind
from zaya_jax.checkpoint.manifest import read_manifest
from zaya_jax.checkpoint.train_state import Checkpoints, restore, steps
from zaya_jax.errors import UserError

TOO_LARGE = os.strerror(errno.EFBIG)
RUN = "tests/train/tiny_run.py"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def start(root: Path, *arguments: object) -> subprocess.Popen:
    """Pipes: the limit would hold for a file that takes what is printed."""
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *map(str, arguments)], cwd=root, env=environment, **pipes)


def test_nobody_but_us_speaks_when_the_disk_is_full(root, tmp_path):
    process = start(root, "tests.checkpoint.little_room", tmp_path)
    output, error = process.communicate(timeout=300)
    assert error == ""
    assert process.returncode == 0
    for told in map(json.loads, output.splitlines()):
        directory = tmp_path / str(told["room"])
        message, cause = told["said"]
        expected = f"the checkpoint of step 2 could not be written; found {TOO_LARGE}; older ones are untouched"
        assert message.startswith(f"{directory}: {expected}")
        assert cause == "OSError"  # which --debug shows, and what it came from
        assert set(told["left"]) - {".2.new"} == {"1"}
        Checkpoints(directory).close()
        assert [path.name for path in directory.iterdir()] == ["1"]
        found = restore(directory, jax.eval_shape(lambda: little_room.state(1))).state
        jax.tree.map(np.testing.assert_array_equal, found, little_room.state(1))


def test_a_training_run_on_a_full_disk_ends_in_one_line(root, tmp_path):
    (tmp_path / "text.txt").write_text("A disk is full when it is full. " * 200)
    directory = tmp_path / "run" / "checkpoints"
    flags = [f"--config={RUN}:{tmp_path / 'text.txt'}", f"--workdir={tmp_path / 'run'}", "--config.steps=1000000"]
    process = start(root, "experiments.train", *flags, "--config.checkpoints.keep_last=1000")
    try:
        deadline = time.monotonic() + 300
        while not steps(directory) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        before = {step: contents(directory / str(step)) for step in steps(directory)}
        assert before
        room = max(len(raw) for files in before.values() for raw in files.values()) // 2  # for metrics, not for arrays
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 2, error
    (line,) = [line for line in error.splitlines() if not line.startswith("train ")]
    assert line.startswith(f"error: {directory}: the checkpoint of step ")
    assert f"could not be written; found {TOO_LARGE}; older ones are untouched; check free space" in line
    assert before == {step: contents(directory / str(step)) for step in before}
    with Checkpoints(directory) as checkpoints:
        assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []
        newest = checkpoints.steps()[-1]
    arrays = read_manifest(directory / str(newest)).arrays
    wanted = {path: jax.ShapeDtypeStruct(entry.shape, entry.dtype) for path, entry in arrays.items()}
    assert restore(directory, wanted).step == newest


@pytest.mark.parametrize("room", range(3))
def test_no_thread_waits_for_a_directory_that_cannot_be_made(tmp_path, monkeypatch, room):
    mkdir, made, before = os.mkdir, [], set(threading.enumerate())

    def refuse(path, *arguments, **options):
        made.append(path)
        if len(made) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return mkdir(path, *arguments, **options)

    with Checkpoints(tmp_path) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(UserError, match="step 1 could not be written; found No space left on device"):
            checkpoints.save(1, device_state(1), {})
            checkpoints.wait()
    assert left_behind(before) == []

"""Runs killed with SIGKILL, at places that are chosen and not left to time: nothing is lost or counted twice."""

import collections
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.evaluation.searching import write_roomy
from tests.rl.tiny_runs import STEPS, config, flat, records, rollouts, weights
from zaya_jax.checkpoint.train_state import read_manifest, steps
from zaya_jax.rl.config import PipelineConfig
from zaya_jax.rl.run import run
from zaya_jax.train.settings import to_json

pytestmark = [pytest.mark.usefixtures("quick_programs"), pytest.mark.slow]

# In this order, in one directory. Between two kills a step is made at least, and the last has one left to make.
KILLS = (("rollout", 3), ("update", 2), ("sync", 2), ("checkpoint", 1), ("publish", 2))


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


def kill(root, own, workdir, place, count):
    """Runs until it is killed there."""
    command = [sys.executable, "-m", "tests.rl.killed", json.dumps(to_json(own)), str(workdir), place, str(count)]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert (workdir / f"killed in {place}").exists()


def without_times(found):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in found]


def test_a_synchronous_run_goes_on_bit_by_bit(initial, tmp_path, root):
    own, workdir, whole = config(initial), tmp_path / "killed", tmp_path / "whole"
    assert run(own, whole, sink=io.StringIO())
    for place, count in KILLS:
        kill(root, own, workdir, place, count)
        assert max(steps(workdir / "checkpoints"), default=0) < STEPS, "it was killed on its way"
    assert run(own, workdir, sink=io.StringIO())
    assert rollouts(workdir) == rollouts(whole), "the same answers and rewards, each once"
    for kind in ("step", "look"):
        assert without_times(records(workdir, kind)) == without_times(records(whole, kind))
    # One fewer if the first was killed before there was a checkpoint: the next one begins anew.
    assert len(records(workdir, "start")) in (len(KILLS), len(KILLS) + 1)
    expected = flat(weights(whole))
    for path, found in flat(weights(workdir)).items():
        np.testing.assert_array_equal(found, expected[path], err_msg=path)


def stored(workdir):
    newest = max(steps(workdir / "checkpoints"))
    return newest, read_manifest(workdir / "checkpoints" / str(newest)).record


def groups_of(record):
    (rate,) = record["progress"]["records"]["sources"].values()
    return rate["groups"]


def test_a_pipelined_run_asks_again_and_counts_no_group_twice(initial, tmp_path, root):
    pipeline = PipelineConfig(sync_every=1, buffer=6)
    own = config(initial, pipeline=pipeline, groups=2, steps=6)
    workdir = tmp_path / "killed"
    kill(root, own, workdir, "update", 4)
    step, record = stored(workdir)
    lost = record["again"]
    assert step in (2, 3) and lost
    logged = {row["group"] for row in rollouts(workdir) if row["step"] <= step}
    waiting = {one["number"] for one in lost if not one["seen"]}
    assert groups_of(record) == len(logged) and not waiting & logged, "what was counted is on record, and nothing else"
    assert {one["number"] for one in lost if one["seen"]} <= logged

    assert run(own, workdir, sink=io.StringIO())
    told = records(workdir, "step")
    assert [one["step"] for one in told] == list(range(1, 7))
    assert all(one["staleness"]["max"] <= 2 for one in told if one["step"] > step)
    rows = rollouts(workdir)
    assert {row["step"] for row in rows} == set(range(1, 7))
    answered = collections.Counter(row["group"] for row in rows)
    again = {one["number"] for one in lost}
    assert all(count == 4 for number, count in answered.items() if number not in again)
    assert again <= set(answered) | {one["number"] for one in stored(workdir)[1]["again"]}, "none is lost"
    for number in again & logged:
        first, second = ([row for row in rows if row["group"] == number][part] for part in (slice(4), slice(4, 8)))
        assert {row["prompt"] for row in first} == {row["prompt"] for row in second}
    logged = {row["group"] for row in rows}
    assert groups_of(stored(workdir)[1]) == len(logged), "curricula have seen each of them once"

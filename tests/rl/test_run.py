"""A whole run on a tiny model: what it leaves behind, and that being killed costs nothing."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.evaluation.searching import write_roomy
from zaya_jax.checkpoint import load_variables, open_checkpoint
from zaya_jax.errors import UserError
from zaya_jax.report.metrics import read_metrics
from zaya_jax.rl.config import HeldOutConfig, PipelineConfig, RlConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.run import run
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.start_difficulty import Search
from zaya_jax.train.config import CheckpointPolicy
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.settings import from_dict, to_json

pytestmark = pytest.mark.usefixtures("quick_programs")
STEPS = 4


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


def config(initial, **changes) -> RlConfig:
    decoding = Decoding(group_size=4, thinking_budget=12, answer_budget=6, slots=4, chunk=32, prompt_budget=48)
    values = {
        "name": "tiny",
        "initial": str(initial),
        "schedule": Schedule((Source("tests.rl.easy:EASY"),)),
        "decoding": decoding,
        "optimizer": OptimizerConfig("muon", learning_rate=3e-3, momentum=0.0),
        "steps": STEPS,
        "groups": 3,
        "waves": 2,
        "rows": 4,
        "length": 96,
        "parity_every": 2,
        "held_out": HeldOutConfig(every=2, problems=2, answers=2),
        "checkpoints": CheckpointPolicy(every=1),
    }
    return RlConfig(**values | changes)


@pytest.fixture(scope="module")
def finished(initial, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    assert run(config(initial), workdir, sink=io.StringIO())
    return workdir


def rollouts(workdir):
    return [json.loads(line) for line in (workdir / "rollouts.jsonl").read_text().splitlines()]


def weights(workdir):
    return load_variables(open_checkpoint(workdir / "model"), "stacked", "float32")


def test_what_a_run_leaves_behind(finished):
    steps = [record for record in read_metrics(finished / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    rows = rollouts(finished)
    for record in steps:
        own = [row for row in rows if row["step"] == record["step"]]
        assert len(own) == 4 * record["groups"], "every answer is on record, those that were dropped as well"
        assert record["taught"] + sum(record["dropped"].values()) == record["groups"]
        assert record["reward"] == pytest.approx(np.mean([row["reward"] for row in own]))
        assert record["drawn_tokens"] == sum(len(row["token_ids"]) for row in own)
        for row in own:
            assert set(row["versions"]) == {record["step"] - 1}, "answers are of the weights before the update"
            assert row["correct"] == (bool(row["response"].strip()) and "," not in row["response"])
    looks = [record for record in read_metrics(finished / "metrics.jsonl") if record["kind"] == "look"]
    assert sorted({record["step"] for record in looks}) == [0, 2, 4]
    parity = [record["parity"] for record in steps if record["parity"]]
    assert parity and all(one["max_delta"] < 1e-3 for one in parity)


def test_advantages_are_of_the_group(finished):
    by_group = {}
    for row in rollouts(finished):
        by_group.setdefault(row["group"], []).append(row)
    taught = [group for group in by_group.values() if group[0]["dropped"] is None]
    assert taught, "some groups have signal"
    for group in taught:
        mean = np.mean([row["reward"] for row in group])
        np.testing.assert_allclose(
            [row["advantage"] for row in group], [(row["reward"] - mean) / mean for row in group]
        )


def test_the_weights_have_moved(finished, initial):
    before = load_variables(open_checkpoint(initial), "stacked", "float32")
    after = weights(finished)
    assert not np.array_equal(before["params"]["embedding"], after["params"]["embedding"])


_CHILD = """
import json, pathlib, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.run import run
from zaya_jax.train.settings import from_dict
run(from_dict(RlConfig, json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_by_bit(finished, initial, tmp_path, root):
    """Killed while it asks, learns or writes, it makes the same answers, rewards and weights in the end."""
    workdir, command = tmp_path / "killed", [sys.executable, "-c", _CHILD, json.dumps(to_json(config(initial)))]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for steps in (1, 2):
        child = subprocess.Popen([*command, str(workdir)], env=environment, stdout=subprocess.DEVNULL, cwd=root)
        while child.poll() is None and _last_step(workdir) < steps:
            time.sleep(0.02)
        time.sleep(0.1 * steps)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert _last_step(workdir) < STEPS, "it was killed on its way"
    assert run(config(initial), workdir, sink=io.StringIO())
    assert rollouts(workdir) == rollouts(finished)
    for path, a in _flat(weights(finished)).items():
        np.testing.assert_array_equal(_flat(weights(workdir))[path], a, err_msg=path)


def _last_step(workdir):
    path = workdir / "metrics.jsonl"
    found = [r["step"] for r in read_metrics(path) if r["kind"] == "step"] if path.exists() else []
    return max(found, default=0)


def _flat(tree, prefix=""):
    if isinstance(tree, dict):
        return {key: leaf for name, item in tree.items() for key, leaf in _flat(item, f"{prefix}/{name}").items()}
    if isinstance(tree, tuple | list):
        return _flat(dict(enumerate(tree)), prefix)
    return {prefix: np.asarray(tree)}


def test_start_difficulties_are_sought_with_the_first_weights(initial, tmp_path):
    search, told = Search(groups=3, particles=64, cap=4), io.StringIO()
    assert run(config(initial, start=search, steps=1, held_out=HeldOutConfig()), tmp_path / "run", sink=told)
    (found,) = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "start_difficulty"]
    assert found["groups"] <= 3 and 0 <= found["value"] <= 4
    assert f"starts at difficulty {found['value']}" in told.getvalue()
    first = rollouts(tmp_path / "run")[0]
    assert first["difficulty"] == found["value"] and first["group"] < 2**40


def test_a_pipelined_run(initial, tmp_path):
    """The same learner behind a buffer: no token is more than two updates old, and every one says which drew it."""
    pipeline = PipelineConfig(sync_every=1, buffer=6)
    own = config(initial, pipeline=pipeline, held_out=HeldOutConfig(), groups=2)
    assert run(own, tmp_path / "run", sink=io.StringIO())
    steps = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    assert all(record["staleness"]["max"] <= 2 and record["applied"] for record in steps)
    assert {version for row in rollouts(tmp_path / "run") for version in row["versions"]} <= set(range(STEPS + 1))
    assert (tmp_path / "run" / "model").is_dir()


def test_a_configuration_is_read_back(initial):
    own = config(initial)
    assert from_dict(RlConfig, to_json(own)) == own


def test_mistakes(initial, finished):
    with pytest.raises(UserError, match=r"length: too short for an answer; expected 67 or more"):
        config(initial, length=20)
    with pytest.raises(UserError, match="no model to begin with"):
        config("")
    with pytest.raises(UserError, match="the directory of another run"):
        run(config(initial, seed=1), finished, sink=io.StringIO())
    with pytest.raises(UserError, match="too long a prompt"):
        decoding = dataclasses.replace(config(initial).decoding, prompt_budget=8)
        run(config(initial, decoding=decoding), finished.parent / "long", sink=io.StringIO())

"""The programs that the tests of meshes run in processes of their own, with 8 devices."""

import dataclasses
import io
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from tests.evaluation.searching import write_roomy
from tests.model.helpers import assert_close
from tests.rl.rollouts import recorded, trainer, variables
from zaya_jax.checkpoint import load_variables
from zaya_jax.errors import UserError
from zaya_jax.parallel import make_mesh
from zaya_jax.report.metrics import read_metrics
from zaya_jax.rl.batch import learner_batches
from zaya_jax.rl.config import PipelineConfig, RlConfig
from zaya_jax.rl.devices import divide
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.learner import Learner, accumulate, divisor, learn, log_probabilities, nothing_yet
from zaya_jax.rl.placing import place_batch
from zaya_jax.rl.run import run
from zaya_jax.train.settings import from_dict
from zaya_jax.train.sharding import abstract_state, programs

ADVANTAGES = (1.0, -0.5, 0.25, -1.0, 2.0, 0.5)
jax.config.update("jax_disable_most_optimizations", True)  # they compile for most of their time


def compare(sizes: dict) -> None:
    """Asserts that a mesh learns as one device does: float64, sums, an update and log-probabilities, to 1e-10."""
    sizes = dict(sizes)
    dispatch, mesh = sizes.pop("dispatch", "auto"), make_mesh(**sizes)
    batches = learner_batches(recorded(), ADVANTAGES, 4, 24) + learner_batches(recorded()[::-1], ADVANTAGES, 4, 24)
    expected = _learnt(trainer(), batches)
    execution = dataclasses.replace(trainer().execution, mesh=mesh, dispatch=dispatch)
    found = _learnt(dataclasses.replace(trainer(), execution=execution), batches)
    assert_close(found, expected, 1e-10, f"{sizes} {dispatch} ")


def _learnt(one, batches):
    mesh, learner = one.execution.mesh, Learner(one)
    moved = jax.tree_util.tree_map_with_path(_moved, variables())
    state = programs(one, mesh).start(moved, 0)
    sums, by = nothing_yet(learner, state), divisor(learner, batches)
    for batch in batches:
        sums = accumulate(learner, state, sums, place_batch(mesh, batch), by)
    live = batches[0]._replace(routes_LBT=np.full_like(batches[0].routes_LBT, -1))
    told = [log_probabilities(learner, state, place_batch(mesh, batch)) for batch in (batches[0], live)]
    real = batches[0].segments_BT > 0
    told = [(np.where(real, logp, 0), np.where(real, routes, 0)) for logp, routes in told]
    new, metrics = learn(learner, state, batches, 1e-2)
    if mesh is not None:
        _check_places(one, mesh, sums, new)
    return jax.device_get((sums, told, new, metrics))


def _moved(path, x):
    """Another policy than the engine's: nothing of the loss is zero."""
    return x * 1.05 if "final_norm" in jax.tree_util.keystr(path) else x


def _check_places(one, mesh, sums, state):
    """Nothing has come to lie elsewhere, and no device has all gradients."""
    for path, want in jax.tree_util.tree_leaves_with_path(abstract_state(one, mesh)):
        (found,) = [x for at, x in jax.tree_util.tree_leaves_with_path(state) if at == path]
        assert found.sharding.is_equivalent_to(want.sharding, found.ndim), jax.tree_util.keystr(path)
    whole = sum(x.nbytes for x in jax.tree.leaves(sums.gradients))
    part = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(sums.gradients))
    assert part < whole / 2, (part, whole)


def tiny_run(initial, **changes) -> RlConfig:
    """Two updates in float64."""
    values = {
        "name": "tiny",
        "initial": str(initial),
        "schedule": {"sources": [{"environment": "tests.rl.easy:EASY", "cap": 8}]},
        "decoding": {
            "group_size": 4, "thinking_budget": 8, "answer_budget": 6, "slots": 4, "chunk": 32, "prompt_budget": 48
        },
        "optimizer": {"name": "muon", "learning_rate": 3e-3, "momentum": 0.0},
        "steps": 2,
        "groups": 2,
        "waves": 2,
        "rows": 4,
        "length": 64,
        "parity_every": 1,
        "execution": {"dtype": "float64"},
        "checkpoints": {"every": 1},
        "mesh": {"data": 1},
    }  # fmt: skip
    return from_dict(RlConfig, values | changes)


class _Stopper(io.StringIO):
    """Where words go; this one of them is followed by a signal."""

    def __init__(self, word: str):
        super().__init__()
        self._word = word

    def write(self, text: str) -> int:
        if self._word in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


def go_on(directory: str, sizes: dict) -> None:
    """Asserts that a run of one step on one device and one on a mesh is that of one device: answers, rewards, mu and
    weights."""
    here = pathlib.Path(directory)
    initial = write_roomy(here / "model")
    assert run(tiny_run(initial), here / "whole", sink=io.StringIO())
    assert not run(tiny_run(initial), here / "moved", sink=_Stopper("step 1/"))
    assert run(tiny_run(initial, mesh=sizes), here / "moved", sink=io.StringIO())
    starts = [record for record in read_metrics(here / "moved" / "metrics.jsonl") if record["kind"] == "start"]
    assert [record["resumed_from"] for record in starts] == [None, 1] and starts[0]["meshes"]["engine"] == {}
    assert np.prod([*starts[1]["meshes"]["engine"].values()]) == np.prod([*sizes.values()])
    whole, moved = (_rollouts(here / name) for name in ("whole", "moved"))
    assert {row["step"] for row in whole} == {1, 2} and len(whole) == len(moved)
    for a, b in zip(whole, moved):
        np.testing.assert_allclose(b.pop("mu"), a.pop("mu"), rtol=0, atol=1e-9)
        assert a == b
    steps = [record for record in read_metrics(here / "moved" / "metrics.jsonl") if record["kind"] == "step"]
    assert all(record["parity"]["max_delta"] < 1e-8 and record["parity"]["route_flips"] == 0 for record in steps)
    ours, theirs = (load_variables(here / name / "model", "stacked", "float32") for name in ("whole", "moved"))
    assert_close(theirs, ours, 1e-6)


def _rollouts(workdir: pathlib.Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "rollouts.jsonl").read_text().splitlines()]
    return [row for row in rows if "place" in row]


def check_division(config: RlConfig) -> None:
    """Asserts who has which of eight devices, and that two threads never share several."""
    learner, engine = divide(config)
    assert list(engine.devices.flat) == jax.devices()[8 - config.pipeline.devices :]
    assert not set(learner.devices.flat) & set(engine.devices.flat)
    learner, engine = divide(
        dataclasses.replace(config, pipeline=None, rows=8, decoding=Decoding(4, 8, 6, slots=8, prompt_budget=48))
    )
    assert list(learner.devices.flat) == list(engine.devices.flat) == jax.devices()
    with pytest.raises(UserError, match=r"pipeline.devices: on a mesh both need their own; expected 1 or more"):
        divide(dataclasses.replace(config, pipeline=PipelineConfig(buffer=6)))


def pipeline(directory: str, devices: int) -> None:
    """Asserts that a pipeline runs whose engine has the last devices to itself."""
    here = pathlib.Path(directory)
    own = {"sync_every": 1, "buffer": 6, "devices": devices}
    config = tiny_run(write_roomy(here / "model"), pipeline=own, mesh={"fsdp": 4}, steps=3)
    check_division(config)
    assert run(config, here / "run", sink=io.StringIO())
    (start,) = [record for record in read_metrics(here / "run" / "metrics.jsonl") if record["kind"] == "start"]
    assert start["meshes"]["learner"]["fsdp"] == 4 and start["meshes"]["engine"]["data"] == devices
    steps = [record for record in read_metrics(here / "run" / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in steps] == [1, 2, 3] and all(record["applied"] for record in steps)
    assert all(0 <= record["staleness"]["max"] <= 2 for record in steps)
    for row in _rollouts(here / "run"):
        assert set(row["versions"]) <= set(range(row["step"] + 1)) and row["versions"] == sorted(row["versions"])

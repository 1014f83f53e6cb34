"""A whole run on a tiny model: what it leaves behind."""

import dataclasses
import io
import json
import time

import numpy as np
import pytest

from tests.evaluation.searching import write_roomy
from tests.rl.tiny_runs import STEPS, config, rollouts, weights
from zaya_jax.checkpoint import load_variables, open_checkpoint
from zaya_jax.checkpoint.train_state import read_manifest
from zaya_jax.errors import UserError
from zaya_jax.report.metrics import read_metrics
from zaya_jax.rl import pipelined
from zaya_jax.rl.config import HeldOutConfig, PipelineConfig, RlConfig
from zaya_jax.rl.rollout_view import Wanted, read
from zaya_jax.rl.run import run
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.start_difficulty import Search
from zaya_jax.train.settings import from_dict, to_json

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


@pytest.fixture(scope="module")
def finished(initial, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    assert run(config(initial), workdir, sink=io.StringIO())
    return workdir


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


def test_start_difficulties_are_sought_with_the_first_weights(initial, tmp_path):
    search, told = Search(groups=3, particles=64, cap=4), io.StringIO()
    assert run(config(initial, start=search, steps=1, held_out=HeldOutConfig()), tmp_path / "run", sink=told)
    (found,) = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "start_difficulty"]
    assert found["groups"] <= 3 and 0 <= found["value"] <= 4
    assert f"starts at difficulty {found['value']}" in told.getvalue()
    first = rollouts(tmp_path / "run")[0]
    assert first["difficulty"] == found["value"] and first["group"] < 2**40


def test_where_difficulties_end_both_search_and_curriculum_do(initial, tmp_path):
    """Most answers are right at every difficulty: without an end both would go on upwards."""
    own = config(initial, schedule=Schedule((Source("tests.rl.easy:SHALLOW"),)), steps=2, held_out=HeldOutConfig())
    search = Search(groups=6, particles=64, mu_mean=40.0)
    assert run(dataclasses.replace(own, start=search), tmp_path / "run", sink=io.StringIO())
    (found,) = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "start_difficulty"]
    assert found["value"] <= 2 and {row["difficulty"] for row in rollouts(tmp_path / "run")} <= {0, 1, 2}


def test_a_pipelined_run(initial, tmp_path):
    """The same learner behind a buffer: no token is more than two updates old, and every one says which drew it."""
    pipeline, looks = PipelineConfig(sync_every=2, buffer=6), HeldOutConfig(every=3, problems=2, answers=2)
    own = config(initial, pipeline=pipeline, held_out=looks, groups=2)
    assert run(own, tmp_path / "run", sink=io.StringIO())
    steps = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    assert all(record["staleness"]["max"] <= 2 and record["applied"] for record in steps)
    assert {version for row in rollouts(tmp_path / "run") for version in row["versions"]} <= set(range(STEPS + 1))
    assert (tmp_path / "run" / "model").is_dir()
    seen = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "look"]
    assert [record["step"] for record in seen] == [0, 3] and all(0 <= record["average"] <= 1 for record in seen)
    assert [bool(record["drift"]) for record in steps] == [False, True, False, True]
    assert [bool(record["parity"]) for record in steps] == [False, False, True, False], "at equal versions, of looks"
    assert steps[2]["parity"]["max_delta"] < 1e-3 and steps[2]["parity"]["routes"] > 0
    told = list(read(tmp_path / "run", Wanted(taught=True)))
    assert len(told) == STEPS * 2 * 4, "what the log calls learnt is what the learner took: groups of four answers"
    assert sum(record["drawn_tokens"] for record in steps) >= sum(len(row["token_ids"]) for row in told)
    seconds = [record["seconds"] for record in steps]
    assert all(0 <= one["waiting"] <= one["whole"] and one["engine"] > 0 for one in seconds)


def test_a_pipeline_stopped_while_it_waits_has_every_group_it_counted_on_record(initial, tmp_path, monkeypatch):
    """Groups that curricula saw before the stop are not seen again: their lines have to stay."""
    pipeline = PipelineConfig(sync_every=1, buffer=6)
    own = config(initial, pipeline=pipeline, held_out=HeldOutConfig(), groups=2, steps=3)
    take = pipelined._take

    def stopped(given, line, version, asked):
        if version < 1:
            return take(given, line, version, asked)
        before, deadline = line.sampler.snapshot().progress.schedule.number, time.monotonic() + 60
        while line.sampler.snapshot().progress.schedule.number < before + 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        return None

    with monkeypatch.context() as patch:
        patch.setattr(pipelined, "_take", stopped)
        assert not run(own, tmp_path / "run", sink=io.StringIO())
    assert run(own, tmp_path / "run", sink=io.StringIO())
    progress = read_manifest(tmp_path / "run" / "checkpoints" / "3").record["progress"]
    counted = sum(track["observed"] for track in progress["schedule"]["tracks"])
    told = list(read(tmp_path / "run", Wanted()))
    assert len({row["group"] for row in told}) == counted
    learnt = [row["group"] for row in told if row["dropped"] is None]
    assert len(learnt) == 4 * len(set(learnt)) == 3 * 2 * 4, "each once, though it may have been answered twice"


def test_without_replay_the_routes_are_compared_all_the_same(initial, tmp_path):
    own = config(initial, replay=False, steps=1, parity_every=1, held_out=HeldOutConfig())
    assert run(own, tmp_path / "run", sink=io.StringIO())
    (step,) = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    layers, learnt = 2, [row for row in rollouts(tmp_path / "run") if row["dropped"] is None]
    assert step["parity"]["routes"] >= layers * len(learnt) and step["parity"]["route_flips"] is not None
    assert step["staleness"] == {"mean": 0.0, "max": 0}


def test_a_look_of_the_pipeline_is_that_of_the_synchronous_loop(initial, finished, tmp_path):
    """Before the first step both have the same weights: answers beside strangers are the same answers."""
    own = config(initial, pipeline=PipelineConfig(sync_every=1, buffer=6), steps=1)
    assert run(own, tmp_path / "run", sink=io.StringIO())

    def first(workdir):
        return [record for record in read_metrics(workdir / "metrics.jsonl") if record["kind"] == "look"][:1]

    assert first(tmp_path / "run") == first(finished) != []


def test_a_run_with_min_p(initial, tmp_path):
    """Every token is among the most probable, and engine and learner agree on how probable it was."""
    decoding = dataclasses.replace(config(initial).decoding, min_p=0.02, kept=24)
    own = config(initial, decoding=decoding, steps=2, parity_every=1, held_out=HeldOutConfig())
    assert run(own, tmp_path / "run", sink=io.StringIO())
    steps = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "step"]
    assert all(1 < record["kept_ids"] <= 24 and 0 <= record["kept_full"] <= 1 for record in steps)
    parity = [record["parity"] for record in steps if record["parity"]]
    assert parity and all(one["max_delta"] < 1e-3 for one in parity)


def test_a_look_at_a_file_that_nothing_is_learnt_from(initial, tmp_path):
    """A given set as the source, of which there are no looks; three problems of another file, two of them wanted."""
    for name, letters in {"learnt": "abcd", "looked_at": "xyz"}.items():
        rows = [{"id": one, "problem": f"say {one}", "kind": "chat"} for one in letters]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    learnt, looked_at = str(tmp_path / "learnt.jsonl"), str(tmp_path / "looked_at.jsonl")
    looks = HeldOutConfig(every=1, problems=2, answers=2, files=(looked_at,))
    own = config(initial, schedule=Schedule((Source(f"file:{learnt}", cap=0),)), steps=1, held_out=looks)
    assert run(own, tmp_path / "run", sink=io.StringIO())
    seen = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "look"]
    assert [(one["step"], one["environment"]) for one in seen] == [(0, f"file:{looked_at}"), (1, f"file:{looked_at}")]
    assert {row["environment"] for row in rollouts(tmp_path / "run")} == {f"file:{learnt}"}
    with pytest.raises(
        UserError, match=r"held_out.files: is learnt from; expected a file of no source; found .*learnt"
    ):
        dataclasses.replace(own, held_out=HeldOutConfig(files=(learnt,)))


def test_a_configuration_is_read_back(initial):
    own = config(initial)
    assert from_dict(RlConfig, to_json(own)) == own


def test_mistakes(initial, finished):
    with pytest.raises(UserError, match=r"length: too short for an answer; expected 67 or more"):
        config(initial, length=20)
    with pytest.raises(UserError, match=r"schedule.window.group_size: another group size; expected 4; found 16"):
        config(initial, schedule=Schedule((Source("tests.rl.easy:EASY"),), rule="window"))
    with pytest.raises(UserError, match="no model to begin with"):
        config("")
    with pytest.raises(UserError, match="the directory of another run"):
        run(config(initial, seed=1), finished, sink=io.StringIO())
    with pytest.raises(UserError, match="too long a prompt"):
        decoding = dataclasses.replace(config(initial).decoding, prompt_budget=8)
        run(config(initial, decoding=decoding), finished.parent / "long", sink=io.StringIO())

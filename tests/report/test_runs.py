"""Reading runs: columns as they were written, damage named by its line."""

import numpy as np
import pytest

from tests.report.pages import start, step, whole_run, write_run
from zaya_jax.errors import UserError
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.report.runs import read_run, read_runs


def test_every_kind_arrives(tmp_path):
    run = read_run(write_run(tmp_path / "a", [*whole_run(5), {"kind": "rollout", "step": 5}]))
    assert run.name == "a"
    np.testing.assert_array_equal(run.steps["step"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(run.steps["tokens"], 8192 * np.arange(1, 6))
    np.testing.assert_array_equal(run.layers["max_load"], np.tile(np.float32([2, 1.5, 1.1]), (5, 1)))
    assert {kind: len(records) for kind, records in run.listed.items()} == dict.fromkeys(run.listed, 1)
    assert run.unknown == {"rollout": 1}
    steps, loss, bits = run.evaluations()["web"]
    assert (steps, loss, bits) == (5, 2.5, 0.875)


def test_the_last_look_at_a_step_counts(tmp_path):
    looks = [(10, "a", 3.0), (20, "a", 2.0), (20, "b", 5.0), (20, "a", 2.5), (15, "a", 2.75)]
    run = read_run(write_run(tmp_path, [{"kind": "eval", "step": s, "name": n, "loss": x} for s, n, x in looks]))
    steps, loss, bits = run.evaluations()["a"]
    assert (steps.tolist(), loss.tolist()) == ([10, 15, 20], [3.0, 2.75, 2.5]) and np.isnan(bits).all()
    assert list(run.evaluations()) == ["a", "b"]


def test_null_and_missing_are_nan(tmp_path):
    records = [step(1, loss=None, max_load=None), {"kind": "train", "step": 2}, step(3, min_load=[None, 1, 2])]
    run = read_run(write_run(tmp_path, records))
    assert np.isnan(run.steps["loss"]).tolist() == [True, True, False]
    assert np.isnan(run.layers["max_load"]).all(axis=1).tolist() == [True, True, False]
    assert np.isnan(run.layers["min_load"]).sum(axis=1).tolist() == [0, 3, 1]


def test_wall_clock_goes_on_over_resumes(tmp_path):
    records = [start(), *(step(i, seconds=10.0 * i) for i in (1, 2, 3)),
               start(resumed_from=3), step(4, seconds=5.0), start(resumed_from=4), step(5, seconds=7.0)]  # fmt: skip
    run = read_run(write_run(tmp_path, records))
    assert run.steps["elapsed"].tolist() == [10, 20, 30, 35, 42]
    assert run.start["resumed_from"] == 4


def test_steps_without_a_kind_are_steps(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl") as metrics:  # as the quickstart writes
        metrics.write(
            step=1, seconds=0.5, loss=np.float32(5.5), load_entropy=np.array([0.5, 0.75]), router_counts=[[1]]
        )
    run = read_run(tmp_path)
    assert run.steps["loss"].tolist() == [5.5] and run.layers["load_entropy"].tolist() == [[0.5, 0.75]]


def test_an_empty_file_is_an_empty_run(tmp_path):
    run = read_run(write_run(tmp_path, []))
    assert run.steps["loss"].shape == (0,) and run.layers["skipped"].shape == (0, 0) and run.start == {}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (step(2, loss="low"), "line 3: loss is not a number; found 'low'"),
        (step(2, loss=True), "line 3: loss is not a number"),
        (step(2, tokens=[1]), "line 3: tokens is not a number"),
        (step(2, step=None), "line 3: train without a step"),
        (step(1), "line 3: steps out of order; expected more than 1; found 1"),
        (step(2, max_load=3.0), "line 3: max_load is not a list of numbers"),
        (step(2, max_load=["a"]), "line 3: max_load is not a list of numbers"),
        (step(2, max_load=[1.0, 2.0]), "line 3: max_load has another length than before; expected 3; found 2"),
        ({"kind": "eval", "loss": 1.0}, "line 3: eval without a step"),
        ({"kind": "spike", "step": 1, "loss": "x"}, "line 3: loss is not a number"),
        (start(parameters="many"), "line 3: parameters is not a number"),
    ],
)
def test_damage_is_named_by_line(tmp_path, record, message):
    write_run(tmp_path, [start(), step(1), record, step(9)])
    with pytest.raises(UserError, match=message):
        read_run(tmp_path)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        read_run(tmp_path)
    write_run(tmp_path, [])
    with pytest.raises(UserError, match="given twice"):
        read_runs([tmp_path, tmp_path / "x" / ".."])


def test_names_tell_runs_apart(tmp_path):
    paths = [write_run(tmp_path / name, []) for name in ("muon/seed0", "muon/seed1", "adamw/seed0")]
    assert [run.name for run in read_runs(paths[:2])] == ["seed0", "seed1"]
    assert [run.name for run in read_runs(paths)] == ["muon/seed0", "muon/seed1", "adamw/seed0"]

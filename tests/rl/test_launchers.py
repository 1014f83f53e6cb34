"""The commands of reinforcement learning, by the path that a user takes."""

import json

import pytest

from tests.experiments.in_process import run
from tests.rl.test_rollout_view import BASE, ROWS

PIPELINED = "configs/rl/rlve_gym.py:scale=8b,initial=zaya1_8b,devices=8"
HARDWARE = ("--topology=1x8", "--chip=mi300x")


@pytest.fixture
def workdir(tmp_path):
    for name, rows in {"one": ROWS, "two": [BASE | {"correct": False}]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_rollouts_as_a_table_and_as_texts(workdir):
    code, out, err = run("rollouts", f"--workdir={workdir / 'one'}", "--verdict=wrong", "--show=3")
    assert (code, err) == (0, "")
    table, _, texts = out.partition("\nstep ")
    assert [line.split()[:4] for line in table.splitlines()] == [
        ["environment", "difficulty", "answers", "right"],
        ["addition", "2", "1", "0.0%"],
    ]
    assert "addition/2/7#1, wrong" in texts and "add 1+2" in texts and "<think>1:1+" in texts


def test_rollouts_that_the_learner_did_not_get(workdir):
    code, out, _ = run("rollouts", f"--workdir={workdir / 'one'}", "--notaught")
    assert code == 0 and [line.split()[:2] for line in out.splitlines() if line][1:] == [
        ["addition", "3"], ["sorting", "2"]
    ]  # fmt: skip


def test_rollouts_of_two_runs_and_as_a_page(workdir):
    page = workdir / "page.html"
    given = (f"--workdir={workdir / 'one'}", f"--against={workdir / 'two'}", "--steps=1")
    code, out, _ = run("rollouts", *given, "--show=9", f"--html={page}")
    assert code == 0 and "50.0% / 0.0%" in out and out.splitlines()[-1] == str(page)
    text = page.read_text()
    assert "50.0% / 0.0%" in text and "addition/2/7#0, right" in text and "&lt;think&gt;" in text


def test_rollouts_of_nothing(tmp_path):
    code, out, err = run("rollouts", f"--workdir={tmp_path}")
    assert code == 2 and out == "" and err.splitlines()[-1].startswith("error: ")


def test_a_pipelined_run_is_planned(tmp_path):
    """What is on behind the colon can be changed key by key."""
    changed = ("--config.pipeline.batches=1", "--config.decoding.slots=16", "--config.start.groups=8")
    new = tmp_path / "new"
    code, out, _ = run("rl", f"--config={PIPELINED}", *changed, f"--workdir={new}", "--dry_run", *HARDWARE)
    assert code == 0 and out.count("peak") == 2 and "context=4; 16 slots on devices of its own, 4" in out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "key", ["pipeline.sync_every=2", "start.groups=8", "rewards.judge.slots=2", "rewards.model.length=9"]
)
def test_what_is_off_cannot_be_set_key_by_key(tmp_path, key):
    code, out, err = run("rl", "--config=configs/rl/rlve_gym.py:initial=x", f"--config.{key}", f"--workdir={tmp_path}")
    name = key.split(".")[-2]
    assert code == 2 and out == ""
    assert (
        f"error: --config.{key.partition('=')[0]}: cannot be set, as {name} is off; turn it on behind the colon"
        in err.splitlines()[-1]
    )


def test_an_engine_that_waits_for_ever_is_refused(tmp_path):
    given = ("--config=configs/rl/rlve_gym.py:initial=x,loop=pipelined", "--config.pipeline.sync_every=4")
    code, _, err = run("rl", *given, f"--workdir={tmp_path / 'new'}")
    assert code == 2 and "pipeline.sync_every: would wait for ever; expected 3 or less" in err


def test_plans_of_a_cascade_and_of_a_study_are_commands(tmp_path):
    code, out, _ = run("cascade", f"--workdir={tmp_path / 'new'}", "--dry_run", "--without=attempts")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 12 and all(line.startswith("python -m experiments.") for line in lines)
    config = "configs/studies/rlve_gym.py:initial=M,seeds=2"
    code, out, _ = run("study", f"--config={config}", f"--workdir={tmp_path / 'new'}", "--dry_run")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 2 + 2 * 4 * 3 and sum("experiments.rl " in line for line in lines) == 6
    assert not (tmp_path / "new").exists()

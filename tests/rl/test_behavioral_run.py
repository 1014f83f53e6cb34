"""The behavioural stage on a tiny model: its three phases through `run`, what is on record, and what goes on."""

import io

import numpy as np
import pytest

from tests.evaluation.searching import write_roomy
from tests.rl import tiny_runs
from tests.rl.scripted import write_reward_model
from zaya_jax.errors import UserError
from zaya_jax.rl.advantages import AdvantageConfig
from zaya_jax.rl.config import HeldOutConfig, RlConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.reward_scores import RewardModelConfig
from zaya_jax.rl.run import run
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.scoring import RewardConfig
from zaya_jax.train.settings import from_dict, to_json

pytestmark = pytest.mark.usefixtures("quick_programs")
PHASES = {
    "chat": ("requests", "none"),
    "simple": ("simple_instructions", "report"),
    "hard": ("tests.rl.easy:EASY", "logistic"),  # hard instructions, a random model never keeps
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return write_roomy(folder / "initial"), write_reward_model(folder / "reward")


def config(models, phase, **changes) -> RlConfig:
    environment, gate = PHASES[phase]
    model = RewardModelConfig(str(models[1]), rows=4, length=256)
    values = {
        "name": phase,
        "schedule": Schedule((Source(environment, cap=1),)),
        "decoding": Decoding(4, thinking_budget=12, answer_budget=8, slots=4, chunk=32, prompt_budget=128),
        "rewards": RewardConfig(AdvantageConfig("grpo"), key="score", model=model, gate=gate),
        "steps": 2,
        "groups": 2,
        "waves": 1,
        "length": 160,
        "parity_every": 0,
    }
    return tiny_runs.config(models[0], **values | changes)


@pytest.fixture(scope="module", params=PHASES)
def finished(request, models, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / request.param
    assert run(config(models, request.param), workdir, sink=io.StringIO())
    return request.param, workdir


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_rewards_are_scores_behind_the_gate(finished):
    """By hand from the log: answers with a score are paid it, sigmoid of it, or 0; the others never more than these."""
    phase, workdir = finished
    groups = {}
    for row in tiny_runs.rollouts(workdir):
        groups.setdefault(row["group"], []).append(row)
    for group in groups.values():
        known = [row for row in group if row["score"] is not None]
        for row in known:
            paid = {"chat": row["score"], "simple": row["score"], "hard": sigmoid(row["score"])}[phase]
            assert row["gated"] == (phase != "chat" and not row["correct"])
            assert row["reward"] == pytest.approx(0 if row["gated"] else paid)
        others = [row["reward"] for row in group if row["score"] is None]
        assert all(reward <= row["reward"] for reward in others for row in known)


def test_advantages_are_grpos(finished):
    groups = {}
    for row in tiny_runs.rollouts(finished[1]):
        if row["dropped"] is None:
            groups.setdefault(row["group"], []).append(row)
    for group in groups.values():
        rewards = np.array([row["reward"] for row in group])
        expected = (rewards - rewards.mean()) / (np.sqrt(((rewards - rewards.mean()) ** 2).mean()) + 1e-6)
        np.testing.assert_allclose([row["advantage"] for row in group], expected, rtol=1e-9)
        assert len(set(rewards)) > 1, "groups that are all alike are dropped"
    assert groups or finished[0] == "simple", "some groups teach something"


def test_metrics_tell_of_scores(finished):
    phase, workdir = finished
    rows = tiny_runs.rollouts(workdir)
    for record in tiny_runs.records(workdir, "step"):
        own = [row for row in rows if row["step"] == record["step"]]
        known = [row["score"] for row in own if row["score"] is not None]
        told = record["scores"]
        assert told["none"] == pytest.approx(1 - len(known) / len(own))
        if known:
            assert told["mean"] == pytest.approx(np.mean(known)) and told["std"] == pytest.approx(np.std(known))
        gated = 0 if phase == "chat" else np.mean([not row["correct"] for row in own])
        assert told["gated"] == pytest.approx(gated) and told["outranked"] >= 0
        (environment,) = record["environments"].values()
        assert environment["pass_rate"] == pytest.approx(np.mean([row["correct"] for row in own]))
        assert 0 <= environment["verified"] <= 1
    assert all(look["score"] is None or np.isfinite(look["score"]) for look in tiny_runs.records(workdir, "look"))


def test_a_stopped_run_goes_on_bit_by_bit_and_only_with_its_reward_model(models, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    own = config(models, "chat", held_out=HeldOutConfig())
    assert run(own, whole, sink=io.StringIO())
    assert run(own, stopped, sink=io.StringIO())
    for step in (stopped / "checkpoints").iterdir():
        if step.name == "2":
            _remove(step)
    assert run(own, stopped, sink=io.StringIO())
    assert tiny_runs.rollouts(stopped) == tiny_runs.rollouts(whole)
    head = models[1] / "reward_head.safetensors"
    content = head.read_bytes()
    try:
        head.write_bytes(content[:-4] + b"\0\0\0\0")
        with pytest.raises(UserError, match="reward_model"):
            run(own, stopped, sink=io.StringIO())
    finally:
        head.write_bytes(content)


def _remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_a_configuration_is_read_back(models):
    own = config(models, "hard")
    assert from_dict(RlConfig, to_json(own)) == own

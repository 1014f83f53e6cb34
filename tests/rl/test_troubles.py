"""What goes wrong in whole runs: verifiers that misbehave, and warnings about what goes wrong quietly."""

import dataclasses
import io

import pytest

from tests.evaluation.searching import write_roomy
from tests.rl.tiny_runs import config, records, rollouts
from zaya_jax.checkpoint.train_state import read_manifest
from zaya_jax.environments.failures import FailureLimit
from zaya_jax.environments.workers import WorkerLimits
from zaya_jax.errors import UserError
from zaya_jax.rl.config import HeldOutConfig
from zaya_jax.rl.run import run
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.warnings import Limits
from zaya_jax.train.optimizer import OptimizerConfig

pytestmark = pytest.mark.usefixtures("quick_programs")
NAMES = ("HANG", "RAISE", "NAN", "CHATTER", "FLOOD", "EAT")
FAILS = {"HANG": "timeout", "RAISE": "raised", "NAN": "reward", "FLOOD": "output", "EAT": "memory"}


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    return write_roomy(tmp_path_factory.mktemp("initial") / "model")


def schedule(*names):
    return Schedule(tuple(Source(f"tests.rl.misbehaving:{name}") for name in names))


def small(initial, *names, **changes):
    decoding = dataclasses.replace(config(initial).decoding, group_size=2)
    values = {"schedule": schedule(*names), "decoding": decoding, "steps": 1, "held_out": HeldOutConfig()}
    return config(initial, **values | {"parity_every": 0} | changes)


def test_verifiers_that_misbehave_cost_their_groups_and_nothing_else(initial, tmp_path):
    """A run of all kinds at once: each group that has no verdicts is dropped and counted under its environment."""
    limits, failures = WorkerLimits(seconds=4, memory_mb=300), FailureLimit(share=1.0)
    own = small(initial, *NAMES, groups=12, waves=1, limits=limits, failures=failures)
    own = dataclasses.replace(own, schedule=dataclasses.replace(own.schedule, sources=(
        *own.schedule.sources, Source("tests.rl.easy:EASY"))))  # fmt: skip
    assert run(own, tmp_path, sink=io.StringIO())
    rows, (step,) = rollouts(tmp_path), records(tmp_path, "step")
    counts = read_manifest(tmp_path / "checkpoints" / "1").record["failures"]
    for name in NAMES:
        environment = f"tests.rl.misbehaving:{name}"
        of_it = [row for row in rows if row["environment"] == environment]
        judged = [row for row in of_it if row["error"] != "unfinished"]
        assert judged, "it was asked"
        if name in FAILS:
            assert all(row["reward"] is None and row["advantage"] == 0 for row in judged)
            assert all(row["dropped"] == "verifier failed" for row in judged)
            assert all(f": {FAILS[name]}: " in row["error"] for row in judged)
            assert counts[environment]["counts"][FAILS[name]] == len(judged)
        else:
            assert all(row["reward"] is not None and row["dropped"] != "verifier failed" for row in of_it)
    failed = {row["group"] for row in rows if row["dropped"] == "verifier failed"}
    assert step["dropped"]["verifier failed"] == len(failed) and step["groups"] == 12


def test_a_step_without_one_complete_group_goes_by(initial, tmp_path):
    """Its checkpoint is written, and the next step is made."""
    own = small(initial, "NAN", steps=2, groups=2, waves=1, failures=FailureLimit(share=1.0))
    assert run(own, tmp_path, sink=io.StringIO())
    steps = records(tmp_path, "step")
    assert [(one["step"], one["taught"]) for one in steps] == [(1, 0), (2, 0)]
    assert None in [one["reward"] for one in steps], "no answer has one; those that no end was found of have 0"
    assert all(one["dropped"]["verifier failed"] > 0 and not one["applied"] for one in steps)
    assert read_manifest(tmp_path / "checkpoints" / "2").record["watch"]["count"] == 2


def test_an_environment_that_fails_too_often_ends_the_run_by_its_name(initial, tmp_path):
    own = small(initial, "RAISE", groups=6, failures=FailureLimit(share=0.2, calls=6))
    expected = r"environment tests.rl.misbehaving:RAISE: fails too often; expected at most 20.0% .*raised: ValueError"
    with pytest.raises(UserError, match=expected):
        run(own, tmp_path, sink=io.StringIO())
    assert not (tmp_path / "model").exists()


def warned(own, workdir):
    """The warnings of a run, {step: texts}; it says and records the same."""
    out = io.StringIO()
    assert run(own, workdir, sink=out)
    found = {}
    for record in records(workdir, "warning"):
        found.setdefault(record["step"], []).append(record["text"])
    said = [line for line in out.getvalue().splitlines() if ": warning: " in line]
    assert said == [f"step {step}: warning: {text}" for step, texts in found.items() for text in texts]
    return found


def test_answers_cut_off_and_groups_without_signal_are_warned_of_once(initial, tmp_path):
    own = small(initial, "NEVER", steps=3, groups=2, waves=1, warnings=Limits(steps=2))
    found = warned(own, tmp_path)
    assert list(found) == [2], "two steps make a mean, and what has not ceased is not said again"
    cut, alike = found[2]
    assert "of responses were cut off" in cut and "the response budget is too short" in cut
    assert "100% of groups were all right or all wrong" in alike and "problems are too hard" in alike


def test_entropy_that_collapses_is_warned_of(initial, tmp_path):
    """By a learning rate that is far too high."""
    wild = OptimizerConfig("muon", learning_rate=0.3, momentum=0.0, warmup_steps=0)
    limits = Limits(steps=1, truncated=1.0, no_signal=1.0, entropy=0.7)
    decoding = dataclasses.replace(config(initial).decoding, group_size=4)
    own = small(initial, "CHATTER", steps=4, decoding=decoding, groups=3, optimizer=wild, warnings=limits)
    found = warned(own, tmp_path)
    (text,) = [text for texts in found.values() for text in texts]
    assert "entropy fell to" in text and "the policy sharpens faster than it learns" in text


def test_reward_that_rises_while_held_out_falls_is_warned_of_once(initial, tmp_path):
    limits = Limits(steps=1, truncated=1.0, no_signal=1.0, entropy=0.0, held_out=2, rise=0.0)
    looks = HeldOutConfig(every=1, problems=4, answers=2)
    own = small(initial, "TURN", steps=3, groups=4, waves=1, workers=1, held_out=looks, warnings=limits)
    texts = [text for texts in warned(own, tmp_path).values() for text in texts]
    assert len(texts) == 1 and "while held-out accuracy fell by" in texts[0] and "is being exploited" in texts[0]


def test_a_healthy_run_is_not_warned_of_anything(initial, tmp_path):
    decoding = dataclasses.replace(config(initial).decoding, thinking_budget=60, answer_budget=60, group_size=8)
    looks = HeldOutConfig(every=1, problems=2, answers=2)
    changes = {"decoding": decoding, "held_out": looks, "steps": 3, "groups": 3, "length": 176}
    changes["schedule"] = Schedule((Source("tests.rl.easy:FAIR", cap=8),))
    own = config(initial, warnings=Limits(steps=3, held_out=2, rise=0.2), **changes)
    assert warned(own, tmp_path) == {}

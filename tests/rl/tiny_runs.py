"""Runs of reinforcement learning on a tiny model, seconds long, and what they leave behind."""

import json

import numpy as np

from zaya_jax.checkpoint import load_variables, open_checkpoint
from zaya_jax.report.metrics import read_metrics
from zaya_jax.rl.config import HeldOutConfig, RlConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.train.config import CheckpointPolicy
from zaya_jax.train.optimizer import OptimizerConfig

STEPS = 4


def config(initial, **changes) -> RlConfig:
    decoding = Decoding(group_size=4, thinking_budget=12, answer_budget=6, slots=4, chunk=32, prompt_budget=48)
    values = {
        "name": "tiny",
        "initial": str(initial),
        "schedule": Schedule((Source("tests.rl.easy:EASY", cap=8),)),  # a slow learner lets a pipeline climb
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


def rollouts(workdir):
    """The answers, without what is said of groups later."""
    rows = [json.loads(line) for line in (workdir / "rollouts.jsonl").read_text().splitlines()]
    return [row for row in rows if "place" in row]


def weights(workdir):
    return load_variables(open_checkpoint(workdir / "model"), "stacked", "float32")


def records(workdir, kind):
    """Of a kind, from metrics.jsonl; none before there is one."""
    path = workdir / "metrics.jsonl"
    return [record for record in read_metrics(path) if record["kind"] == kind] if path.exists() else []


def flat(tree, prefix=""):
    if isinstance(tree, dict):
        return {key: leaf for name, item in tree.items() for key, leaf in flat(item, f"{prefix}/{name}").items()}
    if isinstance(tree, tuple | list):
        return flat(dict(enumerate(tree)), prefix)
    return {prefix: np.asarray(tree)}

"""A run of reinforcement learning from its configuration to a model in the hub's format."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax

from zaya_jax.checkpoint import load_variables, open_checkpoint, resolve
from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.environments.failures import Failures
from zaya_jax.environments.workers import Workers
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Variables
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.rl import completion
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.devices import Devices, divide, engine_model, shape, weights_for
from zaya_jax.rl.gathering import Asking
from zaya_jax.rl.held_out import make_problems
from zaya_jax.rl.learner import Learner
from zaya_jax.rl.pipelined import make_pipelined_steps
from zaya_jax.rl.reward_scores import open_scorer
from zaya_jax.rl.rollout_log import FILE as ROLLOUTS
from zaya_jax.rl.start_difficulty import Search
from zaya_jax.rl.starting import find_starts, with_starts
from zaya_jax.rl.synchronous import Memory, Work, make_steps, remembered
from zaya_jax.sampling.engine import Engine
from zaya_jax.train import workdir as place
from zaya_jax.train.beginning import base_digest
from zaya_jax.train.exporting import open_tokenizer, save_model
from zaya_jax.train.settings import conflicts, to_json
from zaya_jax.train.sharding import abstract_state, programs
from zaya_jax.train.step import TrainState

# What may change when a run goes on.
_FREE = (
    *("checkpoints", "workers", "held_out", "warnings", "failures", "export_dtype", "parity_every", "loss_chunk"),
    *("mesh", "rows", "decoding.slots", "pipeline.devices"),  # but for rounding, on other devices
)


def run(config: RlConfig, workdir: pathlib.Path, sink: TextIO | None = None) -> bool:
    """Makes all steps, or goes on with what is in `workdir`.

    Returns:
        Whether the last step was made; False if a signal came before it, with a checkpoint.

    Raises:
        UserError: the configuration or the directory are not right, or an environment fails too often.
    """
    say = sink or sys.stdout
    checkpoint = open_checkpoint(resolve(config.initial))
    tokenizer, files = open_tokenizer(config.initial)
    devices = divide(config)
    learner = config.learner(checkpoint.config, devices.learner)
    place.claim(workdir, config, functools.partial(conflicts, free=_FREE))
    policy = config.checkpoints
    keep = {"keep_last": policy.keep_last, "keep_every": policy.keep_every or None}
    told = {name: base_digest(path) for name, path in _models(config).items()}
    scorer = open_scorer(config.rewards.model, config.rewards.judge, config.execution.dtype)
    with (
        Checkpoints(workdir / place.CHECKPOINTS, **keep, fingerprint=told) as checkpoints,
        Workers(config.workers, config.limits) as workers,
    ):
        fresh = not checkpoints.steps()
        state, memory, failures, stored = _begin(config, learner, checkpoints, checkpoint, say)
        engine = make_engine(config, checkpoint.config, devices, state.variables)
        asking = Asking(config, engine, tokenizer, workers, failures, scorer)
        held_out = make_problems(config, workers, tokenizer) if config.held_out.every else []
        size = stored.get("rollouts_size")
        with _writers(config, devices, workdir, None if fresh else int(state.step), size) as (metrics, rollouts):
            work = Work(asking, learner, held_out, checkpoints, metrics, rollouts, say)
            if fresh and config.start is not None:
                memory = _found_starts(work, config.start, memory)
            if config.pipeline is None:
                state, _ = make_steps(work, state, memory)
            else:
                state, _ = make_pipelined_steps(work, state, memory, stored.get("again", []))
    step, done = int(state.step), int(state.step) == config.steps
    if done:
        save_model(workdir / place.MODEL, learner.trainer, tokenizer, files, state.variables, None, config.export_dtype)
        print(f"done: {step:,} steps; the model is in {workdir / place.MODEL}", file=say)
    else:
        print(f"stopped after step {step:,} of {config.steps:,}; the same command goes on from there", file=say)
    return done


def _begin(
    config: RlConfig, learner: Learner, checkpoints: Checkpoints, checkpoint: Any, say: TextIO
) -> tuple[TrainState, Memory, Failures, dict[str, Any]]:
    """The last one is what else a checkpoint has on record; empty without one."""
    mesh = learner.trainer.execution.mesh
    if not checkpoints.steps():
        exact, places = learner.trainer.execution.exact_dtype.name, None if mesh is None else slot_sharding(mesh)
        variables = load_variables(checkpoint, "stacked", exact, shardings=places)
        state = programs(learner.trainer, mesh).start(variables, config.seed)
        return state, Memory(completion.start(config.schedule, _rate_groups(config))), Failures(config.failures), {}
    restored = checkpoints.restore(abstract_state(learner.trainer, mesh))
    print(f"goes on after step {restored.step:,}", file=say, flush=True)
    stored = restored.record
    memory, failures = remembered(config.schedule, stored), Failures(config.failures, stored["failures"])
    return restored.state, memory, failures, stored


def _rate_groups(config: RlConfig) -> int:
    return 1 if config.rewards.length is None else config.rewards.length.rate_groups


def _models(config: RlConfig) -> dict[str, str]:
    """The models that a run reads, which must be the same ones when it goes on."""
    found = {"initial": config.initial}
    scores = {"reward_model": config.rewards.model, "judge": config.rewards.judge}
    return found | {name: one.path for name, one in scores.items() if one is not None}


def make_engine(config: RlConfig, model: ModelConfig, devices: Devices, variables: Variables) -> Engine:
    """The engine of a run, with the weights of a learner."""
    zaya, decoding = engine_model(config, model, devices.engine), config.decoding
    taken = weights_for(zaya, devices.learner, variables)
    sizes = {"slots": decoding.slots, "capacity": decoding.capacity, "chunk": decoding.chunk}
    return Engine(zaya, taken, **sizes, kept=decoding.kept if decoding.min_p else 0)


def _found_starts(work: Work, search: Search, memory: Memory) -> Memory:
    starts = find_starts(work.asking, search)
    for name, one in starts.items():
        found = {"environment": name, "groups": one.groups, "value": one.difficulty}
        work.metrics.write(kind="start_difficulty", step=0, **found)
        print(f"{name} starts at difficulty {one.difficulty}, after {one.groups} groups", file=work.say, flush=True)
    return dataclasses.replace(memory, progress=with_starts(memory.progress, starts))


@contextlib.contextmanager
def _writers(
    config: RlConfig, devices: Devices, workdir: pathlib.Path, step: int | None, size: int | None
) -> Iterator[tuple[MetricsWriter, MetricsWriter]]:
    """Goes on behind a step, and behind `size` bytes of answers if a pipeline's checkpoint has that. None begins anew,
    whatever a run without a checkpoint has left."""
    with (
        MetricsWriter(workdir / place.METRICS, resume_step=step) as metrics,
        MetricsWriter(workdir / ROLLOUTS, resume_step=step, resume_size=size) as rollouts,
    ):
        kind, meshes = jax.devices()[0].device_kind, {name: shape(mesh) for name, mesh in devices._asdict().items()}
        metrics.write(
            kind="start", time=time.time(), config=to_json(config), resumed_from=step, device_kind=kind, meshes=meshes
        )
        yield metrics, rollouts

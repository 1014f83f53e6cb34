"""The synchronous loop: ask, learn, give the engine the new weights; one mesh, one after the other.

Everything that a step does depends on the configuration, the weights, and `Memory`; a run that goes on from a
checkpoint makes the same answers, rewards and weights as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any, TextIO

import numpy as np

from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.model.layout import Variables
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.rl import completion, warnings
from zaya_jax.rl import metrics as measured
from zaya_jax.rl.batch import LearnerBatch, learner_batches
from zaya_jax.rl.completion import Progress
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.devices import weights_for
from zaya_jax.rl.gathering import Asking, gather, taught
from zaya_jax.rl.generation import Asked
from zaya_jax.rl.held_out import Look, accuracy, look
from zaya_jax.rl.learner import Learner, learn, log_probabilities
from zaya_jax.rl.parity import Parity, compare
from zaya_jax.rl.placing import place_batch
from zaya_jax.rl.rollout import Rollout
from zaya_jax.rl.rollout_log import rows
from zaya_jax.rl.scoring import Scored
from zaya_jax.train.optimizer import learning_rate
from zaya_jax.train.step import TrainState
from zaya_jax.train.stopping import asked_to_stop


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a run carries from step to step besides weights and optimizer.

    Attributes:
        progress: curricula and solve rates.
        watch: of the warnings.
    """

    progress: Progress
    watch: warnings.Watch = dataclasses.field(default_factory=warnings.Watch)


@dataclasses.dataclass(frozen=True)
class Work:
    """What the loop reads and writes to.

    Attributes:
        asking: problems, engine, workers.
        learner: of the updates.
        held_out: problems of the looks.
        checkpoints, metrics, rollouts: what is written.
        say: where words go.
    """

    asking: Asking
    learner: Learner
    held_out: list[Asked]
    checkpoints: Checkpoints
    metrics: MetricsWriter
    rollouts: MetricsWriter
    say: TextIO = sys.stdout


def record(memory: Memory, failures: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that is no array; `failures` as `Failures.to_json` has them."""
    return {
        "progress": completion.to_json(memory.progress),
        "watch": warnings.to_json(memory.watch),
        "failures": failures,
    }


def remembered(schedule: Any, stored: dict[str, Any]) -> Memory:
    """What `record` wrote, but for the failures."""
    return Memory(completion.from_json(schedule, stored["progress"]), warnings.from_json(stored["watch"]))


def make_steps(work: Work, state: TrainState, memory: Memory) -> tuple[TrainState, Memory]:
    """Goes on until the last step, or until a signal; either way there is a checkpoint then."""
    config, first = work.asking.config, int(state.step)
    with asked_to_stop() as asked:
        if first == 0 and work.held_out:
            _synchronize(work, state.variables, 0)
            _look(work, 0)
        for step in range(first + 1, config.steps + 1):
            state, memory = _step(work, state, memory, step)
            stop = asked.is_set() or step == config.steps
            if stop or (config.checkpoints.every > 0 and step % config.checkpoints.every == 0):
                work.checkpoints.save(step, state, record(memory, work.asking.failures.to_json()))
            if stop:
                break
    work.checkpoints.wait()
    return state, memory


def _step(work: Work, state: TrainState, memory: Memory, step: int) -> tuple[TrainState, Memory]:
    config, start = work.asking.config, time.monotonic()
    _synchronize(work, state.variables, step - 1)
    progress, found, spent = gather(work.asking, memory.progress, step - 1)
    for scored in found:
        for row in rows(step, scored):
            work.rollouts.write(**row)
    asked_for = time.monotonic()
    batches, parity = batches_of(config, found), None
    if batches and config.parity_every and step % config.parity_every == 0:
        parity = parity_of(work.learner, state, recorded(config, rollouts_of(found)), config.replay)
    rate = learning_rate(config.optimizer, (step - 1) / config.steps, config.steps)
    if batches:
        state, told = learn(work.learner, state, batches, rate)
        updated = measured.of_update(told)
    else:
        state, updated = state.replace(step=state.step + 1), {"applied": False}
    seconds = {"engine": spent.engine, "waiting": spent.waiting, "asking": asked_for - start}
    held_out = None
    if config.held_out.every and step % config.held_out.every == 0:
        _synchronize(work, state.variables, step)
        held_out = _look(work, step)
    groups = measured.of_groups(found, work.learner.trainer.model.vocab_size)
    work.metrics.write(
        kind="step", step=step, learning_rate=rate, **groups, **updated,
        environments=measured.of_environments(found, progress), parity=parity and parity.to_json(),
        staleness={"mean": 0.0, "max": 0}, drawn_tokens=spent.tokens,
        seconds=seconds | {"whole": time.monotonic() - start},
    )  # fmt: skip
    watch = warn(work, step, memory.watch, groups, held_out)
    tell(work, step, groups, progress)
    return state, Memory(progress, watch)


def warn(work: Work, step: int, watch: warnings.Watch, groups: dict[str, Any], held_out: float | None):
    """Prints and records the warnings that begin with a step; returns what they remember."""
    limits = work.asking.config.warnings
    watch, texts = warnings.look(limits, watch, measured.for_warnings(groups, held_out))
    for text in texts:
        work.metrics.write(kind="warning", step=step, text=text)
        print(f"step {step}: warning: {text}", file=work.say, flush=True)
    return watch


def _synchronize(work: Work, variables: Variables, version: int) -> None:
    work.asking.engine.update_weights(engine_weights(work, variables), version)


def engine_weights(work: Work, variables: Variables) -> Variables:
    """The learner's weights as the engine takes them, on its devices."""
    return weights_for(work.asking.engine.model, work.learner.trainer.execution.mesh, variables)


def batches_of(config: RlConfig, found: list[Scored]) -> list[LearnerBatch]:
    """What the learner reads of the groups that teach something."""
    rollouts = rollouts_of(found)
    if not rollouts:
        return []
    advantages = np.concatenate([scored.advantages for scored in taught(found)])
    return learner_batches(rollouts, advantages, config.rows, config.length, replay=config.replay)


def rollouts_of(found: list[Scored]) -> list[Rollout]:
    """The answers that the learner learns from."""
    return [one for scored in taught(found) for one in scored.answered.rollouts]


def recorded(config: RlConfig, rollouts: list[Rollout]) -> LearnerBatch:
    """The first batch of answers, with the routes that the engine took, for `parity_of`."""
    (first,) = learner_batches(rollouts, np.zeros(len(rollouts)), config.rows, config.length, most=1)
    return first


def parity_of(learner: Learner, state: TrainState, batch: LearnerBatch, replay: bool) -> Parity:
    """Engine against learner: log-probabilities as the learner has them in training, with or without replay, and the
    routes that it would have taken by itself.

    Args:
        batch: of `recorded`.
    """
    mesh = learner.trainer.execution.mesh
    live = batch._replace(routes_LBT=np.full_like(batch.routes_LBT, -1))
    logp_BT, routes_LBT = log_probabilities(learner, state, place_batch(mesh, live))
    if replay:
        logp_BT, _ = log_probabilities(learner, state, place_batch(mesh, batch))
    return compare(batch.mu_BT, logp_BT, batch.mask_BT, batch.routes_LBT, routes_LBT)


def _look(work: Work, step: int) -> float:
    asking = work.asking
    looks = look(asking.config, asking.engine, asking.tokenizer, work.held_out, asking.workers, asking.scorer)
    return note_looks(work, step, looks)


def note_looks(work: Work, step: int, looks: list[Look]) -> float:
    """Prints and records what a look came to; returns its accuracy."""
    for one in looks:
        work.metrics.write(kind="look", step=step, **dataclasses.asdict(one))
    mean = accuracy(looks)
    print(f"step {step}: held out {mean:.3f}", file=work.say, flush=True)
    return mean


def tell(work: Work, step: int, groups: dict[str, Any], progress: Progress) -> None:
    """A line about a step."""
    hard = " ".join(f"{track.environment} {track.level.difficulty}" for track in progress.schedule.tracks)
    reward = "none" if groups["reward"] is None else f"{groups['reward']:.3f}"
    line = f"step {step}/{work.asking.config.steps}: reward {reward}, {groups['taught']} of {groups['groups']} groups"
    print(f"{line} taught, length {groups['length']:.0f}; difficulty {hard}", file=work.say, flush=True)

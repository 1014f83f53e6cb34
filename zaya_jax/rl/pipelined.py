"""The pipelined loop: the learner takes groups from a buffer that a thread keeps filling.

The learner is the same as in the synchronous loop. What differs is when answers are drawn: by weights up to
`pipeline.staleness` updates old, a version for each token. Comparisons of engine and learner therefore hold the drift
of the policy too, and are logged as `drift`; `parity` is at equal versions, on the answers of looks.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from zaya_jax.rl import metrics as measured
from zaya_jax.rl.buffer import Buffer, oldest_version
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.generation import Spent
from zaya_jax.rl.held_out import looks_of
from zaya_jax.rl.learner import learn
from zaya_jax.rl.parity import Parity
from zaya_jax.rl.rollout_log import dropped_later, rows
from zaya_jax.rl.sampler import Sampler, Snapshot, again
from zaya_jax.rl.scoring import Scored
from zaya_jax.rl.synchronous import (
    Memory,
    Work,
    batches_of,
    engine_weights,
    note_looks,
    parity_of,
    record,
    recorded,
    rollouts_of,
    tell,
    warn,
)
from zaya_jax.train.optimizer import learning_rate
from zaya_jax.train.step import TrainState
from zaya_jax.train.stopping import asked_to_stop

_PATIENCE = 0.5  # seconds between two looks at whether somebody asked to stop


def make_pipelined_steps(
    work: Work, state: TrainState, memory: Memory, stored: list[dict[str, Any]]
) -> tuple[TrainState, Memory]:
    """Goes on until the last step, or until a signal; either way there is a checkpoint then.

    Args:
        stored: problems of a checkpoint whose answers were lost.

    Raises:
        UserError: as the synchronous loop; what the sampler raises, it raises.
    """
    asking, config, first = work.asking, work.asking.config, int(state.step)
    buffer, notes = Buffer(config.pipeline.buffer, config.pipeline.staleness), _Notes(work, first + 1)
    place = _place(asking.engine.model.execution.mesh)
    sampler = Sampler(asking, memory.progress, buffer, notes.add, again(asking, stored), place)
    line = _Line(sampler, buffer, notes)
    notes.drop((row["number"], "asked again") for row in stored if row["seen"])
    sampler.post(engine_weights(work, state.variables), first)
    with asked_to_stop() as asked, sampler:
        if work.held_out and not work.checkpoints.steps():
            _look(work, state, 0, sampler)
        for step in range(first + 1, config.steps + 1):
            notes.begin(step)
            since = _Since(time.monotonic(), dataclasses.replace(sampler.spent))
            groups = _take(config, line, step - 1, asked)
            if groups is None:
                step -= 1
            else:
                state, memory = _step(work, state, memory, step, groups, line, since)
            stop = groups is None or asked.is_set() or step == config.steps
            if stop or (config.checkpoints.every > 0 and step % config.checkpoints.every == 0):
                memory = _save(work, step, state, memory, sampler.snapshot(functools.partial(notes.begin, step + 1)))
            if stop:
                break
    notes.drop(buffer.take_gone())
    if int(state.step) == config.steps:
        notes.drop((one.answered.asked.number, "left over") for one in buffer.groups())
    work.checkpoints.wait()
    return state, memory


@dataclasses.dataclass(frozen=True)
class _Since:
    """When the wait for a step's groups began, and what the engine had spent until then."""

    time: float
    spent: Spent


class _Notes:
    """What the sampler has scored since the last step; every answer goes on record at once."""

    def __init__(self, work: Work, step: int):
        self._work, self._lock = work, threading.Lock()
        self._scored: collections.deque[Scored] = collections.deque()
        self._step = step

    def begin(self, step: int) -> None:
        """What is scored from now on belongs to this step, which begins with the checkpoint of the one before: groups
        that this does not know are taken out of the log by a run that goes on from it, and asked again."""
        self._step = step

    def add(self, scored: Scored, version: int) -> None:
        del version
        if self._step > self._work.asking.config.steps:
            return  # nobody learns from it, and no checkpoint knows of it
        with self._lock:
            for row in rows(self._step, scored):
                self._work.rollouts.write(**row)
            self._scored.append(scored)

    def drop(self, groups: Iterable[tuple[int, str]]) -> None:
        """Numbers and reasons of groups that are on record, and that the learner will never get."""
        with self._lock:
            for number, reason in groups:
                self._work.rollouts.write(**dropped_later(self._step, number, reason))

    def take(self) -> list[Scored]:
        with self._lock:
            found = list(self._scored)
            self._scored.clear()
            return found


@dataclasses.dataclass(frozen=True)
class _Line:
    """What brings groups to the learner."""

    sampler: Sampler
    buffer: Buffer
    notes: _Notes


def _take(config: RlConfig, line: _Line, version: int, asked: threading.Event) -> list[Scored] | None:
    """The next groups; None if somebody asked to stop before there were enough. What ended the sampler ends the run,
    whatever it left behind."""
    waited_for = config.pipeline.batches * config.groups
    while line.sampler.error is None:
        found = line.buffer.take(config.groups, version, _PATIENCE, waited_for)
        if found is not None and line.sampler.error is None:
            return found
        if asked.is_set():
            return None
    raise line.sampler.error


def _step(
    work: Work, state: TrainState, memory: Memory, step: int, groups: list[Scored], line: _Line, since: _Since
) -> tuple[TrainState, Memory]:
    config, sampler, waiting = work.asking.config, line.sampler, time.monotonic() - since.time
    batches, drift, parity = batches_of(config, groups), None, None
    if config.parity_every and step % config.parity_every == 0:
        drift = parity_of(work.learner, state, recorded(config, rollouts_of(groups)), config.replay)
    rate = learning_rate(config.optimizer, (step - 1) / config.steps, config.steps)
    state, told = learn(work.learner, state, batches, rate)
    if step % config.pipeline.sync_every == 0:
        sampler.post(engine_weights(work, state.variables), step)
    updated = measured.of_update(told)  # waits for the device
    gone = line.buffer.take_gone()
    line.notes.drop(gone)
    found, progress = line.notes.take() or groups, sampler.snapshot().progress
    stale = np.array([step - 1 - oldest_version(one) for one in groups])
    seen = measured.of_groups(found, work.learner.trainer.model.vocab_size)
    held_out = None
    if config.held_out.every and step % config.held_out.every == 0:
        held_out, parity = _look(work, state, step, sampler)
    spent, before = sampler.spent, since.spent
    work.metrics.write(
        kind="step", step=step, learning_rate=rate, **seen, **updated,
        environments=measured.of_environments(found, progress), drift=drift and drift.to_json(),
        parity=parity and parity.to_json(), staleness={"mean": float(stale.mean()), "max": int(stale.max())},
        **{why: sum(reason == why for _, reason in gone) for why in ("evicted", "stale")},  # since the step before
        drawn_tokens=spent.tokens - before.tokens,
        seconds={"engine": spent.engine - before.engine, "waiting": waiting, "whole": time.monotonic() - since.time},
    )  # fmt: skip
    watch = warn(work, step, memory.watch, seen, held_out)
    tell(work, step, seen, progress)
    return state, Memory(progress, watch)


def _look(work: Work, state: TrainState, step: int, sampler: Sampler) -> tuple[float, Parity | None]:
    """Held-out accuracy. The engine has the step's weights then, whatever `sync_every` says: these answers are those
    that engine and learner are compared on at equal versions."""
    config = work.asking.config
    weights = engine_weights(work, state.variables)
    found = sampler.look(work.held_out, weights, step)
    accuracy = note_looks(work, step, looks_of(config, found, work.asking.scorer))
    if not config.parity_every:
        return accuracy, None
    rollouts = [rollout for one in found for rollout in one.rollouts]
    return accuracy, parity_of(work.learner, state, recorded(config, rollouts), config.replay)


def _save(work: Work, step: int, state: TrainState, memory: Memory, found: Snapshot) -> Memory:
    memory = dataclasses.replace(memory, progress=found.progress)
    work.checkpoints.save(step, state, record(memory, found.failures) | {"again": found.to_json()})
    return memory


def _place(mesh: jax.sharding.Mesh | None) -> Any:
    """Where the sampler's small arrays are made: not where the learner learns."""
    return contextlib.nullcontext if mesh is None else functools.partial(jax.default_device, mesh.devices.flat[0])

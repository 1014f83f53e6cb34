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
from zaya_jax.rl.sampler import Sampler, again
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
    config, first, line = work.asking.config, int(state.step), _line(work, state, memory, stored)
    line.sampler.post(engine_weights(work, state.variables), first)
    with asked_to_stop() as asked, line.sampler:
        if work.held_out and not work.checkpoints.steps():
            _look(work, state, 0, line.sampler)
        for step in range(first + 1, config.steps + 1):
            line.notes.step, begun = step, time.monotonic()
            groups = _take(config, line, step - 1, asked)
            if groups is None:
                step -= 1
            else:
                state, memory = _step(work, state, memory, step, groups, line, time.monotonic() - begun)
            stop = groups is None or asked.is_set() or step == config.steps
            if stop or (config.checkpoints.every > 0 and step % config.checkpoints.every == 0):
                memory = _save(work, step, state, memory, line)
            if stop:
                break
    line.notes.drop(line.buffer.take_gone())
    if int(state.step) == config.steps:
        line.notes.drop((one.answered.asked.number, "left over") for one in line.buffer.groups())
    work.checkpoints.wait()
    return state, memory


@dataclasses.dataclass(frozen=True)
class _Line:
    """What brings groups to the learner."""

    sampler: Sampler
    buffer: Buffer
    notes: _Notes
    clock: _Clock


def _line(work: Work, state: TrainState, memory: Memory, stored: list[dict[str, Any]]) -> _Line:
    asking, pipeline = work.asking, work.asking.config.pipeline
    buffer, notes = Buffer(pipeline.buffer, pipeline.staleness), _Notes(work, int(state.step) + 1)
    place = _place(asking.engine.model.execution.mesh)
    reason = "left over" if int(state.step) == asking.config.steps else "asked again"
    notes.drop((row["number"], reason) for row in stored if row["seen"])
    sampler = Sampler(asking, memory.progress, buffer, notes.add, again(asking, stored), place)
    return _Line(sampler, buffer, notes, _Clock(sampler))


class _Clock:
    """Time and work of the engine from one step's record to the next."""

    def __init__(self, sampler: Sampler):
        self._sampler, self._time, self._spent = sampler, time.monotonic(), dataclasses.replace(sampler.spent)

    def lap(self) -> tuple[float, Spent]:
        """Seconds, and what the engine spent, since the last call."""
        before, spent, now = self._spent, dataclasses.replace(self._sampler.spent), time.monotonic()
        seconds, self._time, self._spent = now - self._time, now, spent
        return seconds, Spent(
            spent.engine - before.engine, spent.waiting - before.waiting, spent.tokens - before.tokens
        )


class _Notes:
    """What the sampler has scored since the last step; every answer goes on record at once."""

    def __init__(self, work: Work, step: int):
        self._work, self._lock = work, threading.Lock()
        self._scored: collections.deque[Scored] = collections.deque()
        self.step = step  # that what is scored now belongs to
        self._dropped: collections.Counter[str] = collections.Counter()

    def add(self, scored: Scored, version: int) -> None:
        del version
        if self.step > self._work.asking.config.steps:
            return  # nobody learns from it, and no checkpoint knows of it
        with self._lock:
            for row in rows(self.step, scored):
                self._work.rollouts.write(**row)
            self._scored.append(scored)

    def drop(self, groups: Iterable[tuple[int, str]]) -> None:
        """Numbers and reasons of groups that are on record, and that the learner will never get."""
        with self._lock:
            for number, reason in groups:
                self._work.rollouts.write(**dropped_later(self.step, number, reason))
                self._dropped[reason] += 1

    def take_dropped(self) -> collections.Counter[str]:
        """How many groups went for which reason since the last call."""
        with self._lock:
            found, self._dropped = self._dropped, collections.Counter()
            return found

    def take(self) -> list[Scored]:
        with self._lock:
            found = list(self._scored)
            self._scored.clear()
            return found


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
    work: Work, state: TrainState, memory: Memory, step: int, groups: list[Scored], line: _Line, waiting: float
) -> tuple[TrainState, Memory]:
    config, sampler, held_out = work.asking.config, line.sampler, None
    batches, drift, parity = batches_of(config, groups), None, None
    if config.parity_every and step % config.parity_every == 0:
        drift = parity_of(work.learner, state, recorded(config, rollouts_of(groups)), config.replay)
    rate = learning_rate(config.optimizer, (step - 1) / config.steps, config.steps)
    state, told = learn(work.learner, state, batches, rate)
    if step % config.pipeline.sync_every == 0:
        sampler.post(engine_weights(work, state.variables), step)
    updated = measured.of_update(told)  # waits for the device
    if config.held_out.every and step % config.held_out.every == 0:
        held_out, parity = _look(work, state, step, sampler, config.parity_every > 0)
    found, progress = line.notes.take() or groups, sampler.snapshot().progress
    seen = measured.of_groups(found, work.learner.trainer.model.vocab_size)
    work.metrics.write(
        kind="step", step=step, learning_rate=rate, **seen, **updated,
        environments=measured.of_environments(found, progress), drift=drift and drift.to_json(),
        parity=parity and parity.to_json(), **_flow(line, step, groups, waiting),
    )  # fmt: skip
    watch = warn(work, step, memory.watch, seen, held_out)
    tell(work, step, seen, progress)
    return state, Memory(progress, watch)


def _flow(line: _Line, step: int, groups: list[Scored], waiting: float) -> dict[str, Any]:
    """Of groups and time since the step before."""
    line.notes.drop(line.buffer.take_gone())
    gone, (seconds, spent) = line.notes.take_dropped(), line.clock.lap()
    stale = np.array([step - 1 - oldest_version(one) for one in groups])
    return {
        "staleness": {"mean": float(stale.mean()), "max": int(stale.max())},
        **{reason: gone[reason] for reason in ("evicted", "stale")},
        "drawn_tokens": spent.tokens,
        "seconds": {"engine": spent.engine, "waiting": waiting, "whole": seconds},
    }


def _look(
    work: Work, state: TrainState, step: int, sampler: Sampler, compares: bool = False
) -> tuple[float, Parity | None]:
    """Held-out accuracy. The engine has the step's weights then, whatever `sync_every` says: these answers are those
    that engine and learner are compared on at equal versions."""
    config = work.asking.config
    found = sampler.look(work.held_out, engine_weights(work, state.variables), step)
    accuracy = note_looks(work, step, looks_of(config, found, work.asking.scorer))
    if not compares:
        return accuracy, None
    rollouts = [rollout for one in found for rollout in one.rollouts]
    return accuracy, parity_of(work.learner, state, recorded(config, rollouts), config.replay)


def _save(work: Work, step: int, state: TrainState, memory: Memory, line: _Line) -> Memory:
    """A checkpoint of a moment at which no group is being scored: what stands in the log by then, it knows, and a run
    that goes on takes out what stands behind."""
    sizes: list[int] = []

    def mark() -> None:
        line.notes.drop(line.buffer.take_gone())
        line.notes.step = step + 1
        sizes.append(work.rollouts.size)

    found = line.sampler.snapshot(mark)
    memory = dataclasses.replace(memory, progress=found.progress)
    also = {"again": found.to_json(), "rollouts_size": sizes[0]}
    work.checkpoints.save(step, state, record(memory, found.failures) | also)
    return memory


def _place(mesh: jax.sharding.Mesh | None) -> Any:
    """Where the sampler's small arrays are made: not where the learner learns."""
    return contextlib.nullcontext if mesh is None else functools.partial(jax.default_device, mesh.devices.flat[0])

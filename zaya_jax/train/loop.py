"""The loop around the step: a budget of seconds or of steps, and the learning rate along it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from zaya_jax.data.batch import Batch
from zaya_jax.errors import mistake
from zaya_jax.train.optimizer import learning_rate
from zaya_jax.train.step import StepMetrics, TrainState, train_step
from zaya_jax.train.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long to train: for `steps` steps, or, if that is None, for `seconds` of wall clock."""

    seconds: float = 90.0
    steps: int | None = None

    def __post_init__(self):
        if not self.seconds > 0:
            raise mistake("out of range", where="seconds", expected="a positive number", found=self.seconds)
        if self.steps is not None and self.steps < 1:
            raise mistake("out of range", where="steps", expected="a positive integer", found=self.steps)

    def progress(self, steps: int, first: float, now: float) -> float:
        """Share that is used up after so many steps at second `now`, if the first step, which compiles, took `first`.

        However long that was, half of the seconds are left for the steps behind it.
        """
        if self.steps is not None:
            return steps / self.steps
        return (now - first) / max(self.seconds - first, self.seconds / 2)


class Done(NamedTuple):
    """A finished step.

    Attributes:
        step: its number, from 1.
        seconds: since the loop began.
        progress: share of the budget that was used up when the step began.
        learning_rate: of this step.
        state: after it; used up by the next step.
        metrics: its own, on the host.
    """

    step: int
    seconds: float
    progress: float
    learning_rate: float
    state: TrainState
    metrics: StepMetrics


def run(
    trainer: Trainer,
    state: TrainState,
    batches: Callable[[int], Batch],
    budget: Budget,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Done]:
    """Trains until the budget is used up, at least for one step, and yields every step when it is finished.

    Args:
        state: where to begin; used up.
        batches: gives the batch of a step, numbered from 0.
    """
    start, first = clock(), 0.0
    step, progress = 0, 0.0
    while progress < 1:
        rate = learning_rate(trainer.optimizer, progress)
        state, metrics = train_step(trainer, state, batches(step), jnp.float32(rate))
        metrics = jax.device_get(metrics)
        step, seconds = step + 1, clock() - start
        first = first or seconds
        yield Done(step, seconds, progress, rate, state, metrics)
        progress = budget.progress(step, first, clock() - start)

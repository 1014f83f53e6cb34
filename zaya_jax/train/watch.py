"""What a run writes down of every step: metrics, the examples in it, bad steps and spikes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from zaya_jax.data.dataset import Ids
from zaya_jax.report.progress import Progress, eta, mfu, training_figures
from zaya_jax.train.balance import load_entropy
from zaya_jax.train.chips import chip_of
from zaya_jax.train.config import RunConfig
from zaya_jax.train.plan_work import model_flops_per_token
from zaya_jax.train.records import Records
from zaya_jax.train.step import StepMetrics
from zaya_jax.train.stopping import BadSteps, Spikes

_OF_PAIRS = ("pairs", "accuracy", "margin", "chosen_reward", "rejected_reward")
_RECENT = 20  # steps whose speed is told, compiling is soon forgotten; and whose load, a batch is a small sample


class Finished(NamedTuple):
    """A step whose metrics are still on the device."""

    step: int
    learning_rate: float
    metrics: StepMetrics
    ids: Ids


class Watch:
    """Records steps, each when the next one is under way.

    Attributes:
        last: the step that is not recorded yet.
    """

    def __init__(
        self,
        config: RunConfig,
        first: int,
        metrics: Records,
        examples: Records,
        progress: Progress,
        bad: BadSteps,
        devices: int = 1,
    ):
        self.last: Finished | None = None
        self._config, self._first = config, first
        self._metrics, self._examples, self._progress = metrics, examples, progress
        self._bad, self._spikes, self._devices = bad, Spikes(), devices
        self._started, self._elsewhere = time.monotonic(), 0.0
        self._recent: deque[float] = deque([self._started], _RECENT + 1)  # when steps were recorded
        self._counts: deque[np.ndarray] = deque(maxlen=_RECENT)  # tokens of each class, [L, C] a step
        self._flops = model_flops_per_token(config.model, config.data.length)
        chip = chip_of(jax.devices()[0].device_kind)
        self._peak = None if chip is None else chip.peak(config.execution.dtype)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Around what is not the step: waiting for data, a look at held-out data, a checkpoint."""
        before = time.monotonic()
        yield
        self._elsewhere += time.monotonic() - before

    def say(self, line: str) -> None:
        """Shows a line above the progress."""
        self._progress.say(line)

    def record_last(self) -> None:
        """Reads the last step's metrics off the device and writes them down; nothing if that is done.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        if self.last is None:
            return
        finished, self.last = self.last, None
        metrics = jax.device_get(finished.metrics)
        step, loss, applied = finished.step, float(metrics.loss), bool(metrics.applied)
        examples = [example for row in finished.ids for example in row]
        self._bad.see(applied)
        self._examples.write(step=step, examples=examples)
        usual = self._spikes.see(loss) if applied else None
        if usual is not None:
            self._metrics.write(kind="spike", step=step, loss=loss, usual=usual, examples=examples)
        if not applied:
            self._metrics.write(kind="event", step=step, what="loss or gradient not finite: nothing was updated")
        self._write(finished, metrics, loss)
        self._bad.check(step)

    def _write(self, finished: Finished, metrics: StepMetrics, loss: float) -> None:
        config, balance, step = self._config, metrics.balance, finished.step
        self._counts.append(metrics.router_counts_LC)
        seconds = time.monotonic() - self._started
        self._recent.append(self._started + seconds)
        speed = config.tokens_per_step * (len(self._recent) - 1) / (self._recent[-1] - self._recent[0])
        share = mfu(speed, self._flops, self._devices, self._peak)
        left = eta(step, config.steps, seconds, self._first)
        self._progress.show(step, **training_figures(loss, speed, share, left))
        if step % config.log_every and step != config.steps:
            return
        pairs = metrics.preference
        preference = {} if pairs is None else {name: getattr(pairs, name) for name in _OF_PAIRS}
        self._metrics.write(
            kind="train",
            step=step,
            tokens=step * config.tokens_per_step,
            seconds=seconds,
            loss=loss,
            learning_rate=finished.learning_rate,
            gradient_norm=metrics.gradient_norm,
            tokens_per_s=speed,
            mfu=share,
            load_entropy=balance.entropy_L,
            recent_load_entropy=load_entropy(sum(self._counts), np),
            max_load=balance.max_L,
            min_load=balance.min_L,
            skipped=balance.skipped_L,
            bad_steps=self._bad.total,
            step_share=1 - self._elsewhere / seconds,
            **preference,
        )

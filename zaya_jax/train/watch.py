"""What a run writes down of every step: metrics, the examples in it, bad steps and spikes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from zaya_jax.data.dataset import Ids
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.report.progress import Progress
from zaya_jax.train.config import RunConfig
from zaya_jax.train.step import StepMetrics
from zaya_jax.train.stopping import BadSteps, Spikes


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
        metrics: MetricsWriter,
        examples: MetricsWriter,
        progress: Progress,
        bad: BadSteps,
    ):
        self.last: Finished | None = None
        self._config, self._first = config, first
        self._metrics, self._examples, self._progress = metrics, examples, progress
        self._bad, self._spikes = bad, Spikes()
        self._started, self._waited = time.monotonic(), 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around what gets a batch: this time is not the step's."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

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
        self._examples.write(step=step, examples=examples)
        usual = self._spikes.see(loss) if applied else None
        if usual is not None:
            self._metrics.write(kind="spike", step=step, loss=loss, usual=usual, examples=examples)
        if not applied:
            self._metrics.write(kind="event", step=step, what="loss or gradient not finite: nothing was updated")
        self._write(finished, metrics, loss)
        self._bad.see(step, applied)

    def _write(self, finished: Finished, metrics: StepMetrics, loss: float) -> None:
        config, balance, step = self._config, metrics.balance, finished.step
        seconds = time.monotonic() - self._started
        speed = config.tokens_per_step * (step - self._first) / seconds
        self._progress.show(step, loss=loss, tokens_per_s=speed)
        if step % config.log_every and step != config.steps:
            return
        self._metrics.write(
            kind="train",
            step=step,
            tokens=step * config.tokens_per_step,
            seconds=seconds,
            loss=loss,
            learning_rate=finished.learning_rate,
            gradient_norm=metrics.gradient_norm,
            tokens_per_s=speed,
            mfu=None,
            load_entropy=balance.entropy_L,
            max_load=balance.max_L,
            min_load=balance.min_L,
            skipped=balance.skipped_L,
            bad_steps=self._bad.total,
            step_share=1 - self._waited / seconds,
        )

"""When a run stops before its last step: a signal, the wall clock, or a loss that is not finite any more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zaya_jax.errors import mistake


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM or the first Ctrl-C sets; a second Ctrl-C interrupts. Only in the main thread."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Agreement:
    """Whether any of several processes wants to stop, heard by all at the same step: one step after it was said."""

    def __init__(self, mesh: Mesh | None):
        self._mesh = mesh if jax.process_count() > 1 else None
        self._before: jax.Array | None = None
        if self._mesh is not None:
            self._everywhere = NamedSharding(self._mesh, PartitionSpec())
            self._any = jax.jit(jnp.any, out_shardings=self._everywhere)

    def heard(self, wish: bool) -> bool:
        """Says what this process wishes; returns what any wished the last time. One process decides at once."""
        if self._mesh is None:
            return wish
        apart = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        said = jax.make_array_from_callback((self._mesh.size,), apart, lambda _: np.full(1, wish))
        before, self._before = self._before, self._any(said)
        return before is not None and bool(jax.device_get(before))


class BadSteps:
    """Counts steps whose loss or gradient were not finite.

    Attributes:
        total: of the run, what an earlier process counted included.
    """

    def __init__(self, limit: int, total: int = 0):
        self._limit, self.total, self._row = limit, total, 0

    def see(self, applied: bool) -> None:
        """Takes in a step."""
        self.total += not applied
        self._row = 0 if applied else self._row + 1

    def check(self, step: int) -> None:
        """Raises a UserError if the last `limit` steps, up to this one, were all bad."""
        if self._row >= self._limit:
            fix = "lower the learning rate, or look at the examples of these steps; the checkpoints are untouched"
            found = f"{self._row} steps in a row, the last is step {step}"
            raise mistake("loss or gradient are not finite", expected="a number", found=found, fix=fix)


class Spikes:
    """Finds losses far above the usual: more than `factor` times the distance of the recent ones from their median."""

    def __init__(self, window: int = 100, factor: float = 10.0):
        self._window, self._factor = window, factor
        self._recent: list[float] = []

    def see(self, loss: float) -> float | None:
        """The median of the recent losses if this one is a spike, else None."""
        recent, usual = sorted(self._recent), None
        if len(recent) == self._window:
            median = recent[self._window // 2]
            spread = sorted(abs(x - median) for x in recent)[self._window // 2]
            usual = median if loss > median + self._factor * spread else None
        self._recent = [*self._recent, loss][-self._window :]
        return usual

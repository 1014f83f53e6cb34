"""A few steps recorded for XProf (TensorBoard's profile plugin)."""

from __future__ import annotations

import pathlib

import jax

_AFTER = 3  # steps of this process: compilation and warm-up are over


class Profiler:
    """Records some steps from the fourth of this process on; a context manager.

    Args:
        profile: a directory and how many steps; None records nothing.
        first: steps that were made before.
    """

    def __init__(self, profile: tuple[pathlib.Path, int] | None, first: int):
        self._directory, steps = profile or (None, 0)
        self._begin = first + 1 + _AFTER
        self._end = self._begin + steps + 1  # when the metrics of the last one have been read: it is whole
        self._on = False

    def before(self, step: int) -> None:
        """Starts or ends the recording, to be called before each step."""
        if self._directory is not None and step == self._begin:
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        elif step == self._end:
            self._stop()

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._on:
            jax.profiler.stop_trace()
            self._on = False

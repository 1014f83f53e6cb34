"""The learning rate along a run.

The phases of ZAYA1 are runs of their own that start from the last one's checkpoint, each with its own schedule. A phase
warms up again: from `start`, for instance the share of its peak that the last phase ended with.
"""

from __future__ import annotations

import math
from typing import Protocol

from zaya_jax.errors import mistake

DECAYS = ("cosine", "linear", "constant")


class Schedule(Protocol):
    """What the schedule reads; `OptimizerConfig` has it.

    Attributes:
        learning_rate: the peak.
        warmup: share of the run that the rate takes to rise to it, in a line.
        warmup_steps: the same in steps; None leaves it to `warmup`.
        start: share of the peak that the rise begins with.
        decay: the way down from the peak: half a "cosine", "linear", or "constant", which stays there.
        final: share of the peak at the end; nothing to "constant".
    """

    learning_rate: float
    warmup: float
    warmup_steps: int | None
    start: float
    decay: str
    final: float


def learning_rate(config: Schedule, progress: float, steps: int | None = None) -> float:
    """The rate at a point of the run.

    Args:
        config: the schedule.
        progress: share of the run that is over, from 0; behind 1 the rate stays.
        steps: of the whole run; only `warmup_steps` needs it.

    Raises:
        UserError: `warmup_steps` is given and the run's length in steps is not, or it is shorter.
    """
    warmup = warmup_share(config, steps)
    if progress < warmup:
        share = config.start + (1 - config.start) * progress / warmup
    else:
        over = min((progress - warmup) / (1 - warmup), 1.0) if warmup < 1 else 0.0
        share = config.final + (1 - config.final) * remaining(config.decay, over)
    return config.learning_rate * share


def warmup_share(config: Schedule, steps: int | None) -> float:
    """The warmup as a share of the run, whichever way it is given."""
    if config.warmup_steps is None:
        return config.warmup
    if steps is None or config.warmup_steps > steps:
        expected, found = f"a run of at least {config.warmup_steps} steps", "seconds" if steps is None else steps
        fix = "give the warmup as a share of the run: warmup"
        raise mistake("warmup does not fit the run", where="warmup_steps", expected=expected, found=found, fix=fix)
    return config.warmup_steps / steps


def remaining(decay: str, over: float) -> float:
    """What is left of the way from the peak down to the end, 1 to 0, when a share of the decay is over."""
    if decay == "constant":
        return 1.0
    return 1 - over if decay == "linear" else (1 + math.cos(math.pi * over)) / 2

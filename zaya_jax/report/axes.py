"""Axes: where a value lies, which values are labelled, and how they are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from zaya_jax.report.plots import round_values


@dataclasses.dataclass(frozen=True)
class Axis:
    """From `low` to `high`, low < high; `log` spaces powers of ten evenly (both are then above 0)."""

    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """Shares of the way from low to high; NaN for what has no place (NaN, infinity, 0 on a log axis)."""
        values = np.asarray(values, np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        logs = np.log(np.where(values > 0, values, np.nan))
        return (logs - math.log(self.low)) / (math.log(self.high) - math.log(self.low))

    def ticks(self) -> list[float]:
        """Round values inside, two to ten of them."""
        return _log_ticks(self.low, self.high) if self.log else round_values(self.low, self.high)


def fit(values: Iterable[np.ndarray], *, log: bool = False, margin: float = 0.04, zero: bool = False) -> Axis:
    """The axis that holds all finite values (positive ones if `log`), with a margin; `zero` lets it begin at 0.

    Some axis also where there is one value, or none.
    """
    arrays = [np.asarray(value, np.float64).ravel() for value in values]
    every = np.concatenate(arrays) if arrays else np.empty(0)
    every = every[np.isfinite(every) & (every > 0)] if log else every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (1.0, 1.0)
    if log:
        return _fit_log(low, high, margin)
    low = min(low, 0.0) if zero else low
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        half = 0.5 * abs(high) or 0.5
        return Axis(low if zero and low == 0 else low - half, high + half)
    space = margin * (high - low)
    return Axis(low if zero and low == 0 else low - space, high + space)


def _fit_log(low: float, high: float, margin: float) -> Axis:
    factor = (high / low) ** margin if high > 1.01 * low else 2.0
    return Axis(low / factor, high * factor, log=True)


UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(value: float, digits: int = 3) -> str:
    """A number in a few characters: `8.4B`, `12.3k`, `0.25`, `3e-4`; an en dash for NaN."""
    if not math.isfinite(value):
        return "–"
    for size, unit in UNITS:
        if abs(value) >= max(size, 1e4):
            return f"{float(f'{value / size:.{digits}g}'):g}{unit}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-3:
        power = math.floor(math.log10(abs(value)))
        return f"{value / 10.0**power:.{digits}g}e{power}"
    return f"{value:.{digits}g}"


def labels(values: Sequence[float]) -> list[str]:
    """Ticks in one unit and with the same digits, as few as tell them apart: `2.00` and `2.25`, `0` and `150k`."""
    largest = max((abs(value) for value in values), default=0.0)
    smallest = min((abs(value) for value in values if value), default=1.0)
    if largest < 1e-2 or largest > 1000 * smallest:
        return [short(value) for value in values]
    size, unit = next(((size, unit) for size, unit in UNITS if largest >= max(size, 1e4)), (1.0, ""))
    digits = next((d for d in range(6) if all(_says(value / size, d) for value in values)), 6)
    return [f"{value / size:,.{digits}f}{unit}" if value else "0" for value in values]


def _says(value: float, digits: int) -> bool:
    return abs(round(value, digits) - value) <= 1e-9 * max(abs(value), 1e-9)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = last - first + 1
    if decades >= 3:
        return [10.0**power for power in range(first, last + 1, math.ceil(decades / 7))]
    steps = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    return inside if len(inside) >= 2 else round_values(low, high)

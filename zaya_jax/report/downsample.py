"""Long curves in few points, with everything that the eye would see."""

from __future__ import annotations

import itertools

import numpy as np


def downsample(x: np.ndarray, y: np.ndarray, columns: int, span: tuple[float, float] | None = None) -> np.ndarray:
    """Which points to keep, so that a curve drawn over `columns` columns of pixels looks as it did.

    Of each column the first and the last point, the lowest and the highest, and one gap (NaN) if it has any: at most
    five. Where the columns are as wide as pixels, the same pixels are covered (M4, Jugel et al. 2014).

    Args:
        x: [n], never decreasing.
        y: [n]; NaN is a gap.
        columns: how many parts the span has.
        span: lowest and highest x of the axis; that of x if None.

    Returns:
        Indices, rising; the first and the last point are among them.
    """
    if len(x) <= 4 * columns:
        return np.arange(len(x))
    low, high = span if span is not None else (x[0], x[-1])
    column = np.clip((x - low) / ((high - low) or 1) * columns, 0, columns - 1).astype(np.int64)
    edges = [0, *(np.flatnonzero(np.diff(column)) + 1), len(x)]
    kept = [_of_column(y, start, stop) for start, stop in itertools.pairwise(edges)]
    return np.unique(np.concatenate(kept))


def _of_column(y: np.ndarray, start: int, stop: int) -> np.ndarray:
    part = y[start:stop]
    gaps = np.flatnonzero(np.isnan(part))[:1]
    if len(gaps) and np.isnan(part).all():
        return start + np.array([0, stop - start - 1])
    return start + np.concatenate([[0, stop - start - 1, np.nanargmin(part), np.nanargmax(part)], gaps])


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to `window` - 1 earlier ones, NaN left out, [n]; NaN where there is nothing else."""
    known = np.isfinite(values)
    total, count = (np.cumsum(np.concatenate([[0.0], part])) for part in (np.where(known, values, 0.0), known))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    number = count[stop] - count[start]
    return np.where(number > 0, (total[stop] - total[start]) / np.maximum(number, 1), np.nan)


def column_means(x: np.ndarray, y_NL: np.ndarray, columns: int, span: tuple[float, float]) -> np.ndarray:
    """Mean over the points of each column of the span, NaN left out, [columns, L]; NaN where a column has none.

    A point stands for the stretch up to the next one, so that columns between two points are not empty.

    Args:
        x: [N], never decreasing.
        y_NL: values of L rows at each.
    """
    low, high = span
    out = np.full((columns, y_NL.shape[1]), np.nan, np.float32)
    edges = low + (high - low) * np.arange(columns + 1) / columns
    begin, end = np.searchsorted(x, edges[:-1], "left"), np.searchsorted(x, edges[1:], "left")
    end[-1] = len(x)
    for c in range(columns):
        if end[c] == begin[c] and 0 < begin[c] < len(x):
            out[c] = y_NL[begin[c] - 1]  # between two points
        elif end[c] > begin[c]:
            part = y_NL[begin[c] : end[c]]
            known = np.isfinite(part)
            total = np.where(known, part, 0).sum(axis=0, dtype=np.float64)
            number = known.sum(axis=0)
            out[c] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return out

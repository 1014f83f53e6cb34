"""Downsampling: what the eye would see survives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.report.downsample import column_means, downsample, running_mean

values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=300)


@given(values, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_ends_extremes_and_gaps_of_every_column_survive(y, columns, seed):
    y = np.array(y)
    x = np.cumsum(np.random.default_rng(seed).integers(1, 5, len(y))).astype(float)
    kept = downsample(x, y, columns)
    assert kept[0] == 0 and kept[-1] == len(y) - 1 and np.all(np.diff(kept) > 0)
    assert len(kept) <= max(5 * columns, 4 * columns)
    span = (x[-1] - x[0]) or 1
    column = np.minimum(((x - x[0]) / span * columns).astype(int), columns - 1)
    for c in set(column.tolist()):
        part, chosen = y[column == c], y[kept][column[kept] == c]
        assert np.isnan(part).any() == np.isnan(chosen).any()
        if np.isfinite(part).any():
            assert np.nanmin(part) == np.nanmin(chosen) and np.nanmax(part) == np.nanmax(chosen)


def test_short_curves_stay_as_they_are():
    assert downsample(np.arange(8.0), np.zeros(8), 2).tolist() == list(range(8))
    assert downsample(np.empty(0), np.empty(0), 5).tolist() == []


def test_a_long_curve_becomes_short():
    x = np.arange(100_000.0)
    assert len(downsample(x, np.random.default_rng(0).normal(size=len(x)), 500)) <= 4 * 500


@given(values, st.integers(1, 20))
def test_running_mean_is_the_mean_of_what_is_known(y, window):
    y = np.array(y)
    mean = running_mean(y, window)
    for i in range(len(y)):
        part = y[max(i + 1 - window, 0) : i + 1]
        known = part[np.isfinite(part)]
        np.testing.assert_allclose(mean[i], known.mean() if len(known) else np.nan, rtol=1e-9, atol=1e-6)


def test_column_means():
    x = np.array([0.0, 1, 2, 3, 8])
    y_NL = np.array([[1, 5], [3, np.nan], [10, 7], [20, 9], [50, 60]], float)
    means = column_means(x, y_NL, 6, (0.0, 12.0))
    # columns of width 2: {0, 1}, {2, 3}, between 3 and 8 twice, {8}, behind the end
    expected = [[2, 5], [15, 8], [20, 9], [20, 9], [50, 60], [np.nan, np.nan]]
    np.testing.assert_allclose(means, expected)

"""Axes: everything has its place, ticks are round and told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.report.axes import Axis, fit, labels, short

finite = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(finite, max_size=20), st.booleans(), st.booleans())
def test_the_fitted_axis_holds_every_value_and_has_ticks(values, log, zero):
    axis = fit([np.array([*values, np.nan, np.inf])], log=log, zero=zero)
    assert axis.low < axis.high
    inside = [value for value in values if not log or value > 0]
    assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value in inside)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 10
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in axis.place(np.array(ticks)))
    assert len(set(labels(ticks))) == len(ticks)
    if zero and not log and inside and min(inside) > 0 and max(inside) > 1e-6:
        assert axis.low == 0


def test_an_axis_from_zero_begins_there():
    assert [fit([np.array(y)], zero=True).low for y in ([0.0, 0.0], [3.0], [2.0, 9.0])] == [0, 0, 0]
    assert fit([np.array([-1.0, 9.0])], zero=True).low < -1


def test_places():
    assert Axis(2, 4).place(3) == 0.5
    np.testing.assert_allclose(Axis(1, 100, log=True).place([1, 10, 100]), [0, 0.5, 1])
    assert np.isnan(Axis(1, 100, log=True).place([0, -1, np.nan])).all()
    assert np.isnan(Axis(0, 1).place(np.inf))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2, 2.25, 2.5], ["2.00", "2.25", "2.50"]),
        ([0, 50_000, 100_000], ["0", "50k", "100k"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 5e8, 1e9], ["0", "0.5B", "1.0B"]),
        ([0, 1e-4, 2e-4], ["0", "1e-4", "2e-4"]),
        ([0.01, 1, 100, 10_000], ["0.01", "1", "100", "10k"]),
        ([], []),
    ],
)
def test_labels(values, expected):
    assert labels(values) == expected


def test_short_numbers():
    given = (8.4e9, 12_345, 9_999, 0.25, 3e-4, -2.5e-7, 0, float("nan"))
    assert [short(value) for value in given] == ["8.4B", "12.3k", "9,999", "0.25", "3e-4", "-2.5e-7", "0", "–"]

"""Agreement of engine and trainer: numbers worked by hand, and what hides in large differences."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.parity import Parity, compare, pearson, route_flips


def test_by_hand():
    """Probabilities .5 .1 .3 of the engine, .25 .4 .3 of the trainer; a fourth token does not count.

    Ratios 1/2, 4, 1: K3 is log 2 - 1/2, 3 - log 4, 0. Deviations from the means .3 and .95 / 3: (.2, -.2, 0) and
    (-.2, .25, -.05) / 3 of it; the sum of their products is -.09 / 3, of their squares .08 and .105 / 9.
    """
    engine, trainer = np.log([[0.5, 0.1], [0.3, 0.9]]), np.log([[0.25, 0.4], [0.3, 0.1]])
    found = compare(engine, trainer, [[1, 1], [1, 0]])
    assert found.tokens == 3
    assert found.max_delta == pytest.approx(math.log(4), rel=1e-12)
    assert found.kl == pytest.approx((2.5 - math.log(2)) / 3, rel=1e-12)
    assert found.pearson == pytest.approx(-0.09 / 3 / math.sqrt(0.08 * 0.105 / 9), rel=1e-12)
    assert (found.route_flips, found.routes) == (None, None)


def test_the_same_numbers_agree():
    logp = np.log([[0.3, 0.7, 0.2]])
    found = compare(logp, logp, np.ones((1, 3)))
    assert (found.max_delta, found.kl) == (0, 0)
    assert found.pearson == pytest.approx(1, abs=1e-15)


def test_k3_of_a_tiny_difference_is_half_its_square():
    """exp(d) - 1 - d written so would be rounding alone."""
    found = compare([-1.0, -2.0], [-1.0 + 1e-7, -2.0 - 1e-7], [1, 1])
    assert found.kl == pytest.approx(1e-14 / 2, rel=1e-6, abs=0)


def test_float32_log_probabilities_are_compared_in_float64():
    engine, trainer = np.array([-5.0], np.float32), np.array([-0.1], np.float32)
    exact = 5 + float(trainer[0])
    assert compare(engine, trainer, [1]).max_delta == exact != float(trainer[0] - engine[0])


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=20))
def test_pearson_is_numpys(pairs):
    x, y = np.array(pairs).T
    if np.ptp(x) > 1e-6 and np.ptp(y) > 1e-6:
        assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


@pytest.mark.parametrize("mask, tokens", [([0, 0], 0), ([1, 0], 1), ([1, 1], 2)])
def test_no_correlation_without_variation(mask, tokens):
    found = compare([-1.0, -1.0], [-1.5, -1.5], mask)
    assert (found.tokens, found.pearson, found.max_delta) == (tokens, None, 0.5 if tokens else 0)


def test_flips_are_counted_where_both_chose():
    engine = np.array([[[0, 1, -1, 3]], [[4, 16, 5, -1]]], np.int8)
    trainer = np.array([[[0, 2, 5, -1]], [[4, 15, 5, -1]]], np.int8)
    assert route_flips(engine, trainer) == (2, 5)
    found = compare(np.zeros((1, 4)), np.zeros((1, 4)), np.ones((1, 4)), engine, trainer)
    assert (found.route_flips, found.routes) == (2, 5)


def test_json_has_only_numbers_of_json():
    found = compare([-1.0, -2.0], [-1.0, -math.inf], [1, 1])
    assert found.max_delta == math.inf
    fields = {"tokens": 2, "max_delta": None, "kl": None, "route_flips": None, "routes": None}
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record == fields | {"pearson": pytest.approx(1)}
    assert Parity(1, 0.5, 0.25, None, 0, 7).to_json() == {
        "tokens": 1,
        "max_delta": 0.5,
        "kl": 0.25,
        "pearson": None,
        "route_flips": 0,
        "routes": 7,
    }


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: compare([-1.0], [-1.0, -2.0], [1]), "log-probabilities of different shapes"),
        (lambda: compare([-1.0], [-1.0], [1, 1]), "log-probabilities of different shapes"),
        (lambda: route_flips([[0]], [[0, 1]]), "routes of different shapes"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()

"""The learning rate's closed forms."""

import pytest

from zaya_jax.errors import UserError
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.schedule import learning_rate


def rate(progress, steps=None, **values):
    return learning_rate(
        OptimizerConfig(**({"learning_rate": 2, "warmup": 0.1, "final": 0.2} | values)), progress, steps
    )


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.05, 1), (0.1, 2), (0.55, 1.2), (1, 0.4), (1.7, 0.4)])
def test_rises_to_the_peak_and_falls_along_half_a_cosine(progress, expected):
    assert rate(progress) == pytest.approx(expected)


def test_a_third_of_the_cosine_is_three_quarters_of_the_way():
    assert rate(0.4) == pytest.approx(0.4 + 1.6 * 0.75)  # (1 + cos 60) / 2


@pytest.mark.parametrize(("progress", "expected"), [(0.05, 1), (0.1, 2), (0.4, 2 - 1.6 / 3), (1, 0.4), (1.7, 0.4)])
def test_falls_in_a_line(progress, expected):
    assert rate(progress, decay="linear") == pytest.approx(expected)


@pytest.mark.parametrize(("progress", "expected"), [(0.05, 1), (0.1, 2), (0.4, 2), (1, 2)])
def test_stays_at_the_peak(progress, expected):
    assert rate(progress, decay="constant") == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_without_warmup_it_begins_at_the_peak(decay):
    assert rate(0, warmup=0, decay=decay) == 2


def test_a_run_that_is_all_warmup_ends_at_the_peak():
    assert [rate(p, warmup=1) for p in (0, 0.5, 1)] == [0, 1, 2]


@pytest.mark.parametrize(("step", "expected"), [(0, 0), (10, 0.5), (40, 2), (120, 1.2), (200, 0.4)])
def test_warmup_in_steps(step, expected):
    assert rate(step / 200, steps=200, warmup_steps=40, warmup=0.9) == pytest.approx(expected)


def test_a_phase_begins_where_the_last_one_ended():
    ended = rate(1)
    assert rate(0, learning_rate=1, start=ended) == pytest.approx(ended)
    assert rate(0.05, learning_rate=1, start=ended) == pytest.approx((1 + ended) / 2)
    assert rate(0.1, learning_rate=1, start=ended) == pytest.approx(1)


@pytest.mark.parametrize(("steps", "found"), [(None, "seconds"), (30, "30")])
def test_a_run_too_short_for_its_warmup_is_a_users_mistake(steps, found):
    with pytest.raises(UserError, match=rf"warmup_steps: .*at least 40 steps.*found {found}"):
        rate(0, steps=steps, warmup_steps=40)

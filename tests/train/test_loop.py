"""The loop's arithmetic, with a clock that goes as the test says and steps that compute nothing."""

import jax.numpy as jnp
import pytest

from tests.train.models import tiny
from zaya_jax.errors import UserError
from zaya_jax.model import Execution
from zaya_jax.train import loop
from zaya_jax.train.loop import Budget
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.step import StepMetrics
from zaya_jax.train.trainer import Trainer

TRAINER = Trainer(tiny(), Execution(), OptimizerConfig(learning_rate=1.0, warmup=0.5, final=0.0))


@pytest.fixture
def run(monkeypatch):
    """Runs a budget with steps of the given seconds (the last is repeated); returns what was yielded."""

    def run(budget, *durations):
        now, rates = [100.0], []

        def step(trainer, state, batch, rate):
            now[0] += durations[min(batch, len(durations) - 1)]
            rates.append(float(rate))
            zero = jnp.zeros(())
            return state + 1, StepMetrics(zero, zero, zero, zero, zero)

        monkeypatch.setattr(loop, "train_step", step)
        finished = list(loop.run(TRAINER, 0, lambda number: number, budget, clock=lambda: now[0]))
        assert [done.learning_rate for done in finished] == pytest.approx(rates)
        return finished

    return run


def test_seconds_include_the_first_step(run):
    finished = run(Budget(seconds=60), 20, 1)
    assert len(finished) == 41
    assert finished[-1].seconds == 60
    assert [done.step for done in finished] == list(range(1, 42))
    assert [done.state for done in finished] == list(range(1, 42))


def test_a_long_first_step_leaves_half_of_the_seconds(run):
    assert run(Budget(seconds=60), 50, 1)[-1].seconds == 80
    assert run(Budget(seconds=60), 500, 1)[-1].seconds == 530


def test_at_least_one_step_is_made_and_no_budget_is_overrun_by_more_than_a_step(run):
    assert [done.seconds for done in run(Budget(seconds=1), 0.5, 7)] == [0.5, 7.5]


def test_steps_are_counted_whatever_they_take(run):
    finished = run(Budget(seconds=1, steps=4), 10)
    assert [done.progress for done in finished] == [0, 0.25, 0.5, 0.75]


def test_learning_rate_follows_progress(run):
    finished = run(Budget(steps=4), 1)
    assert [done.learning_rate for done in finished] == pytest.approx([0, 0.5, 1, 0.5])


@pytest.mark.parametrize("values", [{"seconds": 0}, {"seconds": -1}, {"seconds": float("nan")}, {"steps": 0}])
def test_impossible_budgets_are_users_mistakes(values):
    with pytest.raises(UserError, match=next(iter(values))):
        Budget(**values)

"""The adapter on reasoning-gym itself, where it is installed."""

import pytest

from zaya_jax.environments.environment import Verdict
from zaya_jax.environments.reasoning_gym import DENIED
from zaya_jax.environments.workers import WorkerLimits, Workers

factory = pytest.importorskip("reasoning_gym.factory", reason="reasoning-gym is not installed: pip install -e .[rl]")
REAL = ("chain_sum", "number_sorting", "rotate_matrix", "prime_factorization", "letter_counting", "acre", "modulo_grid")


def test_every_denied_data_set_is_one():
    assert set(DENIED) <= set(factory.DATASETS)


def test_its_own_answers_are_right_others_are_wrong_and_problems_are_the_same_twice():
    with Workers(1, WorkerLimits(seconds=20)) as workers:
        for name in REAL:
            for difficulty in (0, 3, 50):
                problem = workers.generate(f"reasoning_gym:{name}", 1, difficulty).result()
                assert problem == workers.generate(f"reasoning_gym:{name}", 1, difficulty).result()
                gold = problem.hidden["answer"]
                for response, correct in ((gold, True), (f"{gold} or not", False), ("junk", False)):
                    verdict = workers.verify(f"reasoning_gym:{name}", problem, f"<answer>{response}</answer>").result()
                    assert isinstance(verdict, Verdict) and verdict.correct == correct, (name, difficulty, response)

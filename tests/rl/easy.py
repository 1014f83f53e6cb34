"""An environment that a random model solves now and then, for runs that tests start."""

import random

from zaya_jax.environments.environment import Environment, Problem, Verdict


def generate(seed: int, difficulty: int) -> Problem:
    """Some letters."""
    rng = random.Random(f"easy {seed} {difficulty}")
    return Problem(
        f"easy/{difficulty}/{seed}", "".join(rng.choice("abcdefgh") for _ in range(difficulty + 2)), {"kind": "easy"}
    )


def verify(problem: Problem, response: str) -> Verdict:
    """Right without a comma."""
    right = bool(response.strip()) and "," not in response
    return Verdict(float(right), right, True)


def verify_fairly(problem: Problem, response: str) -> Verdict:
    """Right about half of the time: of an odd number of characters."""
    right = len(response) % 2 == 1
    return Verdict(float(right), right, True)


def generate_shallow(seed: int, difficulty: int) -> Problem:
    """None is harder than of difficulty 2."""
    level = min(difficulty, 2)
    meta = {"difficulty": difficulty, "level": level, "saturated": difficulty >= 2}
    made = generate(seed, level)
    return Problem(f"shallow/{difficulty}/{seed}", made.prompt, made.hidden, meta)


EASY = Environment("tests.rl.easy:EASY", generate, verify)
FAIR = Environment("tests.rl.easy:FAIR", generate, verify_fairly)
SHALLOW = Environment("tests.rl.easy:SHALLOW", generate_shallow, verify)

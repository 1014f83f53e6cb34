"""`requests`: plain chat, for a reward model to judge. "Tell me of the wet owl, as a list."

What is asked is what `data.made_preferences` makes preferences of, so that the true merit of every reply is known. The
loop does not pay it: there a reward model's score is the reward, and the verdict tells whether a policy learns what was
meant or how to please the model. Right is a reply in the form that was asked for; the verdict's reward is the merit,
from 0 to 1. Difficulties are all alike.
"""

from __future__ import annotations

import random

from zaya_jax.data.made_preferences import FORMS, KINDS, THINGS, merit, reply, request
from zaya_jax.environments.environment import Environment, Problem, Verdict

NAME = "requests"
HIGHEST = 7.0  # above any merit: a reply has at least one word


def generate(seed: int, difficulty: int) -> Problem:
    """A request; `hidden` has its parts."""
    rng = random.Random(f"{NAME} {difficulty} {seed}")
    hidden = {"form": rng.choice(list(FORMS)), "kind": rng.choice(KINDS), "thing": rng.choice(THINGS)}
    meta = {"environment": NAME, "difficulty": difficulty, "seed": seed, "saturated": True, "open_ended": True}
    return Problem(f"{NAME}/{difficulty}/{seed}", request(**hidden), hidden, meta)


def verify(problem: Problem, response: str) -> Verdict:
    """Right in the form that was asked for; the reward is the merit's share of `HIGHEST`."""
    answer = response.strip()
    if not answer:
        return Verdict(0.0, False, False, "empty response")
    right = FORMS[problem.hidden["form"]](answer)
    error = None if right else f"not {problem.hidden['form']}"
    return Verdict(merit(problem.prompt, answer) / HIGHEST, right, True, error, answer)


def explain(problem: Problem) -> tuple[str, str]:
    """The form, and a reply in it. Whether it ends with thanks, and how long it is, the seed decides: replies are right
    and of mixed merit, so that something is left to be learnt."""
    return problem.hidden["form"], reply(random.Random(problem.id), **problem.hidden)


ENVIRONMENTS: dict[str, Environment] = {NAME: Environment(NAME, generate, verify, explain)}

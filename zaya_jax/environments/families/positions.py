"""How much of an answer of many positions is right: for reports; rewards stay 0 or 1."""

from __future__ import annotations

import re

from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.text.thinking import THINK_END

POSITIONAL = ("cipher", "addition", "automaton", "sorting", "knights")
_PARTS = re.compile(r"[a-z][0-9]*[+-]|[a-z]|[0-9]")


def positions(problem: Problem, response: str) -> tuple[int, int]:
    """How many positions of the answer are right, and how many there are.

    Letters, digits, numbers or signs, from the left; the digits of a sum from the right.

    Raises:
        UserError: the problem is not of a family in `POSITIONAL`.
    """
    name = problem.meta.get("environment")
    if name not in POSITIONAL:
        raise mistake("no positions", where=problem.id, expected=f"a problem of {', '.join(POSITIONAL)}", found=name)
    expected = _parts(problem.hidden["answer"])
    found = _parts(response.rpartition(THINK_END)[2].strip())
    if name == "addition":
        expected, found = expected[::-1], found[::-1]
    return sum(a == b for a, b in zip(expected, found)), len(expected)


def _parts(answer: str) -> list[str]:
    return answer.split() if " " in answer else _PARTS.findall(answer)

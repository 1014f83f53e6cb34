"""Held-out problems of the task families as benchmarks: nobody who keeps to the parts has learnt from them.

    problems = family_benchmarks(["addition", "sorting"], [0, 2], count=50)   # by name: "addition-0", "addition-2", ...

An answer is what stands behind the reasoning, judged by the family itself.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from zaya_jax.environments.benchmarks import FAMILY
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.named import families
from zaya_jax.environments.sft import Making, draw
from zaya_jax.errors import mistake


def family_benchmarks(
    environments: Sequence[str], difficulties: Sequence[int] = (0,), count: int = 50
) -> dict[str, list[Problem]]:
    """The first `count` held-out problems of each family and difficulty, always the same.

    Raises:
        UserError: there is no such family, or it has not that many.
    """
    Making(environments, difficulties, count)  # what is wrong with names and numbers is said there
    pairs = itertools.product(environments, difficulties)
    return {f"{name}-{difficulty}": _problems(name, difficulty, count) for name, difficulty in pairs}


def _problems(name: str, difficulty: int, count: int) -> list[Problem]:
    found = list(itertools.islice(draw(families()[name], difficulty, "held_out"), count))
    if len(found) < count:
        where, fix = f"family {name}, difficulty {difficulty}", "ask for fewer, or for harder ones"
        raise mistake("too few held-out problems", where=where, expected=count, found=len(found), fix=fix)
    return [
        dataclasses.replace(one, hidden={"kind": FAMILY, "family": name, "hidden": dict(one.hidden)}) for one in found
    ]

"""`sorting`: numbers in ascending order. "sort 4 1 3 0" -> "0 1 3 4".

Difficulty d: 4 + d different numbers below 10 + 5d.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, lines_with_marks, same


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws the numbers."""
    numbers = chance.sample(range(10 + 5 * difficulty), 4 + difficulty)
    return f"sort {_listed(numbers)}", {"numbers": numbers, "answer": _listed(sorted(numbers))}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a place: "3:3" has the smallest number above the one before it."""
    left, found = sorted(hidden["numbers"]), []
    while left:
        found.append(slip(left[0], left[1:3]))
        left.remove(found[-1])
    return lines_with_marks(list(map(str, found)), lambda number: _listed(found[:number])), _listed(found)


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


SORTING = environment("sorting", make, r"[0-9]+(?:\s+[0-9]+)*", same, work)

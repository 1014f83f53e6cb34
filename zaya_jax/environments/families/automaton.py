"""`automaton`: the next row of an elementary cellular automaton on a ring. "rule 30 0010110" -> "0110101".

The rule's number in binary is its table (Wolfram, "Statistical mechanics of cellular automata", 1983): bit 4l + 2c + r
is what becomes of a cell c between l and r. The first cell is the last one's neighbour.

Difficulty d: 5 + d cells, and one of the first 4 + 2d rules of a fixed order (256 at most), the best known ones first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, lines_with_marks, same

_KNOWN = (30, 90, 110, 184, 54, 60, 150, 22)
RULES = (*_KNOWN, *(rule for rule in range(256) if rule not in _KNOWN))


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a rule and a row."""
    rule = chance.choice(RULES[: 4 + 2 * difficulty])
    row = "".join(chance.choice("01") for _ in range(5 + difficulty))
    answer = "".join(_next(rule, around) for around in _neighbourhoods(row))
    return f"rule {rule} {row}", {"rule": rule, "row": row, "answer": answer}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a cell: "3:101=0" has the cell between its neighbours, and what becomes of it."""
    steps, found = [], ""
    for around in _neighbourhoods(hidden["row"]):
        right = _next(hidden["rule"], around)
        made = slip(right, "1" if right == "0" else "0")
        steps.append(f"{around}={made}")
        found += made
    return lines_with_marks(steps, lambda number: found[:number]), found


def _neighbourhoods(row: str) -> list[str]:
    ring = row[-1] + row + row[0]
    return [ring[place : place + 3] for place in range(len(row))]


def _next(rule: int, around: str) -> str:
    return str(rule >> int(around, 2) & 1)


AUTOMATON = environment("automaton", make, "[01]+", same, work)

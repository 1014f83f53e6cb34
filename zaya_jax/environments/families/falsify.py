"""`falsify`: an input on which a program does not do what it should. "bug 0-9 y=x*3|y=x*3;y=min(y,20)" -> "7".

The first program is the specification, the second one is wrong on some of the inputs. Any input within the bounds on
which they differ counts; both are run by `families.language`.

Difficulty d: the specification has 1 + d // 2 statements; inputs are 0 to 9 + d, on at most half of which it shows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.families.family import WRONG, Slip, environment, neighbours
from zaya_jax.environments.families.functions import (
    Operation,
    draw_function,
    draw_operation,
    inputs_of,
    program,
    trace,
)
from zaya_jax.environments.families.language import outcome, parse

OUT_OF_BOUNDS = "out of bounds"


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a specification and a candidate."""
    right = draw_function(chance, difficulty)
    inputs = inputs_of(difficulty)
    wrong = _candidate(chance, right, inputs)
    hidden = {
        "functions": [[list(each) for each in function] for function in (right, wrong)],
        "programs": [program(right), program(wrong)],
        "inputs": len(inputs),
    }
    return f"bug 0-{inputs[-1]} {program(right)}|{program(wrong)}", hidden


def judge(hidden: Mapping[str, Any], answer: str) -> str | None:
    """Runs both programs on the answer."""
    if not 0 <= int(answer) < hidden["inputs"]:
        return OUT_OF_BOUNDS
    right, wrong = (outcome(parse(text, len(text)), int(answer)) for text in hidden["programs"])
    return None if right != wrong else WRONG


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line an input from 0 on: "7:21!21,20" has the values of both; "!" instead of "=" where the last ones differ."""
    right, wrong = ([tuple(each) for each in function] for function in hidden["functions"])
    lines = []
    for x in range(hidden["inputs"]):
        wanted, found = trace(right, x), trace(wrong, x)
        found[-1] = slip(found[-1], neighbours(found[-1]))
        sign = "=" if wanted[-1] == found[-1] else "!"
        lines.append(f"{x}:{_listed(wanted)}{sign}{_listed(found)}")
        if sign == "!":
            break
    return lines, str(x)


def _candidate(chance: random.Random, right: Sequence[Operation], inputs: range) -> list[Operation]:
    """The specification with another operation in one place or one more at its end."""
    results = [trace(right, x)[-1] for x in inputs]
    for _ in range(30):
        wrong = list(right)
        place = chance.randrange(len(right) + 1)
        wrong[place : place + 1] = [draw_operation(chance, max(results))]
        differing = sum(trace(wrong, x)[-1] != result for x, result in zip(inputs, results))
        if 0 < differing <= len(inputs) // 2:
            return wrong
    return [*right, _clip(results)]


def _clip(results: Sequence[int]) -> Operation:
    """Cuts off the largest value or the smallest one: the two have no input in common, so one is on at most half."""
    values = sorted(set(results))
    if results.count(values[-1]) <= len(results) // 2:
        return "min", values[-2]
    return "max", values[1]


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


FALSIFY = environment("falsify", make, "[0-9]{1,9}", judge, work)

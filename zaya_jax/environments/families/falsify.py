"""`falsify`: an input on which a program does not do what it should. "bug 0-9 y=x*3+2|y=min(x*3,20)+2" -> "7".

The first program is the specification, the second one is wrong on some of the inputs. Any input within the bounds on
which they differ counts; both are run by `families.language`.

Difficulty d: the specification has 2 + d // 2 operations; inputs are 0 to 9 + d, on few of which it shows.
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
    steps_of,
    trace,
)
from zaya_jax.environments.families.language import outcome, parse

OUT_OF_BOUNDS = "out of bounds"


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a specification and a candidate that shows its error on an input drawn before them."""
    inputs = inputs_of(difficulty)
    right, wrong = _pair(chance, difficulty, inputs)
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
    """A line an input from 0 on: "7:21,23!21,20,22" has the values of both, "!" for "=" where they end apart."""
    right, wrong = ([tuple(each) for each in function] for function in hidden["functions"])
    lines = []
    for x in range(hidden["inputs"]):
        wanted, found = trace(right, x), trace(wrong, x)
        same = wanted[-1] == found[-1]
        found[-1] = slip(found[-1], neighbours(found[-1]) if same else [wanted[-1]])
        sign = "=" if wanted[-1] == found[-1] else "!"
        lines.append(f"{x}:{_listed(wanted)}{sign}{_listed(found)}")
        if sign == "!":
            break
    return lines, str(x)


def _pair(chance: random.Random, difficulty: int, inputs: range) -> tuple[list[Operation], list[Operation]]:
    """Two functions that differ on few inputs. Without an input given beforehand it would mostly be the largest."""
    shows, steps = chance.choice(inputs), 1 + steps_of(difficulty)
    for _ in range(max(5, 200 // steps)):
        right = draw_function(chance, inputs, steps)
        results = [trace(right, x)[-1] for x in inputs]
        candidates = [*_clipped(right, inputs, chance.randint(1, steps)), _mutated(chance, right, max(results))]
        fit = [wrong for wrong in candidates if _shows(wrong, results, shows, len(inputs) // 4)]
        if fit:
            return right, chance.choice(fit)
    # The two clips have no input in common, so one shows on at most half of them.
    return right, min(_clipped(right, inputs, steps), key=lambda wrong: len(_differing(wrong, results)))


def _clipped(right: Sequence[Operation], inputs: Sequence[int], place: int) -> list[list[Operation]]:
    """The function without the largest value behind so many operations, and without the smallest one."""
    values = sorted({trace(right[:place], x)[-1] for x in inputs})
    clips = ("min", values[-2]), ("max", values[1])
    return [[*right[:place], clip, *right[place:]] for clip in clips]


def _mutated(chance: random.Random, right: Sequence[Operation], largest: int) -> list[Operation]:
    """The function with another operation in one place."""
    wrong = list(right)
    wrong[chance.randrange(len(right))] = draw_operation(chance, largest)
    return wrong


def _shows(wrong: Sequence[Operation], results: Sequence[int], x: int, most: int) -> bool:
    return trace(wrong, x)[-1] != results[x] and len(_differing(wrong, results)) <= most


def _differing(wrong: Sequence[Operation], results: Sequence[int]) -> list[int]:
    return [x for x, result in enumerate(results) if trace(wrong, x)[-1] != result]


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


FALSIFY = environment("falsify", make, "[0-9]{1,9}", judge, work)

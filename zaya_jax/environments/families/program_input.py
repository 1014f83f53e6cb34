"""`program_input`: an x for which a program ends with a wanted y. "in 14 y=x*3+2" -> "4".

Any right input counts, and the program decides: it is run on the answer by `families.language`. After CodeI/O (Li et
al. 2025, arXiv 2502.07316) as the ZAYA1 report takes it up.

Difficulty d: 1 + d // 2 operations; at least one right input is among 0 to 9 + d, and at most half of those are right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import WRONG, Slip, environment, neighbours
from zaya_jax.environments.families.functions import draw_function, inputs_of, program, steps_of, trace
from zaya_jax.environments.families.language import outcome, parse

FORM = "-?[0-9]{1,6}"  # of an input


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws an input and a function that few others share its value on."""
    inputs = inputs_of(difficulty)
    x = chance.choice(inputs)
    steps = steps_of(difficulty)
    for _ in range(max(5, 50 // steps)):
        function = draw_function(chance, inputs, steps)
        results = [trace(function, each)[-1] for each in inputs]
        if results.count(results[x]) <= len(inputs) // 4:
            break
    else:  # at least two values: the rarest one is on at most half of the inputs
        x = min(inputs, key=lambda each: results.count(results[each]))
    wanted = results[x]
    text = program(function)
    hidden = {"program": text, "wanted": wanted, "function": [list(each) for each in function], "inputs": len(inputs)}
    return f"in {wanted} {text}", hidden


def judge(hidden: Mapping[str, Any], answer: str) -> str | None:
    """Runs the program on the answer."""
    text = hidden["program"]
    return None if outcome(parse(text, len(text)), int(answer)) == hidden["wanted"] else WRONG


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line an input from 0 on, up to a right one: "4:12,14" has the values that x=4 leads to."""
    lines = []
    for x in range(hidden["inputs"]):
        values = trace([tuple(each) for each in hidden["function"]], x)
        wanted = hidden["wanted"]
        values[-1] = slip(values[-1], [wanted] if values[-1] != wanted else neighbours(wanted))
        lines.append(f"{x}:{','.join(map(str, values))}")
        if values[-1] == hidden["wanted"]:
            break
    return lines, str(x)


PROGRAM_INPUT = environment("program_input", make, FORM, judge, work)

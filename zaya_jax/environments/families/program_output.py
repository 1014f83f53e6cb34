"""`program_output`: what a straight-line program prints. "out a=3;b=a*4;print(b)" -> "12".

Difficulty d: 2 + d assignments; each uses the variable before it, and a number of 1 to 9 or one of the three before
that. Values stay within 20 + 20d (999 at most).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, neighbours, same, symbol
from zaya_jax.environments.families.functions import apply, draw_operation

_NEAR = 3


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a program. A statement is [operator, index of the left variable, of the right one or None, number]."""
    values = [chance.randint(1, 9)]
    statements: list[list[Any]] = []
    for _ in range(1 + difficulty):
        statement, value = _drawn(chance, values, min(999, 20 + 20 * difficulty))
        statements, values = [*statements, statement], [*values, value]
    assignments = [f"a={values[0]}", *(_text(place + 1, each) for place, each in enumerate(statements))]
    prompt = f"out {';'.join(assignments)};print({symbol(1 + difficulty)})"
    return prompt, {"first": values[0], "statements": statements, "answer": str(values[-1])}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a variable: "b=3*4=12" has numbers in the place of what it uses."""
    values = [hidden["first"]]
    lines = [f"a={values[0]}"]
    for place, (sign, left, right, number) in enumerate(hidden["statements"], 1):
        operand = number if right is None else values[right]
        operation = (sign, operand) if _defined(sign, operand) else ("+", operand)  # after a slip only
        value = apply(operation, values[left])
        made = slip(value, [value + 1, value - 1] if value < 0 else neighbours(value))
        lines.append(f"{symbol(place)}={_written(operation[0], str(values[left]), str(operand))}={made}")
        values.append(made)
    return lines, str(values[-1])


def _drawn(chance: random.Random, values: list[int], largest: int) -> tuple[list[Any], int]:
    latest = len(values) - 1
    for _ in range(100):
        sign, number = draw_operation(chance, 9)
        right = None
        if latest and chance.random() < 0.5:
            right = chance.randint(max(0, latest - _NEAR), latest - 1)
        operand = number if right is None else values[right]
        if not _defined(sign, operand):
            continue
        value = apply((sign, operand), values[latest])
        # 0 and 1 are kept rare: from them on a program is easily guessed.
        if abs(value) <= largest and (value not in (0, 1) or chance.random() < 0.2):
            return [sign, latest, right, number], value
    return ["min", latest, None, 9], min(values[latest], 9)


def _defined(sign: str, operand: int) -> bool:
    return operand > 1 or sign not in ("//", "%")


def _text(place: int, statement: list[Any]) -> str:
    sign, left, right, number = statement
    return f"{symbol(place)}={_written(sign, symbol(left), str(number) if right is None else symbol(right))}"


def _written(sign: str, left: str, right: str) -> str:
    if sign in ("min", "max"):
        return f"{sign}({left},{right})"
    return f"{left}{sign}({right})" if right.startswith("-") else f"{left}{sign}{right}"


PROGRAM_OUTPUT = environment("program_output", make, "-?[0-9]+", same, work)

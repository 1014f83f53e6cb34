"""`chain`: a few operations over and over, modulo a prime. "chain 7 +3*2-4 m11 n5" -> "5".

The prompt stays short while the working grows: at about 10 characters a step it exceeds a budget of 64 to 96 from
difficulty 2 on and has to be gone on with from its end. Each line holds all that the next one needs.

Difficulty d: 4 + 4d steps (n), 2 + d // 4 operations in turn (8 at most), modulo the first prime m >= 10 + d.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, honest, neighbours, same


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws the start and the operations, which differ, so that a line tells which one is next."""
    modulus = _prime(10 + difficulty)  # above 9: no factor is one of its multiples, and a product loses nothing
    numbers = chance.sample(range(2, 10), min(8, 2 + difficulty // 4))  # different: nothing undoes what was just done
    operations = [chance.choice("+-*") + str(number) for number in numbers]
    start, count = chance.randrange(modulus), 4 + 4 * difficulty
    hidden = {"start": start, "operations": operations, "modulus": modulus, "count": count}
    answer = work(hidden, honest)[1]
    return f"chain {start} {''.join(operations)} m{modulus} n{count}", hidden | {"answer": answer}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a step: "2:10*2=9" multiplies the second value, 10, by 2, modulo 11."""
    value, lines = hidden["start"], []
    for number in range(hidden["count"]):
        operation = hidden["operations"][number % len(hidden["operations"])]
        right = _applied(value, operation) % hidden["modulus"]
        made = slip(right, [wrong for wrong in neighbours(right) if wrong < hidden["modulus"]])
        lines.append(f"{number + 1}:{value}{operation}={made}")
        value = made
    return lines, str(value)


def _applied(value: int, operation: str) -> int:
    operand = int(operation[1:])
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operation[0]]


def _prime(number: int) -> int:
    while any(number % factor == 0 for factor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


CHAIN = environment("chain", make, "[0-9]+", same, work)

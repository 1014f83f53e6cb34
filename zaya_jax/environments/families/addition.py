"""`addition`: two numbers in long addition. "add 407+85" -> "492".

Difficulty d: the longer number has 2 + d digits, the other one 1 to 2 + d. Each digit follows from three others.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, honest, lines_with_marks, neighbours, same


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws two numbers without leading zeros; texts, since their digits are what counts."""
    terms = [_number(chance, 2 + difficulty), _number(chance, chance.randint(1, 2 + difficulty))]
    chance.shuffle(terms)
    answer = _added(*terms)
    return f"add {terms[0]}+{terms[1]}", {"terms": terms, "answer": answer}


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a digit from the right: "2:0+8+1=09" adds the digits and the carry, and carries the first digit of 09.

    Marks hold the last digits of the sum; the carry stands in the line before.
    """
    a, b = hidden["terms"]
    width = max(len(a), len(b))
    steps, carry, digits = [], 0, ""
    for x, y in zip(reversed(a.zfill(width)), reversed(b.zfill(width))):
        total = slip(right := int(x) + int(y) + carry, neighbours(right))
        steps.append(f"{x}+{y}+{carry}={total:02d}")
        carry, digits = total // 10, str(total % 10) + digits
    found = str(carry) * (carry > 0) + digits
    lines = lines_with_marks(steps, lambda number: digits[width - number :] if number < width else found)
    return lines, found


def _number(chance: random.Random, digits: int) -> str:
    # Digit by digit: Python refuses to print integers of more than 4300 digits.
    return chance.choice("123456789") + "".join(chance.choice("0123456789") for _ in range(digits - 1))


def _added(a: str, b: str) -> str:
    return work({"terms": (a, b)}, honest)[1]


ADDITION = environment("addition", make, "[0-9]+", same, work)

"""Conversations that are made on the spot: sums with their working, and the same sums with several attempts at them.

Nothing to download: for a first supervised run, and for tests of one. One row in four is an aggregation prompt, as
Markovian RSA has them: the question, the ends of three attempts of which some went wrong, and what to make of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from zaya_jax.errors import mistake

PARTS = {"train": 4000, "held_out": 200}  # rows
_ATTEMPTS, _EVERY = 3, 4


def conversations(part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and records of kind chat, the same on every machine. No sum of one part is in the other.

    Args:
        part: "train" or "held_out".

    Raises:
        UserError: there is no such part.
    """
    if part not in PARTS:
        raise mistake("no such part of the sums", expected=" or ".join(PARTS), found=repr(part))
    for number in range(PARTS[part]):
        chance = random.Random(f"{part} {number}")
        a, b = _terms(chance, part)
        yield f"{part}/{number}", (_aggregation if number % _EVERY == 0 else _question)(chance, a, b)


def working(a: int, b: int) -> list[str]:
    """The sum digit by digit, from the right; the last line is the result."""
    lines, carry, digits = [], 0, []
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        lines.append(f"{x} + {y} + {carry} = {total}: write {total % 10}, carry {total // 10}")
        digits.append(total % 10)
        carry = total // 10
    result = int("".join(map(str, reversed([*digits, carry]))))
    return [*lines, f"{a} + {b} = {result}"]


def _terms(chance: random.Random, part: str) -> tuple[int, int]:
    """Two numbers of up to four digits; the sum of all of their digits tells the parts apart."""
    while True:
        a, b = (chance.randrange(10 ** chance.randint(1, 4)) for _ in range(2))
        if (sum(map(int, f"{a}{b}")) % 10 == 0) == (part == "held_out"):
            return a, b


def _question(chance: random.Random, a: int, b: int) -> dict[str, Any]:
    return _chat(f"What is {a} + {b}?", "\n".join(working(a, b)), a + b)


def _aggregation(chance: random.Random, a: int, b: int) -> dict[str, Any]:
    """Attempts are cut short at their beginning, and some are off by a power of ten."""
    tails = []
    for number in range(1, _ATTEMPTS + 1):
        lines = working(a, b)[-2:]
        if chance.random() < 0.4:
            lines[-1] = f"{a} + {b} = {a + b + chance.choice((-1, 1)) * 10 ** chance.randrange(4)}"
        tails.append(f"Attempt {number} ends:\n" + "\n".join(lines))
    prompt = "\n\n".join([f"What is {a} + {b}?", *tails, "Find the answer; attempts may be wrong."])
    return _chat(prompt, "\n".join(working(a, b)), a + b)


def _chat(prompt: str, reasoning: str, answer: int) -> dict[str, Any]:
    reply = {"role": "assistant", "reasoning_content": reasoning, "content": str(answer)}
    return {"messages": [{"role": "user", "content": prompt}, reply]}

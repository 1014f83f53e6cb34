"""Functions of x as straight-line programs: operations with numbers, two a statement, e.g. "y=min(x*3,20);y=(y-1)//2".

Drawn so that values stay small and the function is not a constant. `program_input`, `program_rebuild` and `falsify`
are about them.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator, Sequence

Operation = tuple[str, int]  # e.g. ("*", 3), ("min", 20)
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "min": min,
    "max": max,
}
_SIMPLE = [(sign, number) for sign in OPERATORS for number in range(1, 10)]
LARGEST = 999  # of values over the inputs that a function is drawn for


def steps_of(difficulty: int) -> int:
    """Operations of a function: 1 + d // 2."""
    return 1 + difficulty // 2


def inputs_of(difficulty: int) -> range:
    """Inputs that a problem is about: 0 to 9 + d."""
    return range(10 + difficulty)


def draw_function(chance: random.Random, inputs: Sequence[int], steps: int) -> list[Operation]:
    """Draws one of so many operations.

    Each changes the values of at least a third of the inputs, and leaves at least two, none of them beyond `LARGEST`.
    """
    function: list[Operation] = []
    values = list(inputs)
    for _ in range(steps):
        operation, made = _extended(chance, values)
        function, values = [*function, operation], made
    return function


def draw_operation(chance: random.Random, largest: int) -> Operation:
    """Draws one that changes something: a number of 1 to 9, or for min and max of 1 to `largest`."""
    sign = chance.choice(tuple(OPERATORS))
    if sign in ("min", "max"):
        return sign, chance.randint(1, max(1, largest))
    return sign, chance.randint(1 if sign in "+-" else 2, 9)


def apply(operation: Operation, value: int) -> int:
    """The operation's value."""
    return OPERATORS[operation[0]](value, operation[1])


def trace(function: Sequence[Operation], x: int) -> list[int]:
    """The values after each operation; the last one is the result."""
    values = []
    for operation in function:
        x = apply(operation, x)
        values.append(x)
    return values


def program(function: Sequence[Operation]) -> str:
    """The function in the language of `families.language`."""
    statements = []
    for place in range(0, len(function), 2):
        text, before = "y" if place else "x", ""
        for operation in function[place : place + 2]:
            text, before = _written(operation, text, before), operation[0]
        statements.append(f"y={text}")
    return ";".join(statements)


def functions_through(inputs: Sequence[int], results: Sequence[int], steps: int) -> Iterator[tuple[Operation, ...]]:
    """All functions of so many operations with numbers of 1 to 9 that have these results: what examples may mean."""
    if steps == 0:
        if list(inputs) == list(results):
            yield ()
        return
    for operation in _SIMPLE:
        made = [apply(operation, value) for value in inputs]
        yield from ((operation, *rest) for rest in functions_through(made, results, steps - 1))


def _extended(chance: random.Random, values: Sequence[int]) -> tuple[Operation, list[int]]:
    for _ in range(100):
        operation = draw_operation(chance, max(values))
        made = [apply(operation, value) for value in values]
        changed = sum(a != b for a, b in zip(made, values))
        if 3 * changed >= len(values) and len(set(made)) > 1 and max(map(abs, made)) <= LARGEST:
            return operation, made
    return ("+", 1), [value + 1 for value in values]


def _written(operation: Operation, text: str, before: str) -> str:
    """The operation on an expression whose last operator is `before`."""
    sign, number = operation
    if sign in ("min", "max"):
        return f"{sign}({text},{number})"
    weaker = before in ("+", "-") and sign not in ("+", "-")
    return f"({text}){sign}{number}" if weaker else f"{text}{sign}{number}"

"""Functions of x as straight-line programs: an operation with a constant a statement, e.g. "y=x*3;y=min(y,20)".

Drawn so that values stay small and the function is not a constant. `program_input`, `program_rebuild` and `falsify`
are about them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

Operation = tuple[str, int]  # e.g. ("*", 3), ("min", 20)
OPERATORS = ("+", "-", "*", "//", "%", "min", "max")
LARGEST = 999  # of values over the inputs that a function is drawn for


def steps_of(difficulty: int) -> int:
    """Statements of a function: 1 + d // 2."""
    return 1 + difficulty // 2


def inputs_of(difficulty: int) -> range:
    """Inputs that a problem is about: 0 to 9 + d."""
    return range(10 + difficulty)


def draw_function(chance: random.Random, difficulty: int) -> list[Operation]:
    """Draws one that has at least two values on its inputs, none of them beyond `LARGEST` on the way."""
    function: list[Operation] = []
    values = list(inputs_of(difficulty))
    for _ in range(steps_of(difficulty)):
        operation, made = _extended(chance, values)
        function, values = [*function, operation], made
    return function


def draw_operation(chance: random.Random, largest: int) -> Operation:
    """Draws one that changes something: a number of 1 to 9, or for min and max of 1 to `largest`."""
    sign = chance.choice(OPERATORS)
    if sign in ("min", "max"):
        return sign, chance.randint(1, max(1, largest))
    return sign, chance.randint(1 if sign in "+-" else 2, 9)


def apply(operation: Operation, value: int) -> int:
    """The operation's value."""
    sign, number = operation
    if sign in ("min", "max"):
        return min(value, number) if sign == "min" else max(value, number)
    return {"+": value.__add__, "-": value.__sub__, "*": value.__mul__, "//": value.__floordiv__, "%": value.__mod__}[
        sign
    ](number)


def trace(function: Sequence[Operation], x: int) -> list[int]:
    """The values after each statement; the last one is the result."""
    values = []
    for operation in function:
        x = apply(operation, x)
        values.append(x)
    return values


def program(function: Sequence[Operation]) -> str:
    """The function in the language of `families.language`."""
    return ";".join(_statement(operation, "y" if number else "x") for number, operation in enumerate(function))


def simple_functions(steps: int) -> Iterator[tuple[Operation, ...]]:
    """All functions of so many statements with numbers of 1 to 9: what else a few examples may mean."""
    if steps == 0:
        yield ()
        return
    for shorter in simple_functions(steps - 1):
        for sign in OPERATORS:
            yield from ((*shorter, (sign, number)) for number in range(1, 10))


def _extended(chance: random.Random, values: Sequence[int]) -> tuple[Operation, list[int]]:
    for _ in range(100):
        operation = draw_operation(chance, max(values))
        made = [apply(operation, value) for value in values]
        if made != list(values) and len(set(made)) > 1 and max(map(abs, made)) <= LARGEST:
            return operation, made
    return ("+", 1), [value + 1 for value in values]


def _statement(operation: Operation, source: str) -> str:
    sign, number = operation
    return f"y={sign}({source},{number})" if sign in ("min", "max") else f"y={source}{sign}{number}"

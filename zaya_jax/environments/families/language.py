"""A tiny language: straight-line programs of integers, which are valid Python, run without Python's eval.

    y=x*3+2;z=min(y,20);print(z-x)

Assignments, the operators + - * // %, min and max of two or more, parentheses, signs; x is the input. The value of the
last statement is the result, printed or not. A text that comes from a model is parsed with `ast`, of which only these
nodes are let through. Texts, nesting and values are bounded, so that every program ends soon.
"""

from __future__ import annotations

import ast
import dataclasses
import operator
import re
from collections.abc import Callable

LARGEST = 10**12  # of any value on the way
DEEPEST = 60  # expressions within one another
LONGEST_PROGRAM = 4000  # characters
OPERATORS: dict[type, tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}
FUNCTIONS = {"min": min, "max": max}
_RESERVED = {*FUNCTIONS, "print"}
# Checked before `ast` sees the text: no other signs, no long numbers, no "1_000", "0x1" or "1if", no powers.
_SIGNS = re.compile(r"[a-z0-9 =+\-*/%(),;\n]*")
_ODD = re.compile(r"\*\*|[0-9]{10}|\b[0-9]+[a-z]")


class ProgramError(Exception):
    """A text is no program of the language, or a program cannot go on; the message says why in a few words."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Statements in their order: the name that is assigned, None for the result alone, and its expression."""

    statements: tuple[tuple[str | None, ast.expr], ...]


def parse(text: str, longest: int = LONGEST_PROGRAM) -> Program:
    """Reads a program of at most so many characters.

    Raises:
        ProgramError: the text is none.
    """
    if len(text) > longest:
        raise ProgramError("too long")
    if not _SIGNS.fullmatch(text) or _ODD.search(text):
        raise ProgramError("not of the language")
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ProgramError("not a program") from None
    if not body:
        raise ProgramError("empty")
    program = Program(tuple(map(_statement, body)))
    for _, expression in program.statements:
        _check(expression, DEEPEST)
    return program


def run(program: Program, x: int | None = None) -> int:
    """The program's result.

    Args:
        x: the input; None for a program without one.

    Raises:
        ProgramError: an unknown name, a division by zero, or a value above `LARGEST`.
    """
    values, result = {} if x is None else {"x": x}, 0
    for target, expression in program.statements:
        result = _value(expression, values)
        if target is not None:
            values[target] = result
    return result


def outcome(program: Program, x: int | None = None) -> int | None:
    """As `run`; None if it fails."""
    try:
        return run(program, x)
    except ProgramError:
        return None


def _statement(node: ast.stmt) -> tuple[str | None, ast.expr]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if name in _RESERVED:
            raise ProgramError(f"{name} is assigned")
        return name, node.value
    if isinstance(node, ast.Expr):
        call = node.value
        if _called(call) == "print" and len(call.args) == 1:
            return None, call.args[0]
        return None, call
    raise ProgramError("not a statement of the language")


def _check(node: ast.expr, deepest: int) -> None:
    """Refuses what `_value` does not know."""
    if deepest == 0:
        raise ProgramError("nested too deeply")
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return
    if isinstance(node, ast.Name) and node.id not in _RESERVED:
        return
    for part in _parts(node):
        _check(part, deepest - 1)


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        return [node.operand]
    if _called(node) in FUNCTIONS and len(node.args) >= 2:
        return node.args
    raise ProgramError("not an expression of the language")


def _called(node: ast.expr) -> str | None:
    plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords
    return node.func.id if plain else None


def _value(node: ast.expr, values: dict[str, int]) -> int:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in values:
            raise ProgramError("unknown name")
        return values[node.id]
    parts = [_value(part, values) for part in _parts(node)]
    if isinstance(node, ast.BinOp):
        if parts[1] == 0 and isinstance(node.op, ast.FloorDiv | ast.Mod):
            raise ProgramError("division by zero")
        value = OPERATORS[type(node.op)][1](*parts)
    elif isinstance(node, ast.UnaryOp):
        value = -parts[0] if isinstance(node.op, ast.USub) else parts[0]
    else:
        value = FUNCTIONS[_called(node)](parts)
    if abs(value) > LARGEST:
        raise ProgramError("too large a value")
    return value

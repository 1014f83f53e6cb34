"""Reading the text of a compiled program (optimised HLO): its kernels, library calls, collectives and arrays.

Instructions are counted, not executions: what a loop over layers does, stands there once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

Shape = tuple[int, ...]

TRITON = "__gpu$xla.gpu.triton"
_SHAPE = re.compile(r"\b(?:pred|token|bf16|[fsuc]\d+\w*)\[([\d,]*)\]")
_KERNEL_CODE = re.compile(r'\bir = "(?:[^"\\]|\\.)*"')
_OPERANDS = re.compile(r"operand_layout_constraints=\{(.*?)\}, [a-z_]+=")
_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|all-to-all|ragged-all-to-all|reduce-scatter|collective-permute|collective-broadcast)"
    r"(?:-start)?\("
)


class Kernel(NamedTuple):
    """A Pallas kernel's call: its name and the shapes of what it reads."""

    name: str
    operands: tuple[Shape, ...]


class Array(NamedTuple):
    """An array that an instruction makes or reads, and the instruction's place in the model (may be empty)."""

    shape: Shape
    scope: str


def without_code(text: str) -> str:
    """The text without the bodies of kernels, which are long and are not HLO."""
    return _KERNEL_CODE.sub("", text)


def kernels(text: str) -> list[Kernel]:
    """The Pallas kernels, in the order of the text."""
    found = []
    for line in without_code(text).splitlines():
        if f'custom_call_target="{TRITON}"' in line:
            name, operands = re.search(r'\bname = "(\w+)"', line), _OPERANDS.search(line)
            found.append(Kernel(name[1], tuple(shapes(operands[1]))))
    return found


def library_calls(text: str) -> Counter[str]:
    """Custom calls that are no Pallas kernels, by target."""
    return Counter(t for t in re.findall(r'custom_call_target="([^"]+)"', without_code(text)) if t != TRITON)


def products(text: str) -> int:
    """Matrix products that XLA's own Triton emitter compiles."""
    return len(re.findall(r'"kind":"__triton\w*gemm\w*"', text))


def collectives(text: str) -> Counter[str]:
    """By kind; an asynchronous one counts once."""
    return Counter(_COLLECTIVE.findall(without_code(text)))


def arrays(text: str) -> Iterator[Array]:
    """Every array of every instruction, those inside of fusions too."""
    for line in without_code(text).splitlines():
        scope = re.search(r'op_name="([^"]*)"', line)
        for shape in shapes(line):
            yield Array(shape, scope[1] if scope else "")


def shapes(text: str) -> list[Shape]:
    """The shapes written in a text, `bf16[2,3]` for instance."""
    return [tuple(map(int, found.split(","))) if found else () for found in _SHAPE.findall(text)]

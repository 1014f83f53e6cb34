"""`program_rebuild`: a program that fits examples. "fit 1>5 2>8 0>2" -> "y=x*3+2".

The answer is any program of `families.language`; it is judged on the inputs that were not shown as well. After CodeARC
(Wei et al. 2025, arXiv 2503.23145) as the ZAYA1 report takes it up.

Difficulty d: the hidden function has 1 + d // 2 operations; inputs are 0 to 9 + d. Three examples are shown, and more
as long as a function of at most two operations fits them but not the others: what is asked is what is to be seen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.families.family import WRONG, NoAnswerError, Slip, environment
from zaya_jax.environments.families.functions import (
    Operation,
    draw_function,
    draw_operation,
    functions_through,
    inputs_of,
    program,
    steps_of,
    trace,
)
from zaya_jax.environments.families.language import LONGEST_PROGRAM, ProgramError, outcome, parse

_SHOWN, _HELD_OUT, _DECOYS = 3, 3, 2


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a function, the inputs to show, and functions that fit not all of them."""
    inputs, steps = list(inputs_of(difficulty)), steps_of(difficulty)
    function = draw_function(chance, inputs, steps)
    chance.shuffle(inputs)
    results = [trace(function, x)[-1] for x in inputs]
    shown = _enough(inputs, results, min(2, steps))
    examples = [[x, y] for x, y in zip(inputs, results)]
    hidden = {
        "shown": examples[:shown],
        "held_out": examples[shown:],
        "answer": program(function),
        "decoys": _decoys(chance, function, examples[:shown]),
    }
    return "fit " + " ".join(f"{x}>{y}" for x, y in examples[:shown]), hidden


def judge(hidden: Mapping[str, Any], answer: str) -> str | None:
    """Runs the answer on shown and held-out inputs; the reason tells which of them it fails first."""
    try:
        proposed = parse(answer, max(LONGEST_PROGRAM, 2 * len(hidden["answer"])))
    except ProgramError as error:
        raise NoAnswerError(str(error)) from None
    for name in ("shown", "held_out"):
        if any(outcome(proposed, x) != y for x, y in hidden[name]):
            return f"{WRONG} on {name.replace('_', '-')} examples"
    return None


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """A line a proposal, with its values on the examples up to the first that is not right: "y=x+4:1>5 2>6!"."""
    chosen = slip(hidden["answer"], hidden["decoys"])
    proposals = [text for text in hidden["decoys"] if text != chosen]
    lines = [_tried(text, hidden["shown"]) for text in proposals]
    examples = " ".join(f"{x}>{y}" for x, y in hidden["shown"])
    return [*lines, f"{chosen}:{examples}"], chosen


def _enough(inputs: Sequence[int], results: Sequence[int], steps: int) -> int:
    """How many of the inputs, in their order, leave no other simple function."""
    shown = _SHOWN
    rivals = list(functions_through(inputs[:shown], results[:shown], steps))
    while shown < len(inputs) - _HELD_OUT and not all(_fits(each, inputs, results) for each in rivals):
        shown += 1
        rivals = [each for each in rivals if _fits(each, inputs[:shown], results)]
    return shown


def _fits(function: Sequence[Operation], inputs: Sequence[int], results: Sequence[int]) -> bool:
    return all(trace(function, x)[-1] == y for x, y in zip(inputs, results))


def _decoys(chance: random.Random, function: Sequence[Operation], examples: Sequence[Sequence[int]]) -> list[str]:
    """Functions with another operation in one place that fail on an example."""
    inputs, results = zip(*examples)
    decoys: list[str] = []
    for _ in range(100):
        other = list(function)
        other[chance.randrange(len(other))] = draw_operation(chance, max(9, *results))
        if not _fits(other, inputs, results) and program(other) not in decoys:
            decoys.append(program(other))
        if len(decoys) == _DECOYS:
            break
    return decoys


def _tried(text: str, examples: Sequence[Sequence[int]]) -> str:
    tried = parse(text, len(text))
    said = []
    for x, y in examples:
        made = outcome(tried, x)
        said.append(f"{x}>{made}" + "!" * (made != y))
        if made != y:
            break
    return f"{text}:{' '.join(said)}"


PROGRAM_REBUILD = environment("program_rebuild", make, r"[\x20-\x7e\n]+", judge, work)

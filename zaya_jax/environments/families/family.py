"""What the task families share: how a problem is drawn, how an answer is judged, how working is written down.

A family is three functions: `make` draws a problem, `judge` tells a right answer from a wrong one, `work` solves the
problem step by step. `work` passes each value that it finds through a `Slip`, which may put a wrong one in its place:
so the same code writes attempts that go wrong somewhere and carry the error on, as a model's do.

Prompts, working and answers are printable ASCII and newlines, and short: a model that reads bytes has few to spare.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.errors import mistake
from zaya_jax.text.thinking import THINK_END

Make = Callable[[random.Random, int], tuple[str, dict[str, Any]]]
Judge = Callable[[Mapping[str, Any], str], "str | None"]
Slip = Callable[[Any, Sequence[Any]], Any]
Work = Callable[[Mapping[str, Any], Slip], tuple[list[str], str]]

LONGEST = 4096  # characters of an answer, unless the right one has more than half as many
EVERY = 4  # positions between two marks
WRONG = "wrong"


@dataclasses.dataclass(frozen=True)
class Family(Environment):
    """An environment that also writes attempts which go wrong.

    Attributes:
        work: (hidden, slip) -> lines of working, and the answer that they come to.
    """

    work: Work | None = None


class NoAnswerError(Exception):
    """A judge's: the text does not have the form of an answer. The message says why in a few words."""


def environment(name: str, make: Make, form: str, judge: Judge, work: Work) -> Family:
    """A family as the contract has it.

    Args:
        make: (randomness, difficulty) -> prompt and hidden.
        form: regular expression of a whole answer, right or wrong; it must take linear time.
        judge: (hidden, answer) -> None if the answer is right, else why not in a few words.
        work: (hidden, slip) -> lines of working, and the answer that they come to.
    """
    return Family(
        name,
        functools.partial(_generate, name, make),
        functools.partial(_verify, re.compile(form), judge),
        functools.partial(_explain, work),
        work,
    )


def spoil(family: Family, problem: Problem, chance: random.Random) -> tuple[str, str]:
    """An attempt with an error or two that it goes on from, and its answer, which is wrong where it can be."""
    calls = itertools.count()
    family.work(problem.hidden, lambda right, wrongs: (right, next(calls))[0])
    count, reasoning, answer = next(calls), "", ""
    for tries in range(10):
        # A search that misses a right answer goes on, and may find the next one: in the end all goes wrong.
        wrong = {chance.randrange(count + 2) for _ in range(chance.randint(1, 2))} if tries < 9 else None
        lines, answer = family.work(problem.hidden, _slips(chance, wrong))
        reasoning = "\n".join(lines)
        if not family.verify(problem, answer).correct:
            break
    return reasoning, answer


def honest(right: Any, wrongs: Sequence[Any]) -> Any:
    """The slip of working without error."""
    return right


def same(hidden: Mapping[str, Any], answer: str) -> str | None:
    """The judge of families with one right answer: exact match, but for the kind of white space."""
    return None if " ".join(answer.split()) == hidden["answer"] else WRONG


def lines_with_marks(steps: Sequence[str], known: Callable[[int], str]) -> list[str]:
    """The steps "1:...", "2:...", with a mark "4=..." of what is known so far after every fourth and the last one.

    The end of such a working suffices to go on from it, or to compare it with others, as long as a mark fits into it.

    Args:
        steps: what stands behind each label.
        known: number of steps done -> the answer so far.
    """
    lines = []
    for number, step in enumerate(steps, 1):
        lines.append(f"{number}:{step}")
        if number % EVERY == 0 or number == len(steps):
            lines.append(f"{number}={known(number)}")
    return lines


def symbol(number: int) -> str:
    """The number-th name: a to z, then a1 to z1, and so on."""
    turn, letter = divmod(number, 26)
    return chr(ord("a") + letter) + (str(turn) if turn else "")


def neighbours(value: int) -> list[int]:
    """What an arithmetic slip makes of a value: off by one, never below 0."""
    return [value + 1] + [value - 1] * (value > 0)


def _generate(name: str, make: Make, seed: int, difficulty: int) -> Problem:
    for what, value in (("seed", seed), ("difficulty", difficulty)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise mistake(f"not a {what}", where=name, expected="an integer from 0 up", found=repr(value)[:40])
    identity = f"{name}/{difficulty}/{seed}"
    # A string seeds through SHA-512: the same draws on every machine, whatever PYTHONHASHSEED is.
    prompt, hidden = make(random.Random(identity), difficulty)
    return Problem(identity, prompt, hidden, {"environment": name, "difficulty": difficulty, "seed": seed})


def _verify(form: re.Pattern[str], judge: Judge, problem: Problem, response: str) -> Verdict:
    answer = response.rpartition(THINK_END)[2].strip()
    if not answer:
        return Verdict(0.0, False, False, "empty")
    if len(answer) > max(LONGEST, 2 * len(str(problem.hidden.get("answer", "")))):
        return Verdict(0.0, False, False, "too long")
    if not form.fullmatch(answer):
        return Verdict(0.0, False, False, "no answer")
    try:
        error = judge(problem.hidden, answer)
    except NoAnswerError as none:
        return Verdict(0.0, False, False, str(none))
    return Verdict(float(error is None), error is None, True, error, answer)


def _slips(chance: random.Random, places: Container[int] | None) -> Slip:
    """A slip that goes wrong at these of its calls, None for all, where it can."""
    calls = itertools.count()

    def slip(right: Any, wrongs: Sequence[Any]) -> Any:
        number = next(calls)
        return chance.choice(wrongs) if wrongs and (places is None or number in places) else right

    return slip


def _explain(work: Work, problem: Problem) -> tuple[str, str]:
    lines, answer = work(problem.hidden, honest)
    return "\n".join(lines), answer

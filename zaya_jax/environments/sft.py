"""Conversations that teach the native environments: problem, working, answer; and problems with attempts at them.

Rows of the chat schema (docs/data.md), made on the spot and the same on every machine:

    {"messages": [{"role": "user", "content": "add 47+85"},
                  {"role": "assistant", "reasoning_content": "1:7+5+0=12\\n...", "content": "132"}],
     "id": "addition/0/6", "environment": "addition", "difficulty": 0, "seed": 6}

Rows with attempts are prompts as Markovian RSA makes them (ZAYA1 report, VI-A): the ends of C attempts, some with an
error that is carried on, some cut off; the reply is right. Which part a problem belongs to is decided by its prompt
alone (`part_of`): what is trained on anywhere cannot be held out elsewhere.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import itertools
import pathlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from zaya_jax.environments.environment import Environment, Problem
from zaya_jax.environments.families import FAMILIES, Family, spoil
from zaya_jax.environments.named import families as native
from zaya_jax.environments.parts import part_of
from zaya_jax.errors import mistake
from zaya_jax.sampling.files import check_output, write_rows
from zaya_jax.text.aggregation import Wording, load_wording, prompt_text

PARTS = ("train", "held_out")
_TRIES = 2000  # seeds in a row without a new prompt: there are hardly any left
_UNFINISHED = 0.25  # of attempts; three times as many where the working exceeds the budget


@dataclasses.dataclass(frozen=True)
class Making:
    """What is to be made.

    Attributes:
        environments: names of native environments; all families by default, and neither requests nor instructions.
        difficulties: all of them for each family, in equal parts.
        count: rows.
        part: "train" or "held_out".
        seed: another one gives other problems.
        aggregation: share of rows with attempts, of environments that write attempts: families.
        attempts, tail: C attempts a prompt, the last so many characters of each.
        budget: characters of reasoning that a reply should do with: longer working is gone on with where the best
            attempt ends instead of begun anew.
        wording: of the prompts with attempts, a kind or a file (`zaya_jax.text.aggregation`).

    Raises:
        UserError: a value is out of its range, or there is no such family.
    """

    environments: Sequence[str] = tuple(FAMILIES)
    difficulties: Sequence[int] = (0,)
    count: int = 1000
    part: str = "train"
    seed: int = 0
    aggregation: float = 0.0
    attempts: int = 4
    tail: int = 48
    budget: int = 96
    wording: str = "compact"

    def __post_init__(self):
        known = native()
        for name in self.environments:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                fix = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
                raise mistake(f"no family {name!r}", where="environments", fix=fix)
        _check(self.environments, "environments", "at least one family")
        _check(self.difficulties and min(self.difficulties) >= 0, "difficulties", "integers from 0 up")
        _check_part(self.part)
        _check(0 <= self.aggregation <= 1, "aggregation", "a share from 0 to 1", self.aggregation)
        _check(self.seed >= 0, "seed", "an integer from 0 up", self.seed)
        for name in ("count", "attempts", "tail", "budget"):
            _check(getattr(self, name) > 0, name, "a positive integer", getattr(self, name))


def make_data(making: Making, output: pathlib.Path | str) -> str:
    """Writes the rows to a jsonl file; gives a summary.

    Raises:
        UserError: the file cannot be written, there is no such wording, or there are not that many problems. What stood
            at `output` stays then.
    """
    check_output(output)
    made: collections.Counter[str] = collections.Counter()
    write_rows(output, _counted(making, made))
    families = ", ".join(f"{name} {made[name]}" for name in making.environments)
    return f"{output}: {making.count} rows of {making.part}, {made['aggregation']} with attempts; {families}"


def make_rows(making: Making) -> Iterator[dict[str, Any]]:
    """The rows in their order, each of another problem; fewer than `making.count` if there are no more."""
    wording = load_wording(making.wording)
    cells = itertools.product(making.environments, making.difficulties)
    known = native()
    problems = [draw(known[name], difficulty, making.part, making.seed) for name, difficulty in cells]
    for number, problem in enumerate(itertools.islice(_each_once(in_turn(problems)), making.count)):
        chance = random.Random(f"row {making.seed}/{making.part}/{number}/{problem.id}")
        family = known[problem.meta["environment"]]
        if isinstance(family, Family) and chance.random() < making.aggregation:
            prompt, reasoning, answer, more = _with_attempts(family, problem, making, wording, chance)
        else:
            prompt, (reasoning, answer), more = problem.prompt, family.explain(problem), {}
        reply = {"role": "assistant", "reasoning_content": reasoning, "content": answer}
        messages = [{"role": "user", "content": prompt}, reply]
        yield {"schema": 1, "messages": messages, "id": problem.id, **problem.meta, **more}


def draw(environment: Environment, difficulty: int, part: str, seed: int = 0) -> Iterator[Problem]:
    """Problems of a part, without a prompt twice, until hardly any new ones are found.

    Seeds of "train" are even and those of "held_out" odd; problems whose prompt belongs to the other part are left out.

    Raises:
        UserError: there is no such part.
    """
    _check_part(part)
    seen: set[str] = set()
    missed = 0
    for number in itertools.count(seed << 32):
        problem = environment.generate(2 * number + PARTS.index(part), difficulty)
        if problem.prompt not in seen and part_of(problem.prompt) == part:
            seen.add(problem.prompt)
            missed = 0
            yield problem
        elif (missed := missed + 1) == _TRIES:
            return


def parse_difficulties(text: str) -> tuple[int, ...]:
    """ "0-4,8" as (0, 1, 2, 3, 4, 8).

    Raises:
        UserError: it is not of that form.
    """
    found: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})(?:-([0-9]{1,6}))?\s*", piece)
        pieces = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if not pieces:
            raise mistake("not difficulties", expected="e.g. 0-4 or 0,2,8", found=repr(text)[:40])
        found += pieces
    return tuple(dict.fromkeys(found))


def in_turn(problems: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """One of each, again and again; those that have come to their end are passed over."""
    left = collections.deque(problems)
    while left:
        problem = next(left[0], None)
        if problem is None:
            left.popleft()
        else:
            yield problem
            left.rotate(-1)


def _each_once(problems: Iterator[Problem]) -> Iterator[Problem]:
    """Without prompts that another difficulty has had: of requests all are alike."""
    seen: set[str] = set()
    for problem in problems:
        if problem.prompt not in seen:
            seen.add(problem.prompt)
            yield problem


def _with_attempts(
    family: Family, problem: Problem, making: Making, wording: Wording, chance: random.Random
) -> tuple[str, str, str, dict[str, Any]]:
    """Prompt, reasoning, answer, provenance. From none to all of the attempts are sound, equally likely."""
    reasoning, answer = family.explain(problem)
    sound = chance.randint(0, making.attempts)
    whole = [(reasoning, answer)] * sound + [spoil(family, problem, chance) for _ in range(making.attempts - sound)]
    chance.shuffle(whole)
    cut = [_cut(text, making.budget, chance) for text, _ in whole]
    tails = [_tail(text, text == full, making.tail) for text, (full, _) in zip(cut, whole)]
    prompt = prompt_text(problem.prompt, wording, tails)
    finished = [end for text, (full, end) in zip(cut, whole) if text == full]
    right = sum(family.verify(problem, end).correct for end in finished)
    if len(reasoning) > making.budget:
        # From the last line that is whole in the longest beginning of sound working; a line that was cut is redone.
        begun = max((text.rfind("\n") + 1 for text in cut if reasoning.startswith(text)), default=0)
        reasoning = reasoning[begun:]
    counts = {"attempts": len(cut), "finished": len(finished), "right": right}
    return prompt, reasoning, answer, {"aggregation": counts}


def _tail(text: str, whole: bool, length: int) -> str:
    """The end of an attempt as Markovian RSA sees it: the template puts a line's end before reasoning and behind it."""
    return ("\n" + text + ("\n" if whole else ""))[-length:]


def _cut(text: str, budget: int, chance: random.Random) -> str:
    """The attempt, or the beginning that a budget left of it."""
    unfinished = _UNFINISHED if len(text) <= budget else 3 * _UNFINISHED
    return text[: chance.randrange(len(text) // 4, len(text))] if chance.random() < unfinished else text


def _counted(making: Making, made: collections.Counter[str]) -> Iterator[dict[str, Any]]:
    for row in make_rows(making):
        made.update([row["environment"], "rows"] + ["aggregation"] * ("aggregation" in row))
        yield row
    if made["rows"] < making.count:
        fix = "lower count, or give more difficulties or environments"
        raise mistake("not that many problems", where="count", expected=f"at most {made['rows']}", fix=fix)


def _check_part(part: str) -> None:
    _check(part in PARTS, "part", " or ".join(PARTS), part)


def _check(sound: object, where: str, expected: str, found: object = None) -> None:
    if not sound:
        raise mistake("out of range", where=where, expected=expected, found=found)

"""Attempts of a frozen model at problems of environments, for prompts of aggregation (ZAYA1 report, VI-B).

They are drawn before a stage, at temperature 1 as round 0 of Markovian RSA draws them, by the checkpoint that the stage
begins with or by any other. The file is `environments.attempts`'; each attempt is cut to the last tau tokens of its
reasoning, finished or not. Until all are there, rows stand in a file beside it, and the same command goes on with it.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zaya_jax.environments.attempts import Attempt, Row, parse
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.parts import part_of
from zaya_jax.environments.sft import in_turn
from zaya_jax.environments.workers import WorkerLimits, Workers
from zaya_jax.errors import mistake
from zaya_jax.evaluation.samples import LineWriter, whole_rows
from zaya_jax.evaluation.search_run import Machine, open_machine
from zaya_jax.loading import load
from zaya_jax.report.progress import Progress
from zaya_jax.rl.generation import Answered, Asked, Decoding, InFlight, make_requests, prompt_of
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.files import check_output, write_rows
from zaya_jax.sampling.reasoning import reasoning_tokens
from zaya_jax.text.tokenizer import Tokenizer

_MISSES = 2000  # seeds in a row without a new problem: there are hardly any left


@dataclasses.dataclass(frozen=True)
class Making:
    """What is to be made.

    Attributes:
        environments: specifications (`environments.named`).
        difficulties: all of them for each environment, in equal parts.
        problems: in all, each prompt once, of part "train".
        attempts: at each.
        thinking_budget: beta, tokens of reasoning of an attempt.
        answer_budget: tokens of the answer behind it, by which it is known whether it is right.
        tail: tau, tokens of reasoning that are kept.
        seed: another one gives other problems and attempts.

    Raises:
        UserError: a value is out of its range.
    """

    environments: tuple[str, ...]
    difficulties: tuple[int, ...] = (0,)
    problems: int = 200
    attempts: int = 8
    thinking_budget: int = 16384
    answer_budget: int = 8192
    tail: int = 4096
    seed: int = 0

    def __post_init__(self):
        for name in ("environments", "difficulties"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise mistake("out of range", where=name, expected="at least one")
        least = {"problems": 1, "attempts": 2, "thinking_budget": 1, "answer_budget": 1, "tail": 1, "seed": 0}
        for name, fewest in least.items():
            if getattr(self, name) < fewest:
                raise mistake("out of range", where=name, expected=f"{fewest} or more", found=getattr(self, name))
        if self.tail > self.thinking_budget:
            expected = f"at most thinking_budget = {self.thinking_budget}"
            raise mistake("a tail longer than the reasoning", where="tail", expected=expected, found=self.tail)


def make_attempts(
    machine: Machine, making: Making, output: pathlib.Path | str, workers: int = 2, limits: WorkerLimits | None = None
) -> str:
    """Writes the file; gives a summary. An interrupted run goes on where it was.

    Raises:
        UserError: the checkpoint, an environment or a setting is not right, there are not that many problems, or rows
            of other settings stand beside `output`. What stood at `output` stays then.
    """
    output = pathlib.Path(output)
    check_output(output)
    tokenizer, context = open_machine(machine)
    made = {"checkpoint": machine.checkpoint, "dtype": machine.dtype, **_settings(making)}
    with Workers(workers, limits) as running:
        asked = ask(making, running, tokenizer)
        decoding = _decoding(machine, making, asked, context)
        beside = output.with_name(f".{output.name}.rows")
        known = _known(beside, made, output)
        left = [one for one in asked if one.problem.id not in known]
        with LineWriter(beside) as writer, Progress("attempt", len(asked), "problems") as progress:
            answers = _answers(machine, making, decoding, tokenizer, left, running)
            for done, answered in enumerate(answers, len(asked) - len(left) + 1):
                row = row_of(answered, making, decoding, tokenizer, made)
                writer.write(row.to_json())
                known[row.id] = row
                progress.show(done)
    rows = [known[one.problem.id] for one in asked]
    write_rows(output, (row.to_json() for row in rows))
    beside.unlink()
    return _summary(rows, output)


def ask(making: Making, workers: Workers, tokenizer: Tokenizer) -> list[Asked]:
    """The problems, numbered, one environment and difficulty after the other.

    Raises:
        UserError: there are not that many.
    """
    cells = itertools.product(making.environments, making.difficulties)
    drawn = in_turn([_problems(*cell, making.seed, workers) for cell in cells])
    asked = [
        Asked(number, environment, difficulty, problem, prompt_of(tokenizer, problem))
        for number, (environment, difficulty, problem) in enumerate(itertools.islice(drawn, making.problems))
    ]
    if len(asked) < making.problems:
        fix = "lower problems, or give more difficulties or environments"
        raise mistake("not that many problems", where="problems", expected=f"at most {len(asked)}", fix=fix)
    name, count = collections.Counter(one.problem.id for one in asked).most_common(1)[0]
    if count > 1:
        fix = "give one difficulty where an environment has no others"
        raise mistake("the same problem at several difficulties", where="difficulties", found=repr(name), fix=fix)
    return asked


def row_of(answered: Answered, making: Making, decoding: Decoding, tokenizer: Tokenizer, made: Mapping) -> Row:
    """The row of a problem with its answers."""
    asked = answered.asked
    request = make_requests(asked, decoding, tokenizer, making.seed)[0]
    attempts = []
    for one, verdict, truncated in zip(answered.rollouts, answered.verdicts, answered.truncated, strict=True):
        tail = reasoning_tokens(request, one.tokens)[-making.tail :].tolist()
        right = None if isinstance(verdict, Failure) else verdict.correct
        attempts.append(Attempt(tokenizer.decode(tail), tuple(tail), not truncated, right))
    return Row(asked.problem.id, asked.environment, asked.difficulty, asked.problem, tuple(attempts), dict(made))


def _problems(environment: str, difficulty: int, seed: int, workers: Workers) -> Iterator[tuple[str, int, Problem]]:
    """Problems to learn from, no prompt twice, until hardly any new ones are found; seeds are even, as those of data
    for SFT."""
    seen: set[str] = set()
    misses = 0
    for number in itertools.count(seed << 32):
        problem = workers.generate(environment, 2 * number, difficulty).result()
        if isinstance(problem, Problem) and problem.prompt not in seen and part_of(problem.prompt) == "train":
            seen.add(problem.prompt)
            misses = 0
            yield environment, difficulty, problem
        elif (misses := misses + 1) == _MISSES:
            return


def _settings(making: Making) -> dict[str, Any]:
    """Those that an attempt depends on, besides the problem."""
    names = ("attempts", "thinking_budget", "answer_budget", "tail", "seed")
    return {name: getattr(making, name) for name in names}


def _decoding(machine: Machine, making: Making, asked: Sequence[Asked], context: int) -> Decoding:
    longest = max(asked, key=lambda one: len(one.prompt))
    budgets = making.thinking_budget, making.answer_budget
    decoding = Decoding(making.attempts, *budgets, machine.slots, machine.chunk, len(longest.prompt))
    if decoding.capacity > context:
        where, found = f"problem {longest.problem.id}", f"{decoding.capacity} with what is drawn"
        fix = "lower thinking_budget or answer_budget"
        expected = f"at most {context} tokens"
        raise mistake("longer than the context", where=where, expected=expected, found=found, fix=fix)
    return decoding


def _known(beside: pathlib.Path, made: Mapping[str, Any], output: pathlib.Path) -> dict[str, Row]:
    """The rows that an interrupted run has left, by id."""
    if not beside.exists():
        return {}
    rows = [parse(record, where) for where, record in whole_rows(beside)]
    for row in rows:
        if row.made != made:
            found = ", ".join(f"{key} {row.made.get(key)!r}" for key in made if row.made.get(key) != made[key])
            fix = f"go on with these settings, or delete {beside}"
            raise mistake("an unfinished file of other settings", where=output, found=found, fix=fix)
    return {row.id: row for row in rows}


def _answers(
    machine: Machine, making: Making, decoding: Decoding, tokenizer: Tokenizer, left: Sequence[Asked], workers: Workers
) -> Iterator[Answered]:
    """Problems with their answers as these become complete; no weight is read if there are none."""
    if not left:
        return
    model, variables, _ = load(machine.checkpoint, dtype=machine.dtype)
    engine = Engine(model, variables, slots=decoding.slots, capacity=decoding.capacity, chunk=decoding.chunk)
    flight, waiting = InFlight(engine, tokenizer, decoding, workers.verify, making.seed), collections.deque(left)
    while waiting or flight.asked:
        while waiting and engine.waiting < decoding.group_size:
            flight.ask(waiting.popleft())
        if engine.busy:
            flight.step()
        yield from flight.take(wait=not engine.busy)


def _summary(rows: Sequence[Row], output: pathlib.Path) -> str:
    attempts = [attempt for row in rows for attempt in row.attempts]
    cells = collections.Counter(f"{row.environment} {row.difficulty}" for row in rows)
    right, finished = (sum(bool(getattr(one, name)) for one in attempts) for name in ("right", "finished"))
    counts = ", ".join(f"{name}: {count}" for name, count in sorted(cells.items()))
    head = f"{output}: {len(rows)} problems, {len(attempts)} attempts, {right} right, {finished} finished"
    return f"{head}; problems by environment and difficulty: {counts}"

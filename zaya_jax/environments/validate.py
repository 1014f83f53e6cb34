"""Whether an environment keeps the contract: what its author should know before a run does.

Everything runs in workers, as in training. `validate` looks at a few problems of several difficulties; it shows that
something is wrong, and cannot show that all is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.workers import WorkerLimits, Workers

DIFFICULTIES, SEEDS = (0, 1, 3, 10), 4
EMPTY = ("", " \n ")
# What has hurt verifiers: numbers of more digits than int() takes, nests that parsers recurse into, and no text at all.
JUNK = (
    "\0",
    "\ud800",
    "9" * 5000,
    "1e999",
    "nan",
    "-inf",
    "[" * 5000,
    "{}" * 5000,
    "(" * 200,
    r"\boxed{\frac{",
    "<answer>",
    "<answer></answer>",
    "-",
    "é٣½",
    "I do not know.",
    "a b c " * 20_000,
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what should hold.
        sound: whether it does; None if it could not be looked at.
        detail: the first counterexample, or how much was looked at.
    """

    check: str
    sound: bool | None
    detail: str


def validate(
    environment: str,
    difficulties: Sequence[int] = DIFFICULTIES,
    seeds: int = SEEDS,
    limits: WorkerLimits | None = None,
) -> list[Finding]:
    """Checks an environment by its specification.

    Args:
        environment: see `zaya_jax.environments.named`.
        difficulties: to look at.
        seeds: of each difficulty, from 0 up.
        limits: of the two workers. They differ in the order of their sets, which nothing may depend on.

    Raises:
        UserError: there is no such environment, or it cannot be imported.
    """
    limits = limits or WorkerLimits()
    calls = [(seed, difficulty) for difficulty in difficulties for seed in range(seeds)]
    with Workers(1, limits) as one, Workers(1, dataclasses.replace(limits, hash_seed=limits.hash_seed + 1)) as other:
        first = _all(one.generate(environment, *call) for call in calls)
        second = _all(other.generate(environment, *call) for call in reversed(calls))[::-1]
        problems = [problem for problem in first if isinstance(problem, Problem)]
        findings = [_no_failures("a problem of every seed and difficulty", first, calls)]
        findings.append(_same("the same problem in another process and order", first, second, calls))
        if not problems:
            return findings
        findings += [_ids(problems), _prompts(first, calls)]
        few, open_ended = problems[:: max(1, len(problems) // 4)], bool(problems[0].meta.get("open_ended"))
        findings += _answers(environment, problems, one, open_ended)
        findings += _wrong("an empty answer is wrong", environment, few, EMPTY, one)
        junk = "junk does not raise" if open_ended else "junk is wrong, and does not raise"
        findings += _wrong(junk, environment, few, JUNK, one, may_be_right=open_ended)
        responses = [*EMPTY, *JUNK]
        verdicts = [_all(pool.verify(environment, few[0], text) for text in responses) for pool in (one, other)]
        findings.append(_same("the same verdict in another process", *verdicts, [text[:20] for text in responses]))
    return findings


def _all(futures: Iterable[Any]) -> list[Any]:
    return [future.result() for future in list(futures)]


def _no_failures(check: str, results: Sequence[Any], calls: Sequence[Any]) -> Finding:
    for call, result in zip(calls, results):
        if isinstance(result, Failure):
            return Finding(check, False, f"seed {call[0]}, difficulty {call[1]}: {result.kind}: {result.detail}")
    return Finding(check, True, f"{len(results)} problems")


def _same(check: str, first: Sequence[Any], second: Sequence[Any], calls: Sequence[Any]) -> Finding:
    for call, a, b in zip(calls, first, second):
        if a != b and not (isinstance(a, Failure) and isinstance(b, Failure)):
            return Finding(check, False, f"{call!r}: {_short(a)} and {_short(b)}")
    return Finding(check, True, f"{len(first)} of each")


def _ids(problems: Sequence[Problem]) -> Finding:
    seen: dict[str, Problem] = {}
    for problem in problems:
        other = seen.setdefault(problem.id, problem)
        if other.prompt != problem.prompt or other.hidden != problem.hidden:
            return Finding("an id is one problem's", False, f"{problem.id} is the id of two")
    return Finding("an id is one problem's", True, f"{len(seen)} ids")


def _prompts(results: Sequence[Any], calls: Sequence[tuple[int, int]]) -> Finding:
    """Between the seeds of a difficulty, that is; small ones may well have some twice."""
    made = [(call[1], result.prompt) for call, result in zip(calls, results) if isinstance(result, Problem)]
    count, every = len(set(made)), len(made)
    return Finding("seeds differ", count > every // 2, f"{count} prompts of {every}")


def _answers(environment: str, problems: Sequence[Problem], workers: Workers, open_ended: bool) -> list[Finding]:
    """What `explain` says: right for its problem, and not for all others too, unless problems are open-ended."""
    right, others = "the explained answer is right", "the explained answer of another problem is wrong"
    given = _all(workers.explain(environment, problem) for problem in problems)
    if all(item is None for item in given):
        return [Finding(check, None, "the environment explains nothing") for check in (right, others)]
    for problem, item in zip(problems, given):
        if not isinstance(item, tuple):
            return [Finding(right, False, f"{problem.id}: {_short(item)}")]
    answers = [answer for _, answer in given]
    own = _all(workers.verify(environment, *pair) for pair in zip(problems, answers))
    shifted = _all(workers.verify(environment, *pair) for pair in zip(problems, answers[1:] + answers[:1]))
    findings = [Finding(right, True, f"{len(own)} answers")]
    for problem, answer, verdict in zip(problems, answers, own):
        if not isinstance(verdict, Verdict) or not (verdict.correct and verdict.format and verdict.reward > 0):
            findings = [Finding(right, False, f"{problem.id}: {answer[:40]!r}: {_short(verdict)}")]
            break
    passed = sum(isinstance(verdict, Verdict) and verdict.correct for verdict in shifted)
    sound = passed <= len(problems) // 2 if len(problems) > 1 and not open_ended else None
    return [*findings, Finding(others, sound, f"{passed} of {len(problems)} are right")]


def _wrong(
    check: str,
    environment: str,
    problems: Sequence[Problem],
    texts: Sequence[str],
    workers: Workers,
    may_be_right: bool = False,
) -> list[Finding]:
    pairs = [(problem, text) for problem in problems for text in texts]
    for (problem, text), verdict in zip(pairs, _all(workers.verify(environment, *pair) for pair in pairs)):
        if isinstance(verdict, Failure) or (not may_be_right and (verdict.correct or verdict.reward > 0)):
            return [Finding(check, False, f"{problem.id}: {text[:20]!r}: {_short(verdict)}")]
    return [Finding(check, True, f"{len(pairs)} responses")]


def _short(result: Any) -> str:
    if isinstance(result, Failure):
        return f"{result.kind}: {result.detail}"
    if isinstance(result, Problem):
        return f"{result.id} {result.prompt[:40]!r}"
    if isinstance(result, Verdict):
        state = "right" if result.correct else "wrong"
        return f"{state}, reward {result.reward:g}{'' if result.format else ', no answer found'}"
    return repr(result)[:60]

"""What the launcher `environments` does; nothing else needs it."""

from __future__ import annotations

import sys
from typing import TextIO

from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.named import FORMS, families
from zaya_jax.environments.validate import validate
from zaya_jax.environments.workers import WorkerLimits, Workers
from zaya_jax.errors import mistake


def list_environments(sink: TextIO | None = None) -> None:
    """Prints what can be named."""
    print("native families:", ", ".join(families()) or "none", file=sink or sys.stdout)
    print("others:", *(f"  {form}" for form in FORMS), sep="\n", file=sink or sys.stdout)


def show(
    environment: str,
    difficulty: int,
    count: int,
    seed: int,
    answers: bool = False,
    limits: WorkerLimits | None = None,
    sink: TextIO | None = None,
) -> None:
    """Prints problems, and with `answers` their explanations and the verifier's verdicts on those.

    Raises:
        UserError: there is no such environment, or it failed to make a problem, explain it or judge it.
    """
    sink = sink or sys.stdout
    with Workers(1, limits) as workers:
        made = [workers.generate(environment, seed + number, difficulty) for number in range(count)]
        for number, future in enumerate(made):
            problem = _got(future.result(), f"seed {seed + number}, difficulty {difficulty}")
            print(
                f"--- {problem.id} (seed {seed + number}, difficulty {difficulty})", problem.prompt, sep="\n", file=sink
            )
            if answers:
                _show_answer(environment, problem, workers, sink)


def _show_answer(environment: str, problem: Problem, workers: Workers, sink: TextIO) -> None:
    told = _got(workers.explain(environment, problem).result(), problem.id)
    if told is None:
        print("(the environment explains nothing)", f"hidden: {dict(problem.hidden)}"[:400], sep="\n", file=sink)
        return
    verdict = _got(workers.verify(environment, problem, told[1]).result(), problem.id)
    print("reasoning:", told[0], f"answer: {told[1]}", f"verdict: {verdict}", sep="\n", file=sink)


def _got(result, where: str):
    if isinstance(result, Failure):
        raise mistake(f"{result.environment} failed", where=where, found=f"{result.kind}: {result.detail}")
    return result


def check(environment: str, limits: WorkerLimits | None = None, sink: TextIO | None = None) -> None:
    """Prints what `validate` finds, a line each.

    Raises:
        UserError: something is not as it should be.
    """
    findings = validate(environment, limits=limits)
    words = {True: "ok", False: "WRONG", None: "-"}
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.check:{width}}  {words[finding.sound]:5}  {finding.detail}", file=sink or sys.stdout)
    wrong = [finding.check for finding in findings if finding.sound is False]
    if wrong:
        fix = "docs/environments.md has the contract"
        raise mistake("does not keep the contract", where=environment, expected="; ".join(wrong), fix=fix)

"""Benchmarks: a jsonl file of problems in, prompts out, and verdicts on responses.

    problems = read_benchmark("gpqa_diamond.jsonl", seed=0)
    verdict = verify(problems[0], response)

Only the answer of a response is looked at, what stands behind `</think>`; a response that never closed its reasoning
has none. Graders come from `zaya_jax.grading`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.named import families
from zaya_jax.environments.prompts import fill, read_template
from zaya_jax.environments.rows import read_rows
from zaya_jax.environments.schema import LETTERS, check_row
from zaya_jax.errors import mistake
from zaya_jax.grading.code import check_code
from zaya_jax.grading.equivalence import equivalent
from zaya_jax.grading.extract import extract
from zaya_jax.grading.instructions import check
from zaya_jax.grading.sandbox import Sandbox
from zaya_jax.text.thinking import THINK_END, split_thinking

UNFINISHED = "unfinished"  # the reasoning was never closed
EMPTY = "empty"  # there is nothing behind it
NO_ANSWER = "no answer"  # nothing in the form that was asked for
# The kind of problems of `evaluation.families`, which no file has: hidden has the environment's name and its own part.
FAMILY = "family"
WHOLE = ("instructions", "chat", FAMILY)  # kinds whose answer is all that stands behind the reasoning


def read_benchmark(path: pathlib.Path | str, seed: int = 0, prompts: pathlib.Path | str | None = None) -> list[Problem]:
    """Reads a benchmark file (docs/benchmarks.md).

    Args:
        path: jsonl, one problem a line.
        seed: of the order of options. It depends on seed and problem alone, not on the other rows.
        prompts: a directory of one's own templates; None for ours.

    Raises:
        UserError: the first bad row, with file and line; two rows with one id; an empty file; a bad template.
    """
    problems, lines = [], {}
    templates: dict[str, str] = {}
    for where, row in read_rows(path):
        clean = check_row(row, where)
        if clean["id"] in lines:
            raise mistake(f"id {clean['id']!r} is there twice", where=where, found=f"it is in {lines[clean['id']]} too")
        lines[clean["id"]] = where.rpartition(", ")[2]
        problems.append(_problem(clean, pathlib.Path(path).stem, seed, templates, prompts))
    return problems


def verify(
    problem: Problem, response: str, *, sandbox: Any = None, verifier: Any = None, in_thinking: bool = False
) -> Verdict:
    """Whether a response answers its problem.

    Args:
        problem: of `read_benchmark`, or of `evaluation.families`.
        response: all that was generated, think marks included.
        sandbox: `zaya_jax.grading.sandbox.Sandbox` that code runs in; None makes one.
        verifier: an entered `zaya_jax.grading.equivalence.MathVerifier`, for LaTeX that exact rules cannot compare;
            without one, that is wrong.
        in_thinking: the prompt opened the reasoning, so that the response begins inside it.
    """
    answer, error = find_answer(problem, response, in_thinking=in_thinking)
    if answer is None:
        return Verdict(0.0, False, False, error)
    correct, error = judge(problem, answer, sandbox, verifier)
    return Verdict(float(correct), correct, True, error, answer)


def find_answer(problem: Problem, response: str, *, in_thinking: bool = False) -> tuple[str | None, str | None]:
    """The answer as it stands in a response, and why there is none. Nothing of it is judged or run."""
    if not response.strip():
        return None, EMPTY
    if not split_thinking(response, in_thinking=in_thinking).closed:
        return None, UNFINISHED
    text = response.rpartition(THINK_END)[2].strip()
    if not text:
        return None, EMPTY
    kind = problem.hidden["kind"]
    answer = text if kind in WHOLE else extract(text, kind)
    return (answer, None) if answer is not None else (None, NO_ANSWER)


def judge(problem: Problem, answer: str, sandbox: Any = None, verifier: Any = None) -> tuple[bool, str | None]:
    """Whether an answer is right, and where it fails if that can be said. Of kind chat every answer is."""
    hidden = problem.hidden
    if hidden["kind"] == "chat":
        return True, None
    if hidden["kind"] == "code":
        return _run_tests(answer, hidden["tests"], sandbox)
    if hidden["kind"] == "instructions":
        return _follow(answer, hidden["instructions"])
    if hidden["kind"] == FAMILY:
        verdict = families()[hidden["family"]].verify(dataclasses.replace(problem, hidden=hidden["hidden"]), answer)
        return verdict.correct, verdict.error
    return bool(equivalent(hidden["answer"], answer, hidden["kind"], verifier)), None


def shuffled(count: int, seed: int, name: str) -> list[int]:
    """An order of `count` things that depends on the seed and the name alone, on every machine and version alike."""
    return sorted(range(count), key=lambda place: hashlib.sha256(f"{seed}\0{name}\0{place}".encode()).digest())


def _problem(row: Mapping[str, Any], benchmark: str, seed: int, templates: dict[str, str], prompts) -> Problem:
    kind = row["kind"]
    values, hidden = {"problem": row["problem"].strip()}, {"kind": kind}
    meta = {"benchmark": benchmark} | {key: row[key] for key in ("source", "date") if key in row}
    if kind == "chat":
        meta["open_ended"] = True
    if kind == "choice":
        order = shuffled(len(row["choices"]), seed, row["id"])
        values["choices"] = "\n".join(f"{LETTERS[i]}) {row['choices'][place].strip()}" for i, place in enumerate(order))
        values["letters"] = _letters(len(order))
        hidden["answer"] = LETTERS[order.index(row["answer"])]
        meta["choices_seed"] = seed
    elif "starter_code" in row:
        values["starter_code"] = row["starter_code"].rstrip()
    hidden |= {key: row[key] for key in ("answer", "tests", "instructions") if key in row and key not in hidden}
    name = "code_starter" if "starter_code" in row else kind
    if name not in templates:
        templates[name] = read_template(name, prompts)
    return Problem(row["id"], fill(templates[name], values), hidden, meta)


def _letters(count: int) -> str:
    return ", ".join(LETTERS[: count - 1]) + f" or {LETTERS[count - 1]}"


def _run_tests(code: str, tests: Sequence[Mapping[str, Any]], sandbox: Any) -> tuple[bool, str | None]:
    if sandbox is None:
        sandbox = Sandbox()
    verdict = check_code(code, [dict(test) for test in tests], sandbox)
    return verdict.passed, None if verdict.passed else f"{verdict.status} at test {verdict.count + 1} of {len(tests)}"


def _follow(answer: str, instructions: Sequence[Mapping[str, Any]]) -> tuple[bool, str | None]:
    failed = [item["name"] for item in instructions if not check(item["name"], item["arguments"], answer)]
    return not failed, f"not followed: {', '.join(failed)}" if failed else None

"""What the launchers `evaluate` and `markovian_rsa` do."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.benchmarks import read_benchmark
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.evaluation.commands import compare_files
from zaya_jax.evaluation.samples import SINGLE
from zaya_jax.evaluation.search_records import SAMPLES
from zaya_jax.evaluation.search_run import Machine, open_machine, search_all
from zaya_jax.evaluation.search_task import Task, make_questions
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.grading.sandbox import Sandbox
from zaya_jax.report.candidates import write_candidates


def evaluate(
    machine: Machine,
    files: Sequence[str],
    wanted: Wanted,
    output: str,
    *,
    families: Mapping[str, Sequence[Problem]] | None = None,
    wording: str | None = None,
    prompts: str | None = None,
    choices_seed: int = 0,
    limit: int | None = None,
    html: bool = False,
    style: str = "text",
    workers: int = 2,
    allow_unisolated: bool = False,
) -> str:
    """Samples and grades benchmarks; gives the table of scores.

    Each benchmark has a directory of its own in `output` (`search_records`). Every file and setting is checked before
    the first is sampled; one engine samples all.

    Args:
        families: problems by benchmark besides those of the files (`evaluation.families`).
        wording: of the aggregation prompts, a kind or a file (`text.aggregation`); None goes by the problem's kind.
        prompts: a directory of one's own templates of problems; None for ours.
        limit: only so many problems of each.
        html: write the page of scores, and of each search its own.

    Raises:
        UserError: a file or a setting is not right.
    """
    root, benchmarks = pathlib.Path(output), _all(files, families or {}, choices_seed, prompts)
    sandbox = make_sandbox([one for group in benchmarks.values() for one in group[:limit]], allow_unisolated)
    tokenizer, context = open_machine(machine)
    tasks = []
    for name, group in benchmarks.items():
        asked = group if wanted.fills_context else group[:limit]
        questions = make_questions(tokenizer, asked, wanted.attempts, wording)
        what = (group[:limit], questions[:limit], wanted.settings(name, questions, context), context)
        tasks.append(Task(name, wanted.method, *what, root / name, wording, prompts, choices_seed))
    for task, _ in zip(tasks, search_all(machine, tasks, tokenizer, workers, sandbox), strict=True):
        if html and wanted.method != SINGLE:
            print(write_candidates(task.directory, task.directory / "run.html"), file=sys.stderr)
    return show(root, list(benchmarks), html, style)


def _all(files: Sequence[str], families: Mapping[str, Sequence[Problem]], choices_seed: int, prompts: str | None):
    found = read_all(files, choices_seed, prompts) if files or not families else {}
    if both := sorted(found.keys() & families):
        raise mistake("two benchmarks of one name", where="a file and a family", found=both[0], fix="rename the file")
    return found | families


def show(root: pathlib.Path, names: Sequence[str], html: bool, style: str) -> str:
    """The tables of what has been sampled, and its page."""
    files = [root / name / SAMPLES for name in names]
    return compare_files(files, output=root / "evaluation.html" if html else None, style=style)


def grade_again(
    output: str,
    files: Sequence[str],
    *,
    choices_seed: int = 0,
    style: str = "text",
    workers: int = 2,
    allow_unisolated: bool = False,
) -> str:
    """Grades stored samples anew, without sampling; gives the tables."""
    problems = read_all(files, choices_seed)
    sandbox = make_sandbox([one for group in problems.values() for one in group], allow_unisolated)
    stored = [pathlib.Path(output) / name / SAMPLES for name in problems]
    options = {"choices_seed": choices_seed, "workers": workers, "sandbox": sandbox}
    return compare_files(stored, files, style=style, **options)


def read_all(files: Sequence[str], choices_seed: int = 0, prompts: str | None = None) -> dict[str, list[Problem]]:
    """Benchmarks by name, which is that of the file.

    Raises:
        UserError: none, two of one name, or a file that is not right.
    """
    if not files:
        raise mistake("no benchmark", expected="at least one file, or family")
    out: dict[str, list[Problem]] = {}
    for file in files:
        name = pathlib.Path(file).stem
        if name in out:
            raise mistake("two benchmarks of one name", where=file, found=name, fix="rename one of the files")
        out[name] = read_benchmark(file, choices_seed, prompts)
    return out


def make_sandbox(problems: Sequence[Problem], allow_unisolated: bool) -> Any:
    """Where code will run, made before anything is sampled: that there is none shows at once."""
    if not any(problem.hidden["kind"] == "code" for problem in problems):
        return None
    return Sandbox(allow_unisolated=allow_unisolated)

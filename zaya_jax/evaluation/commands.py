"""What the launcher `compare` does; nothing else needs it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.benchmarks import read_benchmark
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.evaluation.grades import Grade, grade, grades_path, read_grades, write_grades
from zaya_jax.evaluation.page import by_benchmark, write_evaluation
from zaya_jax.evaluation.samples import SINGLE, Sample, read_samples
from zaya_jax.evaluation.score import Comparison, Score, compare, score
from zaya_jax.evaluation.tables import attempts_table, comparisons_table, markdown, scores_table, text


def compare_files(
    files: Sequence[pathlib.Path | str],
    benchmarks: Sequence[pathlib.Path | str] = (),
    *,
    output: pathlib.Path | str | None = None,
    png: bool = False,
    style: str = "text",
    seed: int = 0,
    choices_seed: int = 0,
    workers: int = 2,
    sandbox: Any = None,
) -> str:
    """Scores samples files, compares every run with the first on each benchmark, and gives the tables.

    Args:
        files: of samples.
        benchmarks: benchmark files; only needed where samples have no grades yet.
        output: a page to write; None writes none.
        png: draw the page's charts beside it too.
        style: "text" or "markdown".
        seed: of the bootstrap.
        choices_seed: what the options of multiple choice were shuffled with when the prompts were made.
        workers: how many answers are judged at once.
        sandbox: where code runs; None makes one where it is needed.

    Raises:
        UserError: a file is not right, or samples have no grades and their benchmark is not given.
    """
    if png and output is None:
        raise mistake("charts without a page", expected="--output with --png")
    problems = {pathlib.Path(path).stem: read_benchmark(path, choices_seed) for path in benchmarks}
    options = (problems, workers, sandbox)
    scores = [one for name, path in zip(run_names(files), files) for one in _scores(name, path, *options)]
    scores = [one for group in by_benchmark(scores).values() for one in group]
    comparisons = compare_all(scores, seed)
    for file in write_evaluation(output, scores, comparisons, png) if output else []:
        print(file, file=sys.stderr)
    shown = markdown if style == "markdown" else text
    tables = (scores_table(scores), comparisons_table(comparisons), attempts_table(scores))
    return "\n\n".join(shown(table) for table in tables if table)


def run_names(files: Sequence[pathlib.Path | str]) -> list[str]:
    """As much of the end of each path as tells them apart, without `samples.jsonl` or `.jsonl`.

    Raises:
        UserError: a file is given twice.
    """
    paths = [pathlib.Path(file).resolve() for file in files]
    if len(set(paths)) < len(paths):
        raise mistake("given twice", where=next(path for path in paths if paths.count(path) > 1))
    parts = [path.parts[:-1] if path.name == "samples.jsonl" else (*path.parts[:-1], path.stem) for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def compare_all(scores: Sequence[Score], seed: int = 0) -> list[Comparison]:
    """Every run against the first one that has the benchmark."""
    first: dict[str, Score] = {}
    return [compare(first[one.benchmark], one, seed) for one in scores
            if first.setdefault(one.benchmark, one) is not one]  # fmt: skip


def _scores(
    name: str, path: pathlib.Path | str, problems: Mapping[str, Sequence[Problem]], workers: int, sandbox: Any
) -> list[Score]:
    samples = read_samples(path)
    if not samples:
        raise mistake("no samples", where=path, expected="at least one")
    grades = graded(path, samples, problems, workers, sandbox)
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.benchmark, sample.method), []).append(sample)
    methods = {method for _, method in groups}
    return [score(group, grades, name if len(methods) == 1 or method == SINGLE else f"{name} {method}")
            for (_, method), group in groups.items()]  # fmt: skip


def graded(
    path: pathlib.Path | str,
    samples: Sequence[Sample],
    problems: Mapping[str, Sequence[Problem]],
    workers: int = 2,
    sandbox: Any = None,
) -> list[Grade]:
    """The grades of a samples file: of the benchmarks given here made anew and stored, the others as they are stored.

    Raises:
        UserError: a benchmark's samples are not all graded and it is not given.
    """
    file = grades_path(path)
    old = read_grades(file) if file.exists() and file.stat().st_size else []
    stored = {(row.benchmark, row.key): row for row in old}
    grades: list[Grade] = []
    for benchmark in dict.fromkeys(sample.benchmark for sample in samples):
        group = [sample for sample in samples if sample.benchmark == benchmark]
        if benchmark in problems:
            grades += grade(problems[benchmark], group, workers, sandbox)
            continue
        ungraded = [sample for sample in group if (benchmark, sample.key) not in stored]
        if ungraded:
            fix = f"give its problems: --benchmark=.../{benchmark}.jsonl"
            raise mistake("samples without grades", where=path, found=f"{len(ungraded)} of {benchmark}", fix=fix)
        grades += [stored[benchmark, sample.key] for sample in group]
    if grades != old:
        write_grades(file, grades)
    return grades

"""Grades of stored samples: made without sampling, kept in a file beside the samples.

    {"benchmark", "problem", "index", "method", "seed", "correct", "format", "answer", "cluster", "error"}

Answers are taken out and compared here, in this process; code runs in its sandbox, several at once; LaTeX that exact
rules cannot compare goes to math-verify, in processes of its own, where that is installed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zaya_jax.environments.benchmarks import FAMILY, find_answer, judge
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.rows import check_keys, number_of, read_rows, text_of
from zaya_jax.errors import mistake
from zaya_jax.evaluation.samples import Key, Sample
from zaya_jax.grading.equivalence import MathVerifier, cluster
from zaya_jax.grading.sandbox import Sandbox
from zaya_jax.sampling.files import write_rows

FILE = "grades.jsonl"
# How answers of a kind are compared with each other, so that they can vote; those of other kinds have no vote.
CLUSTERED = {kind: kind for kind in ("integer", "latex", "choice", "exact")} | {FAMILY: "exact"}
MATH_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a grader says of a sample.

    Attributes:
        benchmark, problem, index, method, seed: of the sample.
        correct, format, error, answer: as `zaya_jax.environments.environment.Verdict`.
        cluster: equal for equivalent answers to one problem, None where there is none to vote with.
    """

    benchmark: str
    problem: str
    index: int
    method: str
    seed: int
    correct: bool
    format: bool
    answer: str | None
    cluster: int | None
    error: str | None

    @property
    def key(self) -> Key:
        """That of its sample."""
        return self.problem, self.index, self.method, self.seed


_FIELDS = tuple(field.name for field in dataclasses.fields(Grade))


def grade(problems: Sequence[Problem], samples: Sequence[Sample], workers: int = 2, sandbox: Any = None) -> list[Grade]:
    """Grades samples of one benchmark, in their order.

    Args:
        problems: of `read_benchmark`.
        samples: of `read_samples`, all of this benchmark.
        workers: how many answers are judged at once where that is slow.
        sandbox: where code runs; None makes one.

    Raises:
        UserError: a sample is of a problem that there is none of, or saw its options in another order (as its meta's
            `choices_seed` says), or there is no sandbox to run code in.
    """
    by_id = {problem.id: problem for problem in problems}
    for sample in samples:
        _check_belongs(sample, by_id)
    found = [find_answer(by_id[sample.problem], sample.response) for sample in samples]
    # Equal answers to one problem are judged once.
    pairs = list(dict.fromkeys((s.problem, answer) for s, (answer, _) in zip(samples, found) if answer is not None))
    asked = [by_id[name] for name in dict(pairs)]
    sandbox = sandbox or _sandbox(asked)
    # Threads: what is slow happens in other processes.
    with _verifier(asked, workers) as verifier, concurrent.futures.ThreadPoolExecutor(max(workers, 1)) as pool:
        verdicts = pool.map(lambda pair: judge(by_id[pair[0]], pair[1], sandbox, verifier), pairs)
        judged = dict(zip(pairs, verdicts))
        clusters = _clusters(by_id, samples, [answer for answer, _ in found], pool, verifier)
    return [_grade(*three, judged) for three in zip(samples, found, clusters)]


def _check_belongs(sample: Sample, problems: Mapping[str, Problem]) -> None:
    if sample.problem not in problems:
        fix = "was it sampled from another file?"
        raise mistake("a sample of no problem", where=sample.benchmark, found=repr(sample.problem)[:60], fix=fix)
    ours, its = (meta.get("choices_seed") for meta in (problems[sample.problem].meta, sample.meta))
    if None not in (ours, its) and ours != its:
        where = f"{sample.benchmark}, problem {sample.problem}"
        raise mistake("options in another order", where=where, expected=f"those of seed {its}", found=f"seed {ours}")


def grades_path(samples: pathlib.Path | str) -> pathlib.Path:
    """Where the grades of a samples file are: `grades.jsonl` beside `samples.jsonl`, else `NAME.grades.jsonl`."""
    path = pathlib.Path(samples)
    return path.with_name(FILE if path.name == "samples.jsonl" else f"{path.stem}.{FILE}")


def write_grades(path: pathlib.Path | str, grades: Iterable[Grade]) -> None:
    """Writes a grades file; what stood there stays until the new one is whole.

    Raises:
        UserError: it cannot be written.
    """
    write_rows(path, (dataclasses.asdict(grade) for grade in grades))


def read_grades(path: pathlib.Path | str) -> list[Grade]:
    """The grades of a file.

    Raises:
        UserError: the file cannot be read, or a line is no grade.
    """
    return [_parse(row, where) for where, row in read_rows(path)]


def _sandbox(problems: Iterable[Problem]) -> Any:
    if not any(problem.hidden["kind"] == "code" for problem in problems):
        return None
    return Sandbox()


def _verifier(problems: Iterable[Problem], workers: int) -> contextlib.AbstractContextManager:
    """math-verify's processes if there is LaTeX to compare and it is installed; else nothing, with a warning."""
    if not any(problem.hidden["kind"] == "latex" for problem in problems):
        return contextlib.nullcontext()
    if importlib.util.find_spec("math_verify") is None:
        warnings.warn("math-verify is not installed: what exact rules cannot compare counts as wrong", stacklevel=3)
        return contextlib.nullcontext()
    return MathVerifier(workers, MATH_SECONDS)


def _clusters(
    problems: Mapping[str, Problem],
    samples: Sequence[Sample],
    answers: Sequence[str | None],
    pool: concurrent.futures.Executor,
    verifier: Any,
) -> list[int | None]:
    """The class of each sample's answer, equal for equivalent answers to one problem; None for those without a vote."""
    places = collections.defaultdict(list)
    for place, (sample, answer) in enumerate(zip(samples, answers)):
        if answer is not None and problems[sample.problem].hidden["kind"] in CLUSTERED:
            places[sample.problem].append(place)

    def classes(name: str) -> list[int]:
        kind = CLUSTERED[problems[name].hidden["kind"]]
        return cluster([answers[place] for place in places[name]], kind, verifier)

    clusters: list[int | None] = [None] * len(samples)
    for members, numbers in zip(places.values(), pool.map(classes, places)):
        for place, number in zip(members, numbers):
            clusters[place] = int(number)
    return clusters


def _grade(sample: Sample, found: tuple[str | None, str | None], cluster: int | None, judged: Mapping) -> Grade:
    answer, error = found
    correct = False
    if answer is not None:
        correct, error = judged[sample.problem, answer]
    return Grade(sample.benchmark, *sample.key, correct, answer is not None, answer, cluster, error)


def _parse(row: Mapping[str, Any], where: str) -> Grade:
    check_keys(row, _FIELDS, where)
    texts = {key: text_of(row, key, where) for key in ("benchmark", "problem", "method")}
    counts = {key: number_of(row, key, where) for key in ("index", "seed")}
    flags = {key: row.get(key) for key in ("correct", "format")}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise mistake("no verdict", where=where, expected="'correct' and 'format', true or false", found=flags)
    cluster = None if row.get("cluster") is None else number_of(row, "cluster", where)
    return Grade(**texts, **counts, **flags, answer=row.get("answer"), cluster=cluster, error=row.get("error"))

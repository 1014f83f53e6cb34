"""Pass-rate filtering: of a set of problems, those that a policy solves neither too often nor too seldom.

Between its stages the report filters the data of the next one anew with the current policy, and takes the easy end out
(VII-D); the warmup takes problems with a prior pass rate of at most 0.75. Its first pass answers without reasoning, its
second with, at a lower limit of length: that is this filter twice, with the samples of two runs of `evaluate`.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from zaya_jax.environments.rows import parse_row, read_rows, text_of
from zaya_jax.errors import mistake
from zaya_jax.evaluation.grades import Grade, grades_path, read_grades
from zaya_jax.evaluation.samples import read_samples
from zaya_jax.sampling.files import check_output, replacement

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a filter did, in numbers of problems.

    Attributes:
        kept: within the range, its ends included.
        easy, hard: above it, and below.
        fewest, most: samples of a problem.
        mean_before, mean_after: pass rate of all problems, and of those that were kept.
    """

    kept: int
    easy: int
    hard: int
    fewest: int
    most: int
    mean_before: float
    mean_after: float


def filter_file(
    problems: Path | str, rates: Path | str, output: Path | str, at_most: float = 0.75, at_least: float = 0.0
) -> str:
    """Writes the problems with a pass rate within the range, line by line as they are; says how many went, and why.

    Args:
        problems: a jsonl file with an `id` a row: a benchmark file, or problems of an environment.
        rates: grades as `evaluate` and `compare` store them, or the samples that they lie beside; of this file: the
            name of the benchmark is that of the file.
        output: the file to write; it may be `problems` itself.
        at_most, at_least: the range, ends included.

    Raises:
        UserError: a file is not right, a problem has no sample, the range is none, or nothing would be left. Nothing is
            written then.
    """
    if not 0 <= at_least <= at_most <= 1:
        found = f"{at_least:g} to {at_most:g}"
        raise mistake("no range of pass rates", expected="0 <= at_least <= at_most <= 1", found=found)
    check_output(output)
    lines = _read_lines(problems)
    counts = count_passes(_own(_read_grades(Path(rates)), Path(problems), rates))
    _check_sampled(lines, counts, problems, rates)
    chosen = {name: at_least <= passed / count <= at_most for name, (passed, count) in counts.items()}
    kept = [name for name in lines if chosen[name]]
    if not kept:
        found = f"{len(lines)} outside of {at_least:g} to {at_most:g}"
        raise mistake("no problem is left", where=problems, found=found, fix="widen the range")
    with replacement(output) as beside:
        beside.write_bytes(b"".join(lines[name] for name in kept))
    return describe(_kept(lines, kept, counts, at_most), output, at_least, at_most)


def count_passes(grades: Iterable[Grade]) -> dict[str, tuple[int, int]]:
    """Right samples and all of them, by problem; what was given in no form, or cut off, is wrong."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for grade in grades:
        counts[grade.problem][0] += grade.correct
        counts[grade.problem][1] += 1
    return {name: (passed, count) for name, (passed, count) in counts.items()}


def describe(kept: Kept, output: Path | str, at_least: float, at_most: float) -> str:
    """The filter's result in three lines."""
    samples = f"{kept.fewest}" if kept.fewest == kept.most else f"{kept.fewest} to {kept.most}"
    total = kept.kept + kept.easy + kept.hard
    return "\n".join(
        (
            f"{output}: {kept.kept} of {total} problems, by {samples} samples each",
            f"went: {kept.easy} too easy (pass rate above {at_most:g}), {kept.hard} too hard (below {at_least:g})",
            f"mean pass rate: {kept.mean_before:.3f} before, {kept.mean_after:.3f} after",
        )
    )


def _read_lines(path: Path | str) -> dict[str, bytes]:
    """The lines of a file of problems by id, as they stand there, each with its end."""
    lines: dict[str, bytes] = {}
    for where, line in _numbered(path):
        name = text_of(parse_row(line, where), "id", where)
        if name in lines:
            raise mistake(f"id {name!r} is there twice", where=where, fix="take one of them out")
        lines[name] = line.rstrip(b"\r\n") + b"\n"
    if not lines:
        raise mistake("is empty", where=path, expected="a JSON object a line")
    return lines


def _numbered(path: Path | str) -> Iterable[tuple[str, bytes]]:
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _read_grades(path: Path) -> list[Grade]:
    """The grades of a file, or those beside a file of samples, which have to be all there."""
    _, first = next(iter(read_rows(path)))
    if "response" not in first:
        return read_grades(path)
    beside = grades_path(path)
    if not beside.exists():
        fix = f"python -m experiments.compare --samples={path} --benchmark=FILE.jsonl grades them"
        raise mistake("samples without grades", where=path, expected=beside.name, fix=fix)
    grades = read_grades(beside)
    there = {(grade.benchmark, grade.key) for grade in grades}
    missing = [sample for sample in read_samples(path) if (sample.benchmark, sample.key) not in there]
    if missing:
        found = f"{len(missing)}, the first of problem {missing[0].problem}"
        raise mistake("samples without grades", where=path, found=found, fix="grade them again")
    return grades


def _own(grades: Sequence[Grade], problems: Path, where: Path | str) -> list[Grade]:
    """The grades of a file of problems, of one method, each once."""
    own = [grade for grade in grades if grade.benchmark == problems.stem]
    if not own:
        found = ", ".join(sorted({grade.benchmark for grade in grades}))
        fix = "sample this file, or give it the name that it was sampled under"
        raise mistake("no grades of these problems", where=where, expected=problems.stem, found=found, fix=fix)
    methods = sorted({grade.method for grade in own})
    if len(methods) > 1:
        fix = "give the grades of one run"
        raise mistake("several methods", where=where, expected="one", found=", ".join(methods), fix=fix)
    seen: set[tuple] = set()
    for grade in own:
        if grade.key in seen:
            found = f"problem {grade.problem}, sample {grade.index}, seed {grade.seed}"
            raise mistake("the same grade twice", where=where, found=found, fix="grade the samples again")
        seen.add(grade.key)
    return own


def _check_sampled(lines: Mapping[str, bytes], counts: Mapping[str, tuple], problems: Path | str, rates) -> None:
    missing = [name for name in lines if name not in counts]
    if missing:
        found = f"{len(missing)}, the first {missing[0]!r}"
        fix = "sample them too: an unknown pass rate is none of 0"
        raise mistake(f"problems without a grade in {rates}", where=problems, found=found, fix=fix)


def _kept(lines: Mapping[str, bytes], kept: Sequence[str], counts: Mapping[str, tuple], at_most: float) -> Kept:
    rates = {name: counts[name][0] / counts[name][1] for name in lines}
    sizes = [counts[name][1] for name in lines]
    easy = sum(rate > at_most for rate in rates.values())
    return Kept(
        len(kept), easy, len(lines) - len(kept) - easy, min(sizes), max(sizes),
        sum(rates.values()) / len(lines), sum(rates[name] for name in kept) / len(kept),
    )  # fmt: skip

"""Scores of graded samples, their errors, and comparisons of two runs on the same problems.

Two errors belong to an average. `standard_error` is over problems: how far the average would move on other problems
of the same kind. `sampling_error` is within problems: how far it would move if the same problems were sampled again,
which is what a published figure on the same problems is to be held against.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.evaluation.grades import Grade
from zaya_jax.evaluation.majority import maj_at_k, pass_at_k
from zaya_jax.evaluation.samples import SETTINGS, Sample

DRAWS = 10_000
_BLOCK = 1 << 22  # indices of a bootstrap drawn at once


@dataclasses.dataclass(frozen=True)
class Score:
    """What a run scored on a benchmark.

    Attributes:
        benchmark: its name.
        run: the run's name.
        accuracies: share of right samples, by problem.
        counts: samples, by problem.
        average: mean over problems of their accuracies; avg@k for k samples each.
        error: standard error over problems; NaN for one problem.
        sampling: standard error within problems; NaN where a problem has one sample.
        passes: pass@k, by k.
        majorities: maj@k, by k; NaN for kinds whose answers have no vote (code, instructions).
        truncated: share of samples that a budget cut off.
        format: share of samples with an answer in the form that was asked for.
        generated: mean tokens generated for a sample.
        cost: mean tokens generated for a problem to be answered once: a whole population of N for Markovian RSA.
        settings: T, N, C, beta, tau of Markovian RSA, or nothing.
    """

    benchmark: str
    run: str
    accuracies: Mapping[str, float]
    counts: Mapping[str, int]
    average: float
    error: float
    sampling: float
    passes: Mapping[int, float]
    majorities: Mapping[int, float]
    truncated: float
    format: float
    generated: float
    cost: float
    settings: Mapping[str, int]

    @property
    def k(self) -> tuple[int, int]:
        """The fewest and the most samples of a problem."""
        return min(self.counts.values()), max(self.counts.values())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs on the problems that both have, by a paired bootstrap over problems.

    Attributes:
        benchmark: its name.
        a, b: names of the runs.
        difference: average of b minus that of a.
        low, high: 95 % interval of the difference.
        p: two-sided chance of a difference this far from 0 if there were none.
        n: problems that both have.
        left_out: problems that only one has.
    """

    benchmark: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    n: int
    left_out: int


def score(samples: Sequence[Sample], grades: Iterable[Grade], run: str = "", ks: Iterable[int] | None = None) -> Score:
    """Scores the samples of one benchmark; each counts alike within its problem, each problem alike in the average.

    Args:
        samples: of one run.
        grades: at least theirs.
        run: a name for it.
        ks: which pass@k and maj@k; None takes 1, 2, 4, ... up to the fewest samples of a problem, and that number.

    Raises:
        UserError: there is no sample, they are of several benchmarks, or one has no grade.
    """
    benchmark = _only_benchmark(samples)
    by_key = {grade.key: grade for grade in grades if grade.benchmark == benchmark}
    ungraded = [sample for sample in samples if sample.key not in by_key]
    if ungraded:
        found = f"{len(ungraded)}, the first of problem {ungraded[0].problem}"
        raise mistake("samples without a grade", where=run or benchmark, found=found, fix="grade them again")
    rows = collections.defaultdict(list)
    for sample in samples:
        rows[sample.problem].append(by_key[sample.key])
    accuracies = {name: _mean(row.correct for row in found) for name, found in rows.items()}
    counts = {name: len(found) for name, found in rows.items()}
    values, sizes = np.array(list(accuracies.values())), np.array(list(counts.values()))
    chosen = _ks(ks, int(sizes.min()), run or benchmark)
    settings, generated = _settings(samples), _mean(sample.generated for sample in samples)
    return Score(
        benchmark, run, accuracies, counts, float(values.mean()), standard_error(values),
        sampling_error(values, sizes), {k: _pass(rows, k) for k in chosen}, {k: _majority(rows, k) for k in chosen},
        _mean(sample.truncated for sample in samples), _mean(by_key[sample.key].format for sample in samples),
        generated, generated * settings.get("N", 1), settings,
    )  # fmt: skip


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values; NaN for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def sampling_error(accuracies: np.ndarray, counts: np.ndarray) -> float:
    """Standard error of the average if the same problems are sampled again: binomial within each, unbiased.

    NaN where a problem has one sample, which says nothing of how samples differ. It takes samples to be independent;
    candidates of one population of Markovian RSA are not, and their error is larger than this.
    """
    p, n = np.asarray(accuracies, np.float64), np.asarray(counts)
    if (n < 2).any():
        return math.nan
    return float(np.sqrt((p * (1 - p) / (n - 1)).sum()) / len(p))


def compare(a: Score, b: Score, seed: int = 0, draws: int = DRAWS) -> Comparison:
    """Compares two runs on one benchmark.

    Raises:
        UserError: they are of different benchmarks, or have no problem in common.
    """
    if a.benchmark != b.benchmark:
        raise mistake("runs on different benchmarks", where=b.run, expected=a.benchmark, found=b.benchmark)
    common = sorted(a.accuracies.keys() & b.accuracies.keys())
    if not common:
        raise mistake("no problem in common", where=b.run, expected=f"those of {a.run}, {a.benchmark}")
    differences = np.array([b.accuracies[name] - a.accuracies[name] for name in common])
    low, high, p = paired_bootstrap(differences, seed, draws)
    left_out = len(a.accuracies.keys() ^ b.accuracies.keys())
    return Comparison(a.benchmark, a.run, b.run, float(differences.mean()), low, high, p, len(common), left_out)


def paired_bootstrap(differences: np.ndarray, seed: int = 0, draws: int = DRAWS) -> tuple[float, float, float]:
    """Resamples problems: the 95 % percentile interval of the mean difference, and a two-sided p.

    p is twice the smaller share of resampled means at or beyond 0 on either side, counting the data itself as one draw
    more, so that it is never 0 and no smaller than 2 / (draws + 1).
    """
    differences, generator = np.asarray(differences, np.float64), np.random.default_rng(seed)
    n = len(differences)
    means = np.empty(draws)
    rows = max(1, _BLOCK // n)
    for start in range(0, draws, rows):
        stop = min(start + rows, draws)
        means[start:stop] = differences[generator.integers(n, size=(stop - start, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    # Means that are 0 but for rounding lie on both sides.
    below, above = ((sign * means <= 1e-12).sum() for sign in (1, -1))
    return float(low), float(high), min(1.0, 2 * (1 + int(min(below, above))) / (draws + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for several tests: p-values that can each be held against the level for all of them."""
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _only_benchmark(samples: Sequence[Sample]) -> str:
    names = sorted({sample.benchmark for sample in samples})
    if len(names) != 1:
        raise mistake("not the samples of one benchmark", expected="one", found=", ".join(names) or "no samples")
    return names[0]


def _ks(ks: Iterable[int] | None, fewest: int, where: str) -> list[int]:
    if ks is None:
        return sorted({1 << power for power in range(fewest.bit_length())} | {fewest})
    for k in (ks := sorted(set(ks))):
        if not 1 <= k <= fewest:
            raise mistake(
                f"no pass@{k}", where=where, expected=f"k from 1 to {fewest}, the fewest samples of a problem"
            )
    return ks


def _pass(rows: Mapping[str, Sequence[Grade]], k: int) -> float:
    return _mean(pass_at_k(len(found), sum(row.correct for row in found), k) for found in rows.values())


def _majority(rows: Mapping[str, Sequence[Grade]], k: int) -> float:
    # Answers that nobody compared have no classes: then there is no such figure, rather than 0.
    if all(row.cluster is None for found in rows.values() for row in found if row.answer is not None):
        return math.nan
    chances = (maj_at_k([row.cluster for row in found], [row.correct for row in found], k) for found in rows.values())
    return _mean(chances)


def _settings(samples: Sequence[Sample]) -> dict[str, int]:
    """What all samples have in common of the settings of Markovian RSA."""
    every: list[Mapping[str, Any]] = [sample.meta for sample in samples]
    first = every[0]
    return {name: first[name] for name in SETTINGS
            if isinstance(first.get(name), int) and all(meta.get(name) == first[name] for meta in every)}  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)

"""What a study came to: a table of its arms, and the comparisons that were named beforehand."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.environments.rows import read_rows
from zaya_jax.evaluation.grades import read_grades
from zaya_jax.evaluation.majority import pass_at_k
from zaya_jax.evaluation.score import holm, paired_bootstrap, standard_error
from zaya_jax.rl.sample_scores import SCORES, read_scores
from zaya_jax.rl.study import GREEDY, SAMPLED, START, StudyConfig, benchmarks, run_name


@dataclasses.dataclass(frozen=True)
class Examined:
    """A run's answers to the held-out problems, by benchmark and problem.

    Attributes:
        average: share of right answers at temperature 1 (avg@k).
        greedy: 1 where the greedy answer is right.
        any: 1 where one of the k answers is right (pass@k).
        score: mean of a reward model's scores of the k answers; empty without one.
    """

    average: Mapping[str, float]
    greedy: Mapping[str, float]
    any: Mapping[str, float]
    score: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Difference:
    """An arm against another: per problem the mean over seeds, resampled over problems.

    Attributes:
        arm, other, group, figure: what is compared.
        mean, low, high: difference with its 95 % interval.
        p: two-sided, with Holm's correction over all comparisons of the study.
        by_seed: the difference of each seed.
    """

    arm: str
    other: str
    group: str
    figure: str
    mean: float
    low: float
    high: float
    p: float
    by_seed: tuple[float, ...]


def examined(study: StudyConfig, root: pathlib.Path | str, name: str) -> Examined | None:
    """A run's answers; None if it has not been examined yet.

    Raises:
        UserError: a file is not right.
    """
    folders = [pathlib.Path(root, "answers", name, way) for way in (SAMPLED, GREEDY)]
    files = [{one: folder / one / "grades.jsonl" for one in benchmarks(study)} for folder in folders]
    scores = {one: folders[0] / one / SCORES for one in benchmarks(study)} if study.reward else {}
    if not all(file.exists() for own in (*files, scores) for file in own.values()):
        return None
    sampled, greedy = (_right(own) for own in files)
    means = {problem: float(np.mean(right)) for problem, right in sampled.items()}
    passes = {problem: pass_at_k(len(right), sum(right), len(right)) for problem, right in sampled.items()}
    said = {f"{one}/{name}": score for one, file in scores.items() for name, score in read_scores(file).items()}
    return Examined(means, {problem: float(right[0]) for problem, right in greedy.items()}, passes, said)


def figures(study: StudyConfig) -> tuple[str, ...]:
    """Of each run."""
    return ("average", "greedy", "any", *(("score",) if study.reward else ()))


def groups(study: StudyConfig) -> dict[str, tuple[str, ...]]:
    """The environments of each group of problems."""
    return {group.name: group.environments for group in study.groups} or {"all": study.environments}


def runs(study: StudyConfig, root: pathlib.Path | str) -> dict[str, dict[int, Examined]]:
    """By arm and seed, as far as they have been examined; the start has a single one, for every seed the same."""
    found: dict[str, dict[int, Examined]] = {}
    for arm in (START, *(arm.name for arm in study.arms)):
        names = {seed: START if arm == START else run_name(arm, seed) for seed in study.seeds}
        own = {seed: examined(study, root, name) for seed, name in names.items()}
        found[arm] = {seed: one for seed, one in own.items() if one is not None}
    return found


def differences(study: StudyConfig, found: Mapping[str, Mapping[int, Examined]]) -> list[Difference]:
    """The comparisons named beforehand, over the seeds that both arms have; none where there is no such seed."""
    made = []
    for arm, other in study.comparisons:
        seeds = [seed for seed in study.seeds if seed in found[arm] and seed in found[other]]
        for group, own in groups(study).items() if seeds else ():
            made += [_difference(found, (arm, other, group, figure), own, seeds) for figure in figures(study)]
    corrected = holm({str(place): one.p for place, one in enumerate(made)})
    return [dataclasses.replace(one, p=corrected[str(place)]) for place, one in enumerate(made)]


def _difference(
    found: Any, compared: tuple[str, str, str, str], environments: Sequence[str], seeds: Sequence[int]
) -> Difference:
    arm, other, _, figure = compared
    pairs = [(getattr(found[arm][seed], figure), getattr(found[other][seed], figure)) for seed in seeds]
    problems = sorted(name for name in pairs[0][0] if name.partition("/")[0].rpartition("-")[0] in environments)
    by_SP = np.array([[ours[name] - theirs[name] for name in problems] for ours, theirs in pairs])
    mean = by_SP.mean(axis=0)
    low, high, p = paired_bootstrap(mean)
    return Difference(*compared, float(mean.mean()), low, high, p, tuple(by_SP.mean(axis=1).tolist()))


def table(study: StudyConfig, found: Mapping[str, Mapping[int, Examined]], root: pathlib.Path | str) -> list[list[str]]:
    """Rows of arms: mean over seeds and problems, the seeds' own means, and minutes of training."""
    lines = []
    for arm, own in found.items():
        if own:
            one = {START: list(own.values())[:1]}.get(arm, list(own.values()))
            cells = [
                _cell([float(np.mean(list(getattr(each, figure).values()))) for each in one])
                for figure in figures(study)
            ]
            minutes = [] if arm == START else [seconds(pathlib.Path(root, run_name(arm, seed))) / 60 for seed in own]
            lines.append([arm, str(len(one)), *cells, f"{np.mean(minutes):.1f}" if minutes else "-"])
    return lines


def by_part(study: StudyConfig, found: Mapping[str, Mapping[int, Examined]]) -> list[list[str]]:
    """Rows of benchmarks: avg@k of every arm, the mean over its seeds."""
    arms = [arm for arm, own in found.items() if own]
    parts: dict[str, list[str]] = collections.defaultdict(list)
    for problem in next(iter(found[arms[0]].values())).average:
        parts[problem.partition("/")[0]].append(problem)
    return [
        [part, str(len(names)), *(_mean_of(found[arm].values(), names) for arm in arms)]
        for part, names in sorted(parts.items())
    ]


def head(study: StudyConfig) -> list[str]:
    """Of `table`."""
    k = study.samples
    scores = ["score"] if study.reward else []
    return ["arm", "seeds", f"avg@{k}", "greedy", f"pass@{k}", *scores, "minutes of training"]


def seconds(run: pathlib.Path) -> float:
    """Wall time of a run's steps, as its metrics have it; 0 if there are none."""
    file = run / "metrics.jsonl"
    if not file.exists():
        return 0.0
    steps = [row for _, row in read_rows(file) if row.get("kind") in ("step", "train")]
    times = [row["seconds"] for row in steps]
    return sum(time["whole"] for time in times) if times and isinstance(times[0], dict) else max(times, default=0.0)


def write_results(study: StudyConfig, root: pathlib.Path | str) -> str:
    """Writes results.json and gives the tables as markdown.

    Raises:
        UserError: a file of grades is not right.
    """
    found = runs(study, root)
    tests = differences(study, found)
    parts = [markdown(head(study), table(study, found, root))]
    if tests:
        parts.append(
            markdown(["comparison", "of", "figure", "difference", "95 %", "p (Holm)", "by seed"], map(_told, tests))
        )
    if any(found.values()):
        arms = [arm for arm, own in found.items() if own]
        parts.append(markdown(["benchmark", "problems", *arms], by_part(study, found)))
    kept = {"study": dataclasses.asdict(study), "comparisons": [dataclasses.asdict(one) for one in tests]}
    kept["arms"] = {
        arm: {seed: {figure: float(np.mean(list(getattr(one, figure).values()))) for figure in figures(study)}
              for seed, one in own.items()}
        for arm, own in found.items()
    }  # fmt: skip
    path = pathlib.Path(root, "results.json")
    beside = path.with_name(".results.json.tmp")
    beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return "\n\n".join(parts)


def markdown(head: Sequence[str], rows: Any) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _right(files: Mapping[str, pathlib.Path]) -> dict[str, list[bool]]:
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for benchmark, file in files.items():
        for grade in read_grades(file):
            right[f"{benchmark}/{grade.problem}"].append(grade.correct)
    return right


def _mean_of(own: Any, names: Sequence[str]) -> str:
    return f"{np.mean([[one.average[name] for name in names] for one in own]):.3f}"


def _cell(values: Sequence[float]) -> str:
    """The mean; of several seeds with their standard error and the values themselves."""
    mean = f"{np.mean(values):.3f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {standard_error(np.array(values)):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def _told(one: Difference) -> list[str]:
    seeds = ", ".join(f"{value:+.3f}" for value in one.by_seed)
    interval = f"{one.low:+.3f} to {one.high:+.3f}"
    return [f"{one.arm} - {one.other}", one.group, one.figure, f"{one.mean:+.3f}", interval, f"{one.p:.4f}", seeds]
